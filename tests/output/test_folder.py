from __future__ import annotations

import base64
import csv
import datetime
import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradings import graded, refused
from retigrade.errors import UsageError
from retigrade.grading import Eye, Subject
from retigrade.icdr import Status
from retigrade.inputs import Input
from retigrade.output.comparisons import Comparison
from retigrade.output.folder import OutputFolder
from retigrade.output.illustrate import Illustrated
from retigrade.output.journal import Stamp
from retigrade.output.progression import Timeline, TimelinePoint
from retigrade.output.rows import Row, as_row
from tiny_bundle import tiny_card

BUNDLE = "tiny@0123456789ab"
LISTINGS = {"gradings.csv", "gradings.jsonl", "report.html"}


def opened(folder: Path, **options: Any) -> OutputFolder:
    return OutputFolder(folder, **{"metadata": tiny_card(), "bundle": BUNDLE, "kinds": ["heat"], **options})


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def photo(folder: Path, name: str, text: str = "pixels") -> Input:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Input(path, name)


def add(folder: OutputFolder, item: Input, *, picture: bytes | None = b"png", **changes: Any) -> Row:
    row = as_row(graded(str(item), **changes))
    verdict = Illustrated(row=row, thumbnail=b"jpeg", picture=picture)
    return folder.add(item, verdict, stamp=Stamp.of(item.path))


def compared(row: Row, *, picture: bytes | None) -> Comparison:
    """What became of an eye whose later photograph is this row's."""
    days = (datetime.date(2023, 5, 2), datetime.date(2024, 5, 2))
    points = tuple(TimelinePoint(day, 0, 0.1, 0.0, row) for day in days)
    timeline = Timeline("P1", Eye.RIGHT, points, None, None)
    return Comparison(timeline=timeline, words="both visits", picture=picture, small=picture)


def listed(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "gradings.jsonl").read_text().splitlines()]


@pytest.fixture
def items(tmp_path: Path) -> list[Input]:
    return [photo(tmp_path / "in", name) for name in ("a.jpg", "sub/b.png", "c.jpg")]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def write_all(out: Path, items: list[Input], *, picture: bytes = b"png", **options: Any) -> None:
    with closing(opened(out, **options)) as folder:
        for item in items:
            add(folder, item, picture=picture)
        assert folder.publish(total=len(items), skipped=[])


