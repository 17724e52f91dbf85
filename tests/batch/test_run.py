from __future__ import annotations

import errno
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gradings import graded, heat, refused
from retigrade import files
from retigrade.batch import plan
from retigrade.batch.destination import Destination, Earlier, RunHeader
from retigrade.batch.photographs import Photograph
from retigrade.batch.plan import write_plan
from retigrade.batch.run import BatchOutcome, forecast, run_batch
from retigrade.batch.sources import list_source
from retigrade.batch.stores import Store
from retigrade.batch.worker import PartWorker, WorkerConfig
from retigrade.cli import main
from retigrade.errors import UnreadablePhoto, UsageError
from retigrade.fundus.decode import Photo, decode_bytes
from retigrade.grader import load
from retigrade.grading import Grading
from retigrade.icdr import Grade, Status
from retigrade.inputs import Input
from retigrade.output.illustrate import HeatPictures, Illustrated, draw
from retigrade.output.rows import Row, as_row, json_line
from retigrade.output.schema import json_schema
from tiny_bundle import write_tiny_bundle

Rows = Callable[[Path | str], list[dict[str, Any]]]
FIELDS = tuple(Row.__dataclass_fields__)


def as_plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a grading's values, without the time that it took."""
    return {name: row[name] for name in FIELDS if name != "seconds"}


@pytest.fixture
def batch(here: Any, bundle: Path, tmp_path: Path) -> Callable[..., BatchOutcome]:
    def run(source: Path | str, **options: Any) -> BatchOutcome:
        return run_batch(str(source), **{"out": str(tmp_path / "out"), "bundle": bundle, "engine": here} | options)

    return run


def test_one_row_each_with_the_values_of_grade(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, bundle: Path, rows: Rows
) -> None:
    outcome = batch(photographs, part_size=2)
    written = rows(tmp_path / "out")
    paths = [Path(row["path"]) for row in written]
    assert paths == sorted(path for path in photographs.rglob("*.jpg"))
    for row, grading in zip(written, load(bundle).grade_many(paths), strict=True):
        expected = json.loads(json_line(as_row(grading)))
        del expected["seconds"]
        assert as_plain(row) == expected
    assert outcome.counts["error"] == 1
    assert sum(outcome.counts.values()) - outcome.counts["referable"] == 6
    assert json.loads((tmp_path / "out/_summary.json").read_text())["counts"] == outcome.counts
    assert not (tmp_path / "out/_plans").exists()


