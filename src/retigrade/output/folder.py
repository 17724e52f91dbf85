"""The output folder of one run: listings, report, thermal pictures and whatever else is written of each verdict.

All of it is put aside in `.retigrade/` while the run goes on, beside the journal that says what is done, and takes its
place at once at the end. A run that was killed leaves that folder; the next one goes on from it, or clears it away.
"""

from __future__ import annotations

import base64
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from retigrade import __version__
from retigrade.errors import UsageError
from retigrade.files import make_folder, writing
from retigrade.icdr import Status
from retigrade.input_names import picture_name, picture_names
from retigrade.inputs import Input
from retigrade.metadata import Metadata
from retigrade.output.comparisons import Comparison
from retigrade.output.illustrate import EVERY_PNG, HeatPictures, Illustrated
from retigrade.output.journal import Journal, JournalRecord, Stamp, count_records
from retigrade.output.patients import patients_csv, patients_jsonl, visits_of
from retigrade.output.report import aligned_name, read_report, report, thumbnail_name
from retigrade.output.rows import Row, csv_header, csv_line, json_line
from retigrade.output.staging import NoPlace, Staging
from retigrade.text import shown

if os.name == "posix":
    import fcntl

_STAGE, _JOURNAL, _LOCK = ".retigrade", "journal.jsonl", "lock"
_REPORT, _GRADINGS = "report.html", "gradings.jsonl"
_logger = logging.getLogger(__name__)

Listing = Callable[[Iterator[Row]], Iterable[str]]
"""Turns all rows, in the order of the inputs, into the parts of a text file; no part, no file."""


def _csv(rows: Iterator[Row]) -> Iterator[str]:
    yield csv_header()
    yield from map(csv_line, rows)


def _jsonl(rows: Iterator[Row]) -> Iterator[str]:
    return map(json_line, rows)


def _patients_csv(rows: Iterator[Row]) -> Iterator[str]:
    if visits := list(visits_of(rows)):
        yield patients_csv(visits)


def _patients_jsonl(rows: Iterator[Row]) -> Iterator[str]:
    if visits := list(visits_of(rows)):
        yield patients_jsonl(visits)