def test_it_writes_listings_report_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with closing(opened(out)) as folder:
        add(folder, photo(tmp_path, "in/a.jpg"))
        add(folder, photo(tmp_path, "in/healthy.PNG"))
        item = photo(tmp_path, "in/b.jpg")
        folder.add(item, Illustrated(row=as_row(refused(str(item)))), stamp=Stamp.of(item.path))
        folder.publish(total=3, skipped=[])
    assert files_below(out) == LISTINGS | {"heat/in/a.jpg.png", "heat/in/healthy.PNG"}
    with (out / "gradings.csv").open(newline="", encoding="utf-8") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == ["a.jpg", "healthy.PNG", "b.jpg"]
    assert [row["status"] for row in listed(out)] == ["graded", "graded", "not_fundus"]
    assert '"heat":"heat/in/a.jpg.png"' in (out / "report.html").read_text(encoding="utf-8")
    assert stat.S_IMODE((out / "report.html").stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_further_files_and_listings_are_written_with_the_others(out: Path, items: list[Input]) -> None:
    def names(rows: Iterator[Row]) -> Iterator[str]:
        yield from (Path(row.path).name for row in rows)

    with closing(opened(out, listings={"names.txt": names, "nothing.txt": lambda rows: ()})) as folder:
        verdict = Illustrated(row=as_row(graded(str(items[0]))))
        folder.add(items[0], verdict, stamp=Stamp.of(items[0].path), more=[("dicom/a.dcm", b"dicom")])
        folder.publish(total=1, skipped=[])
    assert files_below(out) == LISTINGS | {"dicom/a.dcm", "names.txt"}
    assert (out / "names.txt").read_text() == "a.jpg"


def test_what_is_not_published_changes_nothing_and_is_taken_up(out: Path, items: list[Input]) -> None:
    out.mkdir()
    (out / "gradings.csv").write_text("earlier")
    with closing(opened(out)) as folder:
        add(folder, items[0])
    assert {name for name in files_below(out) if not name.startswith(".retigrade/")} == {"gradings.csv"}
    assert (out / "gradings.csv").read_text() == "earlier"
    with closing(opened(out, resume=True)) as folder:
        assert [folder.holds(item) for item in items] == [True, False, False]
        folder.keep(items[0])
        add(folder, items[1])
        folder.publish(total=2, skipped=[])
    assert files_below(out) == LISTINGS | {"heat/a.jpg.png", "heat/sub/b.png"}
    assert [row["path"] for row in listed(out)] == [str(item) for item in items[:2]]


def test_a_run_without_a_row_leaves_nothing(out: Path) -> None:
    opened(out).close()
    assert list(out.iterdir()) == []


def test_a_finished_run_is_taken_up_with_its_thumbnails(out: Path, items: list[Input]) -> None:
    write_all(out, items)
    before = (out / "report.html").read_text()
    with closing(opened(out, resume=True)) as folder:
        assert all(map(folder.holds, items))
        for item in reversed(items):
            folder.keep(item)
        folder.publish(total=3, skipped=[])
    assert [row["path"] for row in listed(out)] == [str(item) for item in reversed(items)]
    assert before.count("base64,anBlZw==") == (out / "report.html").read_text().count("base64,anBlZw==") == 3
    assert files_below(out) == LISTINGS | {"heat/a.jpg.png", "heat/sub/b.png", "heat/c.jpg.png"}


@pytest.mark.parametrize("finished", [True, False])
def test_only_the_same_bytes_bundle_and_files_are_taken_up(out: Path, items: list[Input], finished: bool) -> None:
    digest = "6a9f0ffc2c11d9de2f3ac8cdcf66a0dd3b5eb6b2d2bd9e1d3d3b5e2c0cdb1f2c"
    with closing(opened(out)) as folder:
        for item in items:
            add(folder, item, sha256=digest)
        if finished:
            folder.publish(total=3, skipped=[])
    items[0].path.write_text("others")
    for picture in (out / "heat/c.jpg.png", out / ".retigrade/new/heat/c.jpg.png"):
        picture.unlink(missing_ok=True)
    with closing(opened(out, resume=True)) as folder:
        assert [folder.holds(item) for item in items] == [False, True, False]
    with closing(opened(out, resume=True, bundle="tiny@another")) as folder:
        assert not any(map(folder.holds, items))


def test_a_file_that_was_only_touched_is_taken_up_by_its_digest(out: Path, items: list[Input]) -> None:
    with closing(opened(out)) as folder:
        add(folder, items[0], sha256=hashlib.sha256(items[0].path.read_bytes()).hexdigest())
    os.utime(items[0].path, (1, 1))
    with closing(opened(out, resume=True)) as folder:
        assert folder.holds(items[0])


def test_errors_are_tried_again(out: Path, items: list[Input]) -> None:
    with closing(opened(out)) as folder:
        row = as_row(refused(str(items[0]), Status.ERROR))
        folder.add(items[0], Illustrated(row=row), stamp=Stamp.of(items[0].path))
    with closing(opened(out, resume=True)) as folder:
        assert not folder.holds(items[0])


def test_a_torn_journal_is_taken_up_to_its_last_whole_line(out: Path, items: list[Input]) -> None:
    with closing(opened(out)) as folder:
        for item in items:
            add(folder, item)
    journal = out / ".retigrade" / "journal.jsonl"
    for length in (len(journal.read_bytes()) - 3, len(journal.read_bytes().splitlines(keepends=True)[0]), 5, 0):
        os.truncate(journal, length)
        with closing(opened(out, resume=True)) as folder:
            held = [folder.holds(item) for item in items]
            assert held == sorted(held, reverse=True)
            assert not held[2]
        if not any(held):
            break


def test_an_interrupted_run_does_not_replace_a_fuller_one(out: Path, items: list[Input]) -> None:
    write_all(out, items)
    before = {name: (out / name).read_bytes() for name in files_below(out)}
    with closing(opened(out)) as folder:
        add(folder, items[0], picture=b"newer")
        assert not folder.publish(total=3, skipped=[])
    assert {name: (out / name).read_bytes() for name in before} == before
    with closing(opened(out, resume=True)) as folder:
        assert all(map(folder.holds, items))


def test_a_whole_run_over_a_fuller_one_says_so_and_takes_its_pictures_away(
    out: Path, items: list[Input], caplog: pytest.LogCaptureFixture
) -> None:
    write_all(out, items)
    (out / "heat" / "mine.png").write_bytes(b"the user's own")
    with caplog.at_level(logging.WARNING, logger="retigrade"):
        write_all(out, items[:1])
    assert "had 3 rows and have 1 now" in caplog.text
    assert files_below(out) == LISTINGS | {"heat/a.jpg.png", "heat/mine.png"}
    assert not (out / "heat" / "sub").exists()


def test_a_run_that_does_not_go_on_from_an_unfinished_one_says_so(
    out: Path, items: list[Input], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(opened(out)) as folder:
        add(folder, items[0])
    with caplog.at_level(logging.WARNING, logger="retigrade"):
        write_all(out, items[1:])
    assert "1 verdicts of a run that did not finish are made again: --resume would" in caplog.text
    assert files_below(out) == LISTINGS | {"heat/sub/b.png", "heat/c.jpg.png"}


def test_an_earlier_map_of_a_photo_that_now_has_none_is_removed(out: Path, items: list[Input]) -> None:
    write_all(out, items)
    with closing(opened(out)) as folder:
        for item in items:
            add(folder, item, picture=None if item is items[0] else b"png")
        folder.publish(total=3, skipped=[])
    assert files_below(out) == LISTINGS | {"heat/sub/b.png", "heat/c.jpg.png"}


def test_a_second_run_into_the_same_folder_is_refused(out: Path, items: list[Input]) -> None:
    refused_as = pytest.raises(UsageError, match=rf"another run is writing into .*out \(process {os.getpid()}\)")
    with closing(opened(out)), refused_as:
        opened(out)
    write_all(out, items)


def test_the_lock_of_a_dead_process_is_taken_over(out: Path, items: list[Input]) -> None:
    code = (
        "import os, sys, pathlib; from retigrade.output.folder import _lock\n"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir(); _lock(folder / '.retigrade', folder); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, out], check=False).returncode == 9
    assert (out / ".retigrade" / "lock").exists()
    write_all(out, items)
    assert not (out / ".retigrade").exists()


def test_the_journal_is_on_the_disk_within_a_second(
    out: Path, items: list[Input], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda opened: (synced.append(os.fstat(opened).st_ino), fsync(opened))[1])
    with closing(opened(out)) as folder:
        add(folder, items[0])
        time.sleep(0.9)
        wanted = {
            path.stat().st_ino
            for path in (out / ".retigrade").rglob("*")
            if path.name in ("journal.jsonl", "a.jpg.png")
        }
        assert len(wanted) == 2
        assert wanted <= set(synced)


# What stands in the way


def block_with_folder(out: Path) -> None:
    (out / "heat" / "a.jpg.png").mkdir(parents=True)


def block_with_file(out: Path) -> None:
    out.mkdir()
    (out / "heat").write_text("x")


def block_with_link(out: Path) -> None:
    out.mkdir()
    (out.parent / "elsewhere").mkdir()
    (out / "heat").symlink_to(out.parent / "elsewhere")


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (block_with_folder, "a folder of that name is in the way"),
        (block_with_file, "heat is no folder"),
        (block_with_link, "heat is a link"),
    ],
)
def test_a_map_without_a_place_costs_its_own_row(
    out: Path, items: list[Input], block: Callable[[Path], None], reason: str
) -> None:
    block(out)
    with closing(opened(out)) as folder:
        row = add(folder, items[0])
        assert (row.status, row.grade, row.probabilities) == ("error", None, ())
        assert row.reasons == (f"cannot write heat/a.jpg.png: {reason}",)
        add(folder, items[1], picture=None)
        folder.publish(total=2, skipped=[])
    assert [row["status"] for row in listed(out)] == ["error", "graded"]
    assert not list(out.parent.glob("elsewhere/*"))