def test_the_rows_fit_the_schema_of_json(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    batch(photographs)
    validator = jsonschema.Draft202012Validator(json_schema())
    for row in rows(tmp_path / "out"):
        validator.validate({name: row[name] for name in FIELDS})
    assert set(json_schema()["$defs"]["grading"]["properties"]) == set(FIELDS)


@pytest.mark.parametrize("heat", ["bytes", "files"])
def test_thermal_pictures(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows, heat: str
) -> None:
    batch(photographs, heat=heat)
    for row in rows(tmp_path / "out"):
        assert (row["heat"] is not None) == (row["status"] == "graded")
        if row["heat"] is not None:
            picture = row["heat"] if heat == "bytes" else (tmp_path / "out" / row["heat"]).read_bytes()
            assert picture[:3] == b"\xff\xd8\xff"


def test_a_store_as_source_and_destination(batch: Callable[..., BatchOutcome], in_memory: str, rows: Rows) -> None:
    assert batch(in_memory, out="memory://out", part_size=2).graded_now == 6
    assert len(rows("memory://out")) == 6
    again = batch(in_memory, out="memory://out", part_size=2)
    assert (again.graded_now, again.planned.kept) == (0, 6)


def test_shards_as_a_source(
    batch: Callable[..., BatchOutcome], shard: Path, tmp_path: Path, jpegs: list[bytes], rows: Rows
) -> None:
    import hashlib

    batch(shard.parent)
    first, second = rows(tmp_path / "out")
    assert [row["sha256"] for row in (first, second)] == [hashlib.sha256(data).hexdigest() for data in jpegs[:2]]
    assert (first["patient"], first["eye"], first["date"]) == ("P1", "right", "2024-05-02")


def test_a_later_run_grades_what_is_new_or_changed_and_forgets_what_is_gone(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows, jpegs: list[bytes]
) -> None:
    batch(photographs, part_size=3)
    before = {row["path"]: row for row in rows(tmp_path / "out")}
    (photographs / "left/0.jpg").write_bytes(jpegs[3])
    (photographs / "left/2.jpg").unlink()
    (photographs / "new.jpg").write_bytes(jpegs[2])
    outcome = batch(photographs, part_size=3)
    after = {row["path"]: row for row in rows(tmp_path / "out")}
    assert (outcome.graded_now, outcome.planned.removed, outcome.planned.kept) == (2, 2, 4)
    assert len(rows(tmp_path / "out")) == len(after) == 6
    assert after[str(photographs / "left/0.jpg")]["sha256"] == before[str(photographs / "right/3.jpg")]["sha256"]
    assert after[str(photographs / "right/1.jpg")] == before[str(photographs / "right/1.jpg")]


def test_errors_are_graded_again_when_asked(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    batch(photographs)
    assert batch(photographs).graded_now == 0
    assert batch(photographs, retry_errors=True).graded_now == 1
    assert len(rows(tmp_path / "out")) == 6


def test_a_corrected_subject_reaches_the_rows(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,patient,eye,date\nphotos/left/0.jpg,1,OS,2024-05-02\nphotos/left/2.jpg,2,OS,\n")
    assert batch(manifest).graded_now == 2
    assert batch(manifest).graded_now == 0
    for corrected, of_first in (
        ("7,OS,2024-05-02", ("7", "left", "2024-05-02")),
        ("7,OD,2024-05-02", ("7", "right", "2024-05-02")),
        ("7,OD,2024-05-03", ("7", "right", "2024-05-03")),
        ("7,OD,", ("7", "right", None)),
    ):
        manifest.write_text(f"uri,patient,eye,date\nphotos/left/0.jpg,{corrected}\nphotos/left/2.jpg,2,OS,\n")
        outcome = batch(manifest)
        assert (outcome.graded_now, outcome.planned.kept, outcome.planned.removed) == (1, 1, 1)
        first, second = rows(tmp_path / "out")
        assert (first["patient"], first["eye"], first["date"]) == of_first
        assert second["patient"] == "2"


def test_a_name_that_is_not_unicode_is_an_error_row(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows, jpegs: list[bytes]
) -> None:
    try:
        Path(os.fsdecode(os.fsencode(str(photographs)) + b"/\xff.jpg")).write_bytes(jpegs[0])
    except OSError:
        pytest.skip("this file system takes no such names")
    assert batch(photographs).counts["error"] == 2
    (odd,) = (row for row in rows(tmp_path / "out") if "udcff" in row["path"])
    assert odd["path"] == f"{photographs}/\\udcff.jpg"
    assert odd["reasons"][0].endswith("its name is not Unicode; rename it")
    assert batch(photographs).graded_now == 0


def test_the_first_of_many(batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows) -> None:
    assert batch(photographs, limit=2).graded_now == 2
    assert batch(photographs, limit=4).graded_now == 2
    assert batch(photographs, limit=1).planned.removed == 0
    assert len(rows(tmp_path / "out")) == 4


def test_a_part_that_was_cut_short_is_made_again(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    batch(photographs, part_size=3)
    part = min((tmp_path / "out").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    outcome = batch(photographs)
    assert outcome.graded_now == 3
    assert any("was cut short and is made again" in note for note in outcome.planned.notes)
    assert len(rows(tmp_path / "out")) == 6


class Stingy(io.BytesIO):
    """A file of a store that gives nothing."""

    error: Exception

    def read(self, size: int | None = -1) -> bytes:
        raise self.error


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        PermissionError("Forbidden"),
        FileNotFoundError("part"),
        OSError("Forbidden: part"),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        RuntimeError("SlowDown"),
    ],
)
def test_a_part_that_the_store_does_not_give_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool, error: Exception
) -> None:
    out = Store(str(tmp_path / "out"))
    out.write("_run.json", json.dumps({"source": "a", "bundle": "b", "operating_point": None, "heat": "none"}).encode())
    out.write("part-a-000000.parquet", b"rows")

    def refuse(_store: Store, _name: str) -> Stingy:
        if not opens:
            raise error
        file = Stingy(bytes(1000))
        file.error = error
        return file

    monkeypatch.setattr(Store, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*part-a-000000.parquet: .+; the part stays"):
        Earlier.read(Destination(out.address), retry_errors=False)
    assert out.read("part-a-000000.parquet") == b"rows"


@pytest.mark.parametrize("content", ["cut short", "empty", "overwritten"])
def test_a_damaged_part_is_made_again(
    batch: Callable[..., BatchOutcome], in_memory: str, memory: Any, rows: Rows, content: str
) -> None:
    batch(in_memory, out="memory://out", part_size=3)
    part = min(memory.glob("/out/*.parquet"))
    data = memory.cat_file(part)
    start = data.index(b"memory:///")
    overwritten = data[: start - 20] + bytes(40) + data[start + 20 :]
    damaged = {"cut short": data[:-20], "empty": b"", "overwritten": overwritten}[content]
    memory.pipe_file(part, damaged)
    assert batch(in_memory, out="memory://out").graded_now == 3
    assert len(rows("memory://out")) == 6


def test_what_a_killed_run_wrote_late_or_twice_is_one_row(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    batch(photographs, part_size=3)
    out = tmp_path / "out"
    part = min(out.glob("*.parquet"))
    (out / "part-00000000-000000.parquet").write_bytes(part.read_bytes())
    assert len(rows(out)) == 9
    assert batch(photographs).planned.removed == 3
    assert len(rows(out)) == 6


def test_another_bundles_run_is_left_alone(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    batch(photographs)
    before = rows(tmp_path / "out")
    other = write_tiny_bundle(tmp_path / "other.onnx", temperature=2.0)
    with pytest.raises(UsageError, match=r"holds a run by tiny@\w+, and this one is by tiny@\w+; name another folder"):
        batch(photographs, bundle=other)
    with pytest.raises(UsageError, match="holds a run of"):
        batch(photographs / "left")
    with pytest.raises(UsageError, match="holds a run with heat none"):
        batch(photographs, heat="bytes")
    assert rows(tmp_path / "out") == before


def test_parquet_files_of_others_are_left_alone(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.parquet").write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds Parquet files of something else"):
        batch(photographs)
    assert (tmp_path / "out/mine.parquet").read_bytes() == b"mine"


def test_two_runs_do_not_write_into_one_folder(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="this system has no file locks")
    batch(photographs)
    with (tmp_path / "out/_lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another run is writing into"):
            batch(photographs)


def test_a_lock_that_is_held_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a second run looked for the file just before the first one made it."""
    fcntl = pytest.importorskip("fcntl", reason="this system has no file locks")
    header = RunHeader(source="a", bundle="b", operating_point=None, heat="none")
    lock, exists = tmp_path / "_lock", Path.exists
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(Path, "exists", lambda path: path != lock and exists(path))
        destination = Destination(str(tmp_path))
        with pytest.raises(UsageError, match="another run is writing into"), destination.opened(header):
            pass
        assert lock.stat().st_ino == os.fstat(file.fileno()).st_ino


def test_a_lock_that_is_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl", reason="this system has no file locks")
    header = RunHeader(source="a", bundle="b", operating_point=None, heat="none")

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as changed:
        changed.setattr("fcntl.flock", unsupported)
        with (
            pytest.raises(UsageError, match=r"cannot be locked against a second run \(.+\): name a folder of"),
            Destination(str(tmp_path)).opened(header),
        ):
            pass
    (tmp_path / "_lock").unlink()
    (tmp_path / "_lock").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*_lock"), Destination(str(tmp_path)).opened(header):
        pass


def test_a_full_disk(
    batch: Callable[..., BatchOutcome],
    photographs: Path,
    tmp_path: Path,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = files.write_whole, 0

    def write_once(target: Path, data: bytes) -> None:
        nonlocal written
        written += target.name.startswith("part-")
        with files.writing(target):
            if written > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(target, data)

    monkeypatch.setattr("retigrade.batch.stores.write_whole", write_once)
    with pytest.raises(UsageError, match="No space left on device; what is written stays"):
        batch(photographs, part_size=2)
    assert len(rows(tmp_path / "out")) == 2
    monkeypatch.undo()
    assert batch(photographs, part_size=2).graded_now == 4
    assert len(rows(tmp_path / "out")) == 6


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_parts_are_so_many_that_no_worker_waits_long_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes(count: int) -> list[int]:
        photographs = (Photograph(uri=str(number)) for number in range(count))
        store = Store(str(tmp_path / str(count)))
        return [part.photographs for part in write_plan(photographs, store, folder="plan", workers=2, size=None)]

    few = sizes(20)
    assert (sum(few), len(few)) == (20, 3)
    some = sizes(6400)
    assert (sum(some), set(some)) == (6400, {100})
    monkeypatch.setattr(plan, "_MOST_HELD", 3000)
    assert sizes(3500) == [1000, 1000, 1000, 500]


def test_a_photograph_of_300_megapixels_is_an_error_row(
    batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path, rows: Rows
) -> None:
    (photographs / "vast.png").write_bytes(png_header(20_000, 15_000))
    batch(photographs)
    (vast,) = (row for row in rows(tmp_path / "out") if row["path"].endswith("vast.png"))
    assert vast["status"] == "error"
    assert "20000 x 15000" in vast["reasons"][0]
    assert len(rows(tmp_path / "out")) == 7


def test_a_photograph_that_workers_die_of_is_an_error_row_in_the_end(
    photographs: Path, tmp_path: Path, bundle: Path
) -> None:
    import pyarrow.parquet as pq

    class Death(BaseException):
        pass

    class Dying(PartWorker):
        def _verdicts(self, photographs: Any, read: Any) -> Any:
            fetch = read._fetch

            def fetch_or_die(position: int) -> bytes:
                data = fetch(position)
                if photographs[position].uri.endswith("2.jpg"):
                    raise Death
                return data

            read._fetch = fetch_or_die
            return super()._verdicts(photographs, read)

    store = Store(str(tmp_path / "out"))
    (part,) = write_plan(list_source(str(photographs)).photographs, store, folder="_plans/run", workers=1, size=10)
    config = WorkerConfig(bundle=bundle.read_bytes(), destination=store.address, run="run")
    attempts = 0
    while True:
        attempts += 1
        try:
            outcome = Dying(config).grade_part(part)
            break
        except Death:
            assert attempts < 4
    assert attempts == 4
    assert outcome.counts["error"] == 2
    rows = pq.read_table(tmp_path / "out" / outcome.name).to_pylist()
    (deadly,) = (row for row in rows if row["path"].endswith("2.jpg"))
    assert "2 workers died while they graded it" in deadly["reasons"][0]


@pytest.mark.parametrize("where", ["grade", "draw"])
def test_the_photograph_that_is_noted_is_the_one_at_work(
    photographs: Path, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """With several threads and with thermal pictures, too: no other photograph pays for a death."""
    import pyarrow.parquet as pq

    class Death(BaseException):
        pass

    def decode_or_die(data: bytes, *, name: str, min_side: int | None = None) -> Photo:
        if where == "grade" and name == "2.jpg":
            raise Death
        return decode_bytes(data, name=name, min_side=min_side)

    def draw_or_die(grading: Grading, item: Input, **options: Any) -> Illustrated:
        if where == "draw" and item.name == "2.jpg" and grading.status is not Status.ERROR:
            raise Death
        return draw(grading, item, **options)

    monkeypatch.setattr("retigrade.batch.worker.decode_bytes", decode_or_die)
    monkeypatch.setattr("retigrade.batch.worker.draw", draw_or_die)
    store = Store(str(tmp_path / "out"))
    (part,) = write_plan(list_source(str(photographs)).photographs, store, folder="_plans/run", workers=1, size=10)
    config = WorkerConfig(
        bundle=bundle.read_bytes(), destination=store.address, run="run", heat="bytes", device="cpu", threads=4
    )
    for attempt in range(4):
        if attempt < 3:
            with pytest.raises(Death):
                PartWorker(config).grade_part(part)
        else:
            outcome = PartWorker(config).grade_part(part)
    rows = pq.read_table(tmp_path / "out" / outcome.name).to_pylist()
    died = [Path(row["path"]).name for row in rows if "workers died" in " ".join(row["reasons"])]
    assert died == ["2.jpg"]
    assert outcome.counts["error"] == 2


class Held(bytes):
    """Bytes of a file that count how many of their kind are in memory."""

    now = most = 0

    def __new__(cls, data: bytes) -> Held:
        cls.now += 1
        cls.most = max(cls.most, cls.now)
        return super().__new__(cls, data)

    def __del__(self) -> None:
        type(self).now -= 1


@pytest.mark.parametrize("heat", ["none", "bytes"])
def test_memory_holds_a_few_photographs_of_a_part(
    batch: Callable[..., BatchOutcome],
    jpegs: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heat: str,
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(40):
        (tmp_path / f"photos/{number}.jpg").write_bytes(jpegs[number % 5])
    Held.now = Held.most = 0
    monkeypatch.setattr("retigrade.batch.worker.read_photograph", lambda uri, **_: Held(Path(uri).read_bytes()))
    assert batch(tmp_path / "photos", part_size=40, heat=heat).planned.parts == 1
    assert 1 < Held.most <= 14


def test_what_gives_no_thermal_picture_is_not_decoded_for_it(tmp_path: Path) -> None:
    decoded = 0

    def read(path: Path, *, min_side: int | None = None) -> Photo:
        nonlocal decoded
        decoded += 1
        raise UnreadablePhoto("a.jpg: gone")

    def drawn(grading: Grading, **options: Any) -> Illustrated:
        return draw(grading, Input(tmp_path / "a.jpg", "a.jpg", reader=read), thumbnail=False, **options)

    ungradable = replace(refused("a.jpg", Status.UNGRADABLE), sha256="ab" * 32)
    assert drawn(ungradable) == Illustrated(row=as_row(ungradable))
    healthy = graded("a.jpg", grade=Grade.NONE, referable=False, heatmap=heat(width=100, height=100))
    assert drawn(healthy, heat=HeatPictures(only="referable")) == Illustrated(row=as_row(healthy))
    assert decoded == 0
    drawn(healthy)
    assert decoded == 1


def test_what_all_would_take(photographs: Path, bundle: Path) -> None:
    found = forecast(str(photographs), bundle=bundle)
    assert (found.photographs, found.sampled, found.errors, found.unsized) == (6, 6, 1, 0)
    assert found.bytes == sum(path.stat().st_size for path in photographs.rglob("*.jpg"))
    assert found.hours(2) == pytest.approx(found.hours(1) / 2)
    assert found.cost(3.0) == pytest.approx(3.0 * found.hours(1))


def test_a_dry_run_writes_nothing(
    photographs: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", str(photographs), "--dry-run", "--bundle", str(bundle), "--price", "0.05", "--workers", "4"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert re.match(r"6 photographs, 0\.\d MiB\n", printed)
    assert re.search(r"with 4 workers\nabout \d+\.\d\d at 0.05 for an hour of a worker", printed)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_without_ray(photographs: Path, tmp_path: Path, bundle: Path) -> None:
    """In a process of its own, for whatever imported Ray before."""
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from retigrade.cli import main\n"
        "sys.exit(main(['batch', *sys.argv[1:]]))"
    )
    options = [str(photographs), "--out", str(tmp_path / "out"), "--bundle", str(bundle)]
    done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this needs the package ray, which is not installed" in done.stderr
    assert "pip install '.[batch]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name a folder or URL with --out DEST"),
        (["--out", "memory://out"], "memory is of one process alone"),
        (["--out", "out", "--workers", "0"], "--workers must be 1 or more"),
        (["--out", "out", "--limit", "0"], "--limit must be 1 or more"),
        (["--out", "out", "--part-size", "0"], "--part-size must be 1 or more"),
        (["--dry-run", "--limit", "0"], "--limit must be 1 or more, got 0"),
        (["--dry-run", "--limit", "-1"], "--limit must be 1 or more, got -1"),
        (["--out", "out", "--operating-point", "nope"], "there is no operating point 'nope'"),
    ],
)
def test_wrong_usage(
    photographs: Path, bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["batch", str(photographs), "--bundle", str(bundle), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_destination_that_is_a_file(batch: Callable[..., BatchOutcome], photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="it is not a folder"):
        batch(photographs, out=str(tmp_path / "file"))
    assert Destination(str(tmp_path / "file")).store.folder == tmp_path / "file"
