"""What a run has done so far, one line of JSON for each input, on the disk within a second.

The journal is what a killed run goes on from, and what the listings are written from at the end. Each record says of
which bytes it tells, so that a later run can see whether its photograph is still the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from retigrade.files import sync_file, writing
from retigrade.icdr import Status
from retigrade.inputs import Input
from retigrade.output.rows import Row, row_of
from retigrade.subjects import UNKNOWN

_SYNC_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Stamp:
    """The size in bytes and the time of change, in nanoseconds, of a file before it was read; None where unknown."""

    size: int | None
    mtime: int | None

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a file; both are None where there is none."""
        try:
            status = path.stat()
        except (OSError, ValueError):
            return cls(None, None)
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecord:
    """One verdict and what was written of it.

    name: the input's own name. files: paths below the output folder, POSIX. thumbnail: a JPEG file in base64, or None.
    """

    row: Row
    name: str
    stamp: Stamp
    files: tuple[str, ...] = ()
    thumbnail: str | None = None

    def still_holds(self, item: Input, *, bundle: str) -> bool:
        """Whether the verdict is of this bundle and of the bytes that the input has now; errors are tried again."""
        row = self.row
        if (row.path, self.name, row.bundle) != (str(item), item.name, bundle) or row.status == Status.ERROR:
            return False
        stamp = Stamp.of(item.path)
        return (stamp == self.stamp and stamp.size is not None) or _digest(item.path) == row.sha256

    def of_subject(self, item: Input) -> JournalRecord:
        """Return the record with whose eye the input says that it is today."""
        subject = item.subject
        said = tuple(reason for reason in self.row.reasons if not reason.startswith(tuple(UNKNOWN.values())))
        return replace(
            self,
            row=replace(
                self.row,
                patient=subject.patient,
                eye=None if subject.eye is None else subject.eye.value,
                date=None if subject.date is None else subject.date.isoformat(),
                reasons=(*said, *(warning for warning in item.warnings if warning not in said)),
            ),
        )

    def as_json(self) -> str:
        """One line of ASCII."""
        return json.dumps(asdict(self), allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a line back; ValueError, KeyError or TypeError where it is none."""
        values = json.loads(text)
        stamp, files = Stamp(**values.pop("stamp")), tuple(values.pop("files"))
        return cls(row=row_of(values.pop("row")), stamp=stamp, files=files, **values)


class Journal:
    """The records of one run, appended to a file and found again by the input's name; the last of a name counts."""

    def __init__(self, path: Path, *, header: Mapping[str, Any], resume: bool) -> None:
        """Open the journal: what an earlier run with an equal `header` wrote is kept if `resume`, else thrown away.

        Raises UsageError where it cannot be written.
        """
        self.path = path
        self._places: dict[str, int] = {}
        with writing(path):
            self._file = path.open("a+b")
            try:
                end = self._read(header) if resume else 0
                self._file.truncate(end)
                if end == 0:
                    self._write(json.dumps(header).encode() + b"\n")
            except BaseException:
                self._file.close()
                raise
        self._unsynced: list[Path] = []
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_synced, name="retigrade-journal", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, record: JournalRecord, *, written: tuple[Path, ...] = ()) -> None:
        """Append a record; `written` are files that have to be on the disk when it is.

        Raises UsageError where it cannot be written, as on a full disk.
        """
        with writing(self.path):
            if self._failure is not None:
                raise self._failure
            self._places[record.name] = self._write(record.as_json().encode())
            with self._lock:
                self._unsynced.extend(written)

    def find(self, name: str) -> JournalRecord | None:
        """Return the record of an input, or None."""
        if (place := self._places.get(name)) is None:
            return None
        self._file.seek(place)
        return JournalRecord.from_json(self._file.readline())

    def clear(self) -> None:
        """Find nothing any more."""
        self._places.clear()

    def sync(self) -> None:
        """Bring everything onto the disk; UsageError where that fails."""
        self._sync()
        with writing(self.path):
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """End the thread and close the file, which stays."""
        self._closed.set()
        self._thread.join()
        self._file.close()

    def _read(self, header: Mapping[str, Any]) -> int:
        """Find the records of an earlier run, and return where the last whole one ends; 0 if there are none to keep."""
        self._file.seek(0)
        end = 0
        for line in iter(self._file.readline, b""):
            try:
                if not line.endswith(b"\n"):
                    break
                if end == 0:
                    if json.loads(line) != dict(header):
                        break
                else:
                    self._places[JournalRecord.from_json(line).name] = end
            except (ValueError, KeyError, TypeError):  # torn by the end of the run that wrote it
                break
            end += len(line)
        return end

    def _write(self, line: bytes) -> int:
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        return place

    def _keep_synced(self) -> None:
        while not self._closed.wait(_SYNC_SECONDS):
            self._sync()

    def _sync(self) -> None:
        with self._lock:
            files, self._unsynced = self._unsynced, []
        try:
            for path in files:
                sync_file(path)
            os.fsync(self._file.fileno())
        except OSError as error:
            self._failure = error


def count_records(path: Path) -> int:
    """Return how many records a journal holds, 0 where there is none."""
    try:
        with path.open("rb") as file:
            return max(0, sum(1 for _ in file) - 1)
    except OSError:
        return 0


def _digest(path: Path) -> str | None:
    try:
        if not path.is_file():  # a pipe would wait for its writer
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