@pytest.mark.parametrize("name", ["x" * 300 + "/a.jpg", "a\0b.jpg", "../a.jpg", "/".join(["d" * 200] * 25)], ids=ascii)
def test_a_name_that_no_file_can_have_costs_its_own_row(out: Path, items: list[Input], name: str) -> None:
    with closing(opened(out)) as folder:
        assert add(folder, Input(items[0].path, name)).status == "error"
        assert add(folder, items[1]).status == "graded"
        folder.publish(total=2, skipped=[])
    assert [row["status"] for row in listed(out)] == ["error", "graded"]


@pytest.mark.parametrize("blocked", sorted(LISTINGS))
def test_a_folder_in_place_of_a_listing_is_refused_at_once(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).mkdir()
    with pytest.raises(UsageError, match=f"cannot write .*{blocked}: it is a folder"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [blocked]


def test_a_folder_that_cannot_be_written_is_refused_at_once() -> None:
    kernel = Path("/proc")
    if not kernel.is_dir():
        pytest.skip("no folder here that even root cannot write")
    with pytest.raises(UsageError, match=r"cannot write /proc: "):
        opened(kernel)


# Crashes


class Killed(BaseException):
    """The process ends here: whatever it tries afterwards does not happen."""


class Faults:
    """Lets the n-th change of the disk fail, or ends the process there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.killed, self.kill, self.active = 0, False, False, False
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "write"):
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))
        monkeypatch.setattr(Path, "open", self._opening(Path.open))

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.step()
            return call(*arguments, **options)

        return guarded

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opening(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wxa+"):
                self.step()
                file = call(path, mode, *arguments, **options)
                try:
                    self.step()  # after it was made and before it is written
                except BaseException:
                    file.close()
                    raise
                return file
            return call(path, mode, *arguments, **options)

        return opening

    def step(self) -> None:
        if not self.active or threading.current_thread() is not threading.main_thread():
            return
        if self.killed:
            raise Killed
        if self.left == 0:
            self.killed = self.kill
            self.left = -1
            raise Killed if self.kill else OSError(errno.EIO, "Input/output error")
        self.left -= 1


def generation(out: Path) -> dict[str, str]:
    """Which run each file of a folder is of."""
    found = {}
    for name in files_below(out):
        text = (out / name).read_text()
        if not name.startswith(".retigrade"):
            found[name] = "new" if "tiny@new" in text or text == "new" else "old"
    return found


OLD = dict.fromkeys([*LISTINGS, "heat/a.jpg.png", "heat/sub/b.png"], "old")
NEW = dict.fromkeys([*LISTINGS, "heat/sub/b.png", "heat/c.jpg.png"], "new")


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kill", [False, True], ids=["fails", "killed"])
def test_every_crash_leaves_the_old_or_the_new_whole(
    tmp_path: Path, items: list[Input], monkeypatch: pytest.MonkeyPatch, kill: bool, stride: int
) -> None:
    prepared = tmp_path / "prepared"
    write_all(prepared, items[:2], picture=b"old")
    assert generation(prepared) == OLD
    faults = Faults(monkeypatch)
    seen = []
    for number in range(0, 400, stride):
        out = tmp_path / f"{number}"
        shutil.copytree(prepared, out)
        faults.kill, faults.killed, faults.left, faults.active = kill, False, number, True
        folder = None
        try:
            folder = opened(out, bundle="tiny@new")
            with closing(folder):
                for item in items[1:]:
                    add(folder, item, picture=b"new", bundle="tiny@new")
                folder.publish(total=2, skipped=[])
        except (UsageError, Killed):
            pass
        finished = faults.left > 0
        faults.active = False
        left = generation(out)
        listings = {left[name] for name in LISTINGS & set(left)}
        assert len(listings) <= 1, (number, left)
        if not kill or set(left) >= LISTINGS:
            assert left in (OLD, NEW), (number, left)
        if folder is not None and faults.killed:  # the end of the process does this
            folder._journal.close()
            with suppress(OSError):
                os.close(folder._lock)
        opened(out).close()  # the next run finds all whole
        assert generation(out) in (OLD, NEW), number
        assert not (out / ".retigrade").exists(), number
        seen.append(generation(out) == NEW)
        shutil.rmtree(out)
        if finished:
            break
    assert finished
    assert {*seen} == {False, True}
    assert seen[-1]
    assert len(seen) > 40 / stride


def test_aligned_pictures_stand_beside_the_page_and_go_with_their_run(out: Path, items: list[Input]) -> None:
    with closing(opened(out)) as folder:
        rows = [add(folder, item) for item in items]
        pairs = [compared(rows[0], picture=b"strip"), compared(rows[1], picture=None)]
        assert folder.publish(total=len(items), skipped=[], comparisons=pairs)
    assert {name for name in files_below(out) if name.startswith("aligned")} == {"aligned/a.jpg"}
    assert (out / "aligned" / "a.jpg").read_bytes() == b"strip"
    page = (out / "report.html").read_text()
    assert f"data:image/jpeg;base64,{base64.b64encode(b'strip').decode()}" in page
    with closing(opened(out, resume=True)) as folder:
        assert all(map(folder.holds, items))
        rows = [folder.keep(item) for item in items]
        assert folder.publish(total=len(items), skipped=[], comparisons=[compared(rows[2], picture=b"other")])
    assert {name for name in files_below(out) if name.startswith("aligned")} == {"aligned/c.jpg"}
    write_all(out, items)
    assert not (out / "aligned").exists()


def test_a_corrected_date_takes_its_warning_along(tmp_path: Path, out: Path) -> None:
    before = replace(photo(tmp_path / "in", "a.jpg"), warnings=("date unknown: 03/04/2024 can mean two days",))
    with closing(opened(out)) as folder:
        add(folder, before, reasons=("not sharp", *before.warnings))
        assert folder.publish(total=1, skipped=[])
    after = replace(before, subject=Subject("P1", None, datetime.date(2024, 4, 3)), warnings=("eye unknown: U",))
    with closing(opened(out, resume=True)) as folder:
        assert folder.holds(after)
        row = folder.keep(after)
        folder.publish(total=1, skipped=[])
    assert listed(out)[0]["reasons"] == ["not sharp", "eye unknown: U"]
    assert listed(out)[0]["date"] == "2024-04-03"
    assert row.reasons == ("not sharp", "eye unknown: U")


@pytest.mark.parametrize("left", ["", "5\n", "[]\n"])
def test_listings_that_were_cut_by_hand_are_done_anew(out: Path, items: list[Input], left: str) -> None:
    write_all(out, items)
    (out / "gradings.jsonl").write_text(left)
    with closing(opened(out, resume=True)) as folder:
        assert not any(map(folder.holds, items))
    write_all(out, items)
    assert len(listed(out)) == len(items)
