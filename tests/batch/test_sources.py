from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retigrade.batch.photographs import Photograph
from retigrade.batch.sources import Listing, list_source
from retigrade.batch.stores import open_store, read_photograph
from retigrade.errors import DataError, UnreadablePhoto, UsageError
from retigrade.inputs import expand


def listed(source: str | Path, **options: Any) -> tuple[list[Photograph], Listing]:
    listing = list_source(str(source), **options)
    return list(listing.photographs), listing


def write_csv(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_folder_lists_what_grade_lists(photographs: Path) -> None:
    (photographs / "notes.txt").write_text("no picture")
    (photographs / ".hidden.jpg").write_bytes(b"x")
    found, listing = listed(photographs)
    inputs = expand([photographs])
    assert [photograph.uri for photograph in found] == [str(item.path) for item in inputs.items]
    assert {(skipped.path.name, skipped.reason) for skipped in listing.skipped} == {
        (skipped.path.name, skipped.reason) for skipped in inputs.skipped
    }
    assert all(photograph.size == Path(photograph.uri).stat().st_size for photograph in found)


def test_a_store_lists_the_same(in_memory: str, memory: Any) -> None:
    memory.pipe_file("/photos/notes.txt", b"no picture")
    memory.pipe_file("/photos/named by nobody", memory.cat_file("/photos/left/0.jpg"))
    memory.pipe_file("/photos/.trash/0.jpg", b"x")
    found, listing = listed(in_memory)
    names = [photograph.uri.removeprefix("memory:///photos/") for photograph in found]
    assert sorted(names) == [
        *(f"left/{number}.jpg" for number in (0, 2, 4)),
        "named by nobody",
        *(f"right/{name}.jpg" for name in ("1", "3", "damaged")),
    ]
    assert sorted(skipped.path.name for skipped in listing.skipped) == [".trash", "notes.txt"]
    assert all(photograph.etag for photograph in found)
    assert read_photograph(found[0].uri, size=found[0].size, offset=None)


def test_a_wildcard_and_one_file(in_memory: str) -> None:
    assert len(listed(f"{in_memory}/left/*.jpg")[0]) == 3
    assert len(listed(f"{in_memory}/left/0.jpg")[0]) == 1


def test_the_folder_of_results_is_left_out(in_memory: str, memory: Any) -> None:
    memory.pipe_file("/photos/out/heat/0.jpg", memory.cat_file("/photos/left/0.jpg"))
    found, _ = listed(in_memory, exclude="memory:///photos/out")
    assert not [photograph for photograph in found if "/out/" in photograph.uri]


def test_an_empty_store(memory: Any, tmp_path: Path) -> None:
    memory.mkdir("/empty")
    for source in ("memory://empty", str(tmp_path)):
        with pytest.raises(UsageError, match="no photographs in"):
            list_source(source)


@pytest.mark.parametrize("source", ["memory://nowhere", "/nowhere/at/all"])
def test_a_source_that_is_not_there(memory: Any, source: str) -> None:
    with pytest.raises(UsageError, match="cannot be listed: there is no such file, folder or bucket"):
        list_source(source)


def test_a_store_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="no kind of store called nope"):
        open_store("nope://bucket")


def test_a_store_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(_: str) -> None:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        list_source("gs://bucket")