class OutputFolder:
    """Takes verdicts one by one; what stands in the folder changes when `publish` is called, all at once or not."""

    def __init__(
        self,
        folder: Path,
        *,
        metadata: Metadata,
        bundle: str,
        operating_point: str | None = None,
        kinds: Iterable[str] = (),
        resume: bool = False,
        listings: Mapping[str, Listing] | None = None,
        heat: HeatPictures = EVERY_PNG,
        embed: bool = True,
        noise: float | None = None,
    ) -> None:
        """Make the folder and lock it; UsageError where it cannot be written, or another run writes into it.

        bundle: its identity. kinds: of the files that are written of each verdict, such as "heat". resume: keep what
        an earlier run with the same bundle and kinds has done. listings: further files to write of all rows, by name.
        heat: the format of the thermal pictures. embed: keep the report's small pictures in it rather than beside it.
        noise: of the expected grade; see `timelines_of`.
        """
        self._folder, self._stage = folder, folder / _STAGE
        self._metadata, self._bundle, self._operating_point = metadata, bundle, operating_point
        self._listings: dict[str, Listing] = {
            "gradings.csv": _csv,
            _GRADINGS: _jsonl,
            "patients.csv": _patients_csv,
            "patients.jsonl": _patients_jsonl,
            **(listings or {}),
        }
        self._header = {
            "retigrade": __version__,
            "bundle": bundle,
            "operating_point": operating_point,
            "kinds": sorted(kinds),
            "embed": embed,
        }
        self._heat, self._embed, self._noise = heat, embed, noise
        self._names: list[str] = []
        make_folder(folder)
        for name in (*self._listings, _REPORT):
            if (folder / name).is_dir():
                raise UsageError(
                    f"cannot write {shown(str(folder / name))}: it is a folder; remove it or name another --out"
                )
        self._lock = _lock(self._stage, folder)
        try:
            self._staging = Staging(folder, self._stage)
            self._staging.recover()
            self._journal = self._open_journal(resume=resume)
        except BaseException:
            self._unlock()
            raise

    @property
    def report_file(self) -> Path:
        """Where the report is written."""
        return self._folder / _REPORT

    def holds(self, item: Input) -> bool:
        """Whether an earlier verdict of the same bytes, by the same bundle, is there with all its files."""
        record = self._journal.find(item.name)
        return (
            record is not None
            and record.still_holds(item, bundle=self._bundle)
            and all(map(self._staging.holds, record.files))
        )

    def keep(self, item: Input) -> Row:
        """Take the earlier verdict on an input that `holds` and return its row."""
        record = self._journal.find(item.name)
        if record is None:
            raise ValueError(f"there is no earlier verdict on {item}")
        of_today = record.of_subject(item)
        if of_today != record:
            self._journal.add(of_today)
        self._names.append(item.name)
        return of_today.row

    def add(self, item: Input, verdict: Illustrated, *, stamp: Stamp, more: Iterable[tuple[str, bytes]] = ()) -> Row:
        """Write one verdict and return its row; `more` are further files of it: paths below the folder, and bytes.

        stamp: of the input's file before it was read. Where one of its files has no place, the row becomes an error
        that says so.
        """
        files = dict(more)
        if verdict.picture is not None:
            files[picture_name(item.name, suffix=self._heat.suffix)] = verdict.picture
        row, thumbnail = verdict.row, verdict.thumbnail
        if thumbnail is not None and not self._embed:
            files[thumbnail_name(item.name)], thumbnail = thumbnail, None
        try:
            written = tuple(self._staging.put(name, [data]) for name, data in files.items())
        except NoPlace as error:
            row, thumbnail, files, written = _without_grade(row, str(error)), None, {}, ()
        record = JournalRecord(
            row=row,
            name=item.name,
            stamp=stamp,
            files=tuple(files),
            thumbnail=None if thumbnail is None else base64.b64encode(thumbnail).decode(),
        )
        self._journal.add(record, written=written)
        self._names.append(item.name)
        return row

    def rows(self) -> Iterator[Row]:
        """Yield the rows taken so far, in order."""
        return (record.row for record in self._records())

    def publish(self, *, total: int, skipped: Sequence[str], comparisons: Sequence[Comparison] = ()) -> bool:
        """Let listings, report and pictures take their place, and return whether they did.

        total: the inputs that there were; skipped: one sentence for each file that was left out; comparisons: of eyes
        at two visits, from `rows`. A run that was interrupted does not replace the listings of one that came further.
        Raises UsageError where something cannot be written; then all stays as it was.
        """
        done, earlier = len(self._names), _count_lines(self._folder / _GRADINGS)
        if done < min(total, earlier):
            return False
        if done < earlier:
            _logger.warning("%s: the listings had %d rows and have %d now", shown(str(self._folder)), earlier, done)
        comparisons = self._put_aligned(comparisons)
        self._journal.sync()
        for name, listing in self._listings.items():
            self._put_text(name, listing(record.row for record in self._records()))
        page = report(
            self._records,
            header=self._header,
            metadata=self._metadata,
            bundle=self._bundle,
            operating_point=self._operating_point,
            total=total,
            skipped=skipped,
            noise=self._noise,
            comparisons=comparisons,
            embed=self._embed,
        )
        self._put_text(_REPORT, page)
        files = {name for record in self._records() for name in record.files}
        earlier_files = {
            name for record in read_report(self.report_file, self._folder / _GRADINGS) for name in record.files
        }
        pictures = {picture for name in self._names for picture in picture_names(name)}
        stale = (earlier_files | pictures) - files
        self._staging.commit([*self._listings, _REPORT], remove=stale)
        self._names.clear()
        self._remove_journal()
        for parent in sorted({parent for name in stale for parent in PurePosixPath(name).parents[:-1]}, reverse=True):
            with suppress(OSError):  # where it is not empty
                (self._folder / parent).rmdir()
        return True

    def close(self) -> None:
        """Let others write into the folder; what was not published stays put aside, for a run that goes on from it."""
        try:
            self._journal.close()
            if not len(self._journal):
                self._remove_journal()
        finally:
            self._unlock()

    def _open_journal(self, *, resume: bool) -> Journal:
        path = self._stage / _JOURNAL
        unfinished = count_records(path)
        journal = Journal(path, header=self._header, resume=resume)
        try:
            if unfinished and not len(journal):
                why = "it had another bundle or other options" if resume else "--resume would have gone on with them"
                text = "%s: %d verdicts of a run that did not finish are made again: %s"
                _logger.warning(text, shown(str(self._folder)), unfinished, why)
            if not len(journal):
                self._staging.clear()
            if resume:
                for record in read_report(self.report_file, self._folder / _GRADINGS, header=self._header):
                    if journal.find(record.name) is None:
                        journal.add(record)
        except BaseException:
            journal.close()
            raise
        return journal

    def _records(self) -> Iterator[JournalRecord]:
        for name in self._names:
            if (record := self._journal.find(name)) is not None:
                yield record

    def _put_aligned(self, comparisons: Sequence[Comparison]) -> list[Comparison]:
        """Put the aligned pictures aside, each with the record of its later photograph; return those that have a place.

        A record that an earlier run gave such a picture loses it.
        """
        by_path = {comparison.later.row.path: comparison for comparison in comparisons}
        placed = []
        for record in list(self._records()):
            name = aligned_name(record.name)
            files = tuple(file for file in record.files if file != name)
            written: tuple[Path, ...] = ()
            comparison = by_path.pop(record.row.path, None)
            if comparison is not None and comparison.picture is not None:
                try:
                    written = (self._staging.put(name, [comparison.picture]),)
                except NoPlace as error:
                    _logger.warning("%s: %s", shown(str(self._folder)), error)
                    continue
                files = (*files, name)
            if comparison is not None:
                placed.append(comparison)
            if files != record.files:
                self._journal.add(replace(record, files=files), written=written)
        return placed

    def _put_text(self, name: str, parts: Iterable[str]) -> None:
        """Put a listing aside: UTF-8, and a byte of a file name that is none becomes an escape (`\\udc80`)."""
        parts = iter(parts)
        if (first := next(parts, None)) is None:
            return
        try:
            self._staging.put(name, (part.encode(errors="backslashreplace") for part in chain([first], parts)))
        except NoPlace as error:
            raise UsageError(f"{shown(str(self._folder))}: {error}") from error

    def _remove_journal(self) -> None:
        with writing(self._folder):
            (self._stage / _JOURNAL).unlink(missing_ok=True)
        self._journal.clear()
        self._staging.clear()

    def _unlock(self) -> None:
        try:
            if not (self._stage / _JOURNAL).exists():
                with suppress(OSError):
                    for path in self._stage.iterdir():
                        if path.name != _LOCK:  # which goes last: until then nobody else takes the folder
                            shutil.rmtree(path) if path.is_dir() else path.unlink()
                    (self._stage / _LOCK).unlink()
                    self._stage.rmdir()
        finally:
            os.close(self._lock)


def _lock(stage: Path, folder: Path) -> int:
    """Take the folder for this process and return the open lock, which a process that dies lets go of."""
    path = stage / _LOCK
    with writing(folder):
        if stage.is_symlink():
            raise UsageError(f"cannot write into {shown(str(stage))}: it is a link; remove it")
        while True:
            stage.mkdir(exist_ok=True)
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            except FileNotFoundError:  # the run before this one has just cleared up
                continue
            try:
                if _is_taken(lock, path, folder):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def _is_taken(lock: int, path: Path, folder: Path) -> bool:
    """Take an open lock; False where it is that of a run that has cleared up since, UsageError where a run holds it."""
    if os.name == "posix":
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = shown(os.read(lock, 20).decode(errors="replace"))
            raise UsageError(
                f"another run is writing into {shown(str(folder))} (process {owner}): wait for it, or name another "
                "folder with --out"
            ) from None
        if not _is_open_file(lock, path):
            return False
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    return True


def _is_open_file(opened: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), path.lstat())
    except FileNotFoundError:
        return False


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _without_grade(row: Row, reason: str) -> Row:
    answers = ("grade", "stage", "p0", "p1", "p2", "p3", "p4", "p_referable", "referable", "prediction_set")
    nothing: dict[str, Any] = dict.fromkeys(answers)
    return replace(row, status=Status.ERROR.value, reasons=(reason,), **nothing)