def test_a_url_without_rights(in_memory: str, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError("Forbidden")

    found, _ = listed(in_memory)
    monkeypatch.setattr(type(memory), "ls", forbidden)
    monkeypatch.setattr(type(memory), "cat_file", forbidden)
    with pytest.raises(UsageError, match="cannot be listed: no permission; check the address and your rights"):
        list_source(in_memory)
    with pytest.raises(UnreadablePhoto, match="cannot be read: no permission"):
        read_photograph(found[0].uri, size=10, offset=None)


def test_a_manifest_says_whose_eye(photographs: Path, tmp_path: Path) -> None:
    manifest = write_csv(
        tmp_path / "list.csv",
        ("uri", "patient", "eye", "date"),
        ("photos/left/0.jpg", "007", "OS", "2024-05-02"),
        ("s3://bucket/b.jpg", "008", "sinister", ""),
        ("", "009", "", ""),
    )
    found, listing = listed(manifest)
    first = found[0]
    assert first.uri == str(photographs / "left/0.jpg")
    assert (first.patient, first.eye, first.date) == ("007", "left", "2024-05-02")
    assert first.size == Path(first.uri).stat().st_size
    assert (found[1].uri, found[1].eye, found[1].etag) == ("s3://bucket/b.jpg", None, None)
    assert [skipped.reason for skipped in listing.skipped] == ["line 4 has no uri"]
    assert any("1 cells are taken as unknown" in note for note in listing.notes)
    assert any("no etag or sha256" in note for note in listing.notes)


def test_parquet_manifests_of_a_store(memory: Any, tmp_path: Path) -> None:
    for number in range(2):
        values = {"URI": [f"s3://b/{number}.jpg", "c.jpg"], "size": [5, 6], "etag": ["x", "y"], "more": [1, 2]}
        pq.write_table(pa.table(values), tmp_path / "m.parquet")
        memory.pipe_file(f"/list/{number}.parquet", (tmp_path / "m.parquet").read_bytes())
    found, listing = listed("memory://list/*.parquet")
    assert found[0] == Photograph(uri="s3://b/0.jpg", size=5, etag="x")
    assert [photograph.uri for photograph in found[1:]] == ["memory:///list/c.jpg", "s3://b/1.jpg"]
    assert listing.notes == [
        "0.parquet, 1.parquet: 1 rows name a photograph that an earlier row names; each is graded once"
    ]


def test_a_manifest_without_uri(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "m.parquet")
    for manifest in (tmp_path / "m.parquet", write_csv(tmp_path / "m.csv", ("path",), ("a.jpg",))):
        with pytest.raises(DataError, match="needs a column named uri; its columns are: path"):
            list_source(str(manifest))


def test_a_manifest_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        list_source(str(tmp_path / "m.parquet"))


def test_duplicates_in_a_manifest(tmp_path: Path) -> None:
    header = ("uri", "patient")
    rows = [("a.jpg", "1"), ("b.jpg", "2"), ("./a.jpg", "1"), ("b.jpg", "3"), ("c.jpg", "4")]
    found, listing = listed(write_csv(tmp_path / "m.csv", header, *rows))
    assert [Path(photograph.uri).name for photograph in found] == ["a.jpg", "b.jpg", "c.jpg"]
    assert found[0].patient == "1"
    assert found[1].problem == "is listed for the patients 2 and 3: it can be of one alone, correct the list"
    assert any("2 rows name a photograph that an earlier row names" in note for note in listing.notes)


@pytest.mark.parametrize("remote", [False, True])
def test_manifests_of_a_pattern_are_checked_together(tmp_path: Path, memory: Any, remote: bool) -> None:
    header, b = ("uri", "patient"), ("s3://b/b.jpg", "2")
    write_csv(tmp_path / "1.csv", header, ("s3://b/a.jpg", "1"), b)
    write_csv(tmp_path / "2.csv", header, b, ("s3://b/a.jpg", "3"), ("s3://b/c.jpg", "4"))
    for number in (1, 2):
        memory.pipe_file(f"/lists/{number}.csv", (tmp_path / f"{number}.csv").read_bytes())
    found, listing = listed("memory://lists/*.csv" if remote else tmp_path / "*.csv")
    assert [photograph.uri[-5:] for photograph in found] == ["a.jpg", "b.jpg", "c.jpg"]
    assert found[0].problem == "is listed for the patients 1 and 3: it can be of one alone, correct the list"
    assert found[1].patient == "2"
    assert "1.csv, 2.csv: 2 rows name a photograph that an earlier row names; each is graded once" in listing.notes


def test_photographs_beside_their_manifest(photographs: Path, memory: Any) -> None:
    rows = [("uri", "patient"), ("0.jpg", "007"), ("gone.jpg", "008")]
    manifest = write_csv(photographs / "left/list.csv", *rows)
    for path in (manifest, photographs / "left/0.jpg", photographs / "left/2.jpg"):
        memory.pipe_file(f"/left/{path.name}", path.read_bytes())
    for pattern, others in ((f"{photographs}/left/*", ["2.jpg", "4.jpg"]), ("memory://left/*", ["2.jpg"])):
        found, listing = listed(pattern)
        assert [Path(photograph.uri).name for photograph in found] == ["0.jpg", "gone.jpg", *others]
        assert found[0].patient == "007"
        assert "1 photographs are matched and listed in a manifest as well; each is graded once" in listing.notes


@pytest.mark.parametrize("pattern", ["**", "*", "*/*", "**/*.jpg", "**/**"])
def test_a_pattern_lists_a_photograph_once(photographs: Path, pattern: str) -> None:
    (photographs / "left/deeper").mkdir()
    (photographs / "left/0.jpg").rename(photographs / "left/deeper/0.jpg")
    found, _ = listed(photographs / pattern)
    assert sorted(photograph.uri for photograph in found) == sorted(map(str, photographs.rglob("*.jpg")))


def test_a_match_that_cannot_be_looked_into(photographs: Path) -> None:
    os.mkfifo(photographs / "left/pipe")
    (photographs / "left/dangling").symlink_to("nowhere")
    (photographs / "left/text").write_text("no picture")
    found, listing = listed(photographs / "left/*")
    assert {Path(photograph.uri).name for photograph in found} == {"0.jpg", "2.jpg", "4.jpg", "pipe", "dangling"}
    assert [skipped.path.name for skipped in listing.skipped] == ["text"]


def write_run(write: Callable[[str, bytes], object], jpeg: bytes) -> None:
    """What a run leaves in its folder, and a photograph of somebody else's."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": ["/a.jpg"]}), buffer)
    for name in ("part-0a-000000.parquet", "_plans/0a/00000.parquet"):
        write(name, buffer.getvalue())
    for name in ("heat/ab/abc.jpg", "mine.jpg"):
        write(name, jpeg)
    write("_run.json", b"{}")


@pytest.mark.parametrize("pattern", ["**/*.jpg", "**/*", "*/*"])
def test_a_pattern_leaves_out_what_runs_wrote(photographs: Path, jpegs: list[bytes], pattern: str) -> None:
    def write(name: str, data: bytes) -> None:
        path = photographs / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    write_run(write, jpegs[0])
    link = photographs.parent / "link"
    link.symlink_to(photographs)
    found, _ = listed(photographs / pattern, exclude=f"{link}/out/")
    assert {photograph.uri for photograph in found} == {
        str(photographs / "out/mine.jpg"),
        *(str(path) for side in ("left", "right") for path in (photographs / side).iterdir()),
    }
    for nothing in ("*/*/*/*", "*/*.parquet", "*/heat"):
        with pytest.raises(UsageError, match="no photographs in"):
            listed(photographs / nothing, exclude=str(photographs / "out"))


@pytest.mark.parametrize("source", ["memory://photos", "memory://photos/**"])
@pytest.mark.parametrize("out", ["memory://photos/out", "memory:///photos/out/", "memory://photos/"])
def test_a_store_leaves_out_what_runs_wrote(
    in_memory: str, memory: Any, jpegs: list[bytes], source: str, out: str
) -> None:
    folder = "/photos/out" if "out" in out else "/photos"
    write_run(lambda name, data: memory.pipe_file(f"{folder}/{name}", data), jpegs[0])
    found, listing = listed(source, exclude=out)
    names = {photograph.uri.removeprefix("memory:///photos/") for photograph in found}
    right = {"right/1.jpg", "right/3.jpg", "right/damaged.jpg"}
    assert names - {"mine.jpg", "out/mine.jpg"} == {"left/0.jpg", "left/2.jpg", "left/4.jpg", *right}
    assert {skipped.reason for skipped in listing.skipped} & {"the output folder", "written by an earlier run"}


def test_another_store_of_the_same_kind_is_not_the_output_folder(
    in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of one path on two servers are two."""

    def opened(address: str) -> tuple[Any, str]:
        system, path = open_store(address)
        host = "second" if "left" in address else "first"
        of_host = type(system)(server=host)
        of_host.host = host
        return of_host, path

    monkeypatch.setattr("retigrade.batch.sources.open_store", opened)
    assert len(listed(in_memory, exclude="memory://photos/left")[0]) == 6
    monkeypatch.undo()
    assert len(listed(in_memory, exclude="memory://photos/left")[0]) == 3


def test_names_that_are_not_unicode(photographs: Path, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(str(photographs / "left")) + b"/\xff.jpg")
    try:
        Path(name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    found, _ = listed(photographs / "left")
    (odd,) = (photograph for photograph in found if photograph.problem is not None)
    assert odd.uri == str(photographs / "left") + "/\\udcff.jpg"
    assert odd.problem == "its name is not Unicode; rename it"
    (tmp_path / "list.csv").write_bytes(b"uri,patient,etag\ns3://b/a.jpg,M\xfcller\x81,x\ns3://b/b.jpg,1,\x81\n")
    found, _ = listed(tmp_path / "list.csv")
    assert found == [
        Photograph(uri="s3://b/a.jpg", etag="x", problem="its patient's identifier is not Unicode; correct it"),
        Photograph(uri="s3://b/b.jpg", problem="its etag is not Unicode; correct it"),
    ]


@pytest.mark.parametrize("size", ["1" + "0" * 20, "9" * 5000, "-1", "many"])
def test_a_size_that_is_none_is_unknown(tmp_path: Path, size: str) -> None:
    (only,), _ = listed(write_csv(tmp_path / "m.csv", ("uri", "size", "etag"), ("s3://b/a.jpg", size, "x")))
    assert only == Photograph(uri="s3://b/a.jpg", etag="x")


def test_what_a_shard_states_and_cannot_be_read(
    tmp_path: Path, jpegs: list[bytes], tar_of: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    deep = b'{"patient": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    odd = json.dumps({"patient": "P1", "eye": "sinister", "date": "2024-02-31"}).encode()
    members = {"0.jpg": jpegs[0], "0.json": deep, "1.jpg": jpegs[1], "1.json": odd, "2.json": odd}
    found, listing = listed(tar_of(tmp_path / "a.tar", members))
    assert [(photograph.patient, photograph.eye, photograph.date) for photograph in found] == [
        (None, None, None),
        ("P1", None, None),
    ]
    (note,) = listing.notes
    assert note.startswith("2 eyes and dates that tars state are taken as unknown, the first as eye 'sinister'")


def test_a_shard_that_cannot_be_opened(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, *_: object, **__: object) -> object:
        if path.suffix == ".tar":
            raise PermissionError(13, "Permission denied")
        return opened(path, "rb")

    opened = Path.open
    monkeypatch.setattr(Path, "open", forbidden)
    for source in (shard.parent, shard.parent / "*"):
        with pytest.raises(UsageError, match=r"shard-0\.tar: cannot be read: no permission"):
            listed(source)


def test_a_shard_with_a_negative_size(shard: Path) -> None:
    info = tarfile.TarInfo("0.jpg")
    info.size = -512
    shard.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    (only,), _ = listed(shard)
    assert only.problem is not None


@pytest.mark.parametrize("remote", [False, True])
def test_the_photographs_of_a_shard(shard: Path, memory: Any, jpegs: list[bytes], remote: bool) -> None:
    source = str(shard.parent)
    if remote:
        memory.pipe_file("/shards/shard-0.tar", shard.read_bytes())
        source = "memory://shards"
    found, listing = listed(source)
    assert [photograph.uri.partition("::")[0] for photograph in found] == ["tar://a/0.jpg", "tar://a/1.jpg"]
    assert (found[0].patient, found[0].eye, found[0].date) == ("P1", "right", "2024-05-02")
    assert found[1].patient is None
    for photograph, data in zip(found, jpegs, strict=False):
        assert read_photograph(photograph.uri, size=photograph.size, offset=photograph.offset) == data
    assert len(listing.skipped) == 2


def test_a_shard_that_is_cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:3000])
    found, _ = listed(shard)
    assert found[-1].uri == str(shard)
    assert found[-1].problem is not None
    assert "the tar" in found[-1].problem


def test_a_shard_that_is_compressed(shard: Path) -> None:
    import gzip

    shard.write_bytes(gzip.compress(shard.read_bytes()))
    (only,), _ = listed(shard)
    assert only.problem is not None
    assert "is no tar" in only.problem
