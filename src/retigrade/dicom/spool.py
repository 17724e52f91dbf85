"""The node's queue on disk: what was accepted is there until it is graded, what was made until it is delivered.

    incoming/KEY.dcm            accepted, not graded yet
    done/KEY.json               graded: its rows; written before the image leaves `incoming`, kept for some days
    outgoing/KEY.FRAME.KIND.dcm documents to deliver, once KEY is done
    dead/NAME.dcm, NAME.txt     what could not be graded or delivered, and why

Every file appears whole and is on the disk before the next step, so a process killed at any moment loses nothing: on
the next start an image in `incoming` is graded anew, and gives documents with the same names and identifiers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from retigrade.errors import UsageError
from retigrade.files import make_folder, sync_folder, write_together, write_whole, writing
from retigrade.text import shown

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second node off
    fcntl = None  # type: ignore[assignment]

_INCOMING, _DONE, _OUTGOING, _DEAD = "incoming", "done", "outgoing", "dead"
_LOCK = "lock"
_WRITERS = 16  # files that wait for the disk at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What became of one image. documents: files to deliver, by `FRAME.KIND`; record: what is kept of it, as JSON."""

    key: str
    documents: Mapping[str, bytes]
    record: Mapping[str, Any]


class Spool:
    """The folders of one node; safe to share between its threads, and to read from other processes."""

    def __init__(self, folder: Path) -> None:
        """Make the folders; UsageError where that fails."""
        self.folder = folder
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="retigrade-write")
        self._lock = threading.Lock()
        self._arriving: dict[str, threading.Event] = {}
        for name in (_INCOMING, _DONE, _OUTGOING, _DEAD):
            make_folder(folder / name)
        self._claim: BinaryIO | None = None

    def claim(self) -> None:
        """Take the folders for this process, and remove what a killed one left half-written.

        Raises UsageError where another node works on them.
        """
        lock = self.folder / _LOCK
        with writing(lock):
            self._claim = lock.open("ab")
        if fcntl is not None:
            try:
                fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.release()
                raise UsageError(
                    f"another node works on the queue {shown(str(self.folder))}: name another folder with --queue"
                ) from None
        for name in (_INCOMING, _DONE, _OUTGOING, _DEAD):
            for left in (self.folder / name).glob(".*.tmp"):
                left.unlink(missing_ok=True)

    def release(self) -> None:
        """Leave the folders to another process; the system does so, too, when this one ends."""
        if self._claim is not None:
            self._claim.close()
        self._claim = None

    def accept(self, data: bytes) -> str | None:
        """Keep a received file and return its key once it is on the disk; None where the same was accepted before.

        Raises UsageError where it cannot be written.
        """
        key = hashlib.sha256(data).hexdigest()[:40]
        while True:
            with self._lock:  # the same image from two senders at once is one image
                arriving = self._arriving.get(key)
                if arriving is None:
                    if self.is_done(key) or self.image(key).exists():
                        return None
                    self._arriving[key] = threading.Event()
                    break
            arriving.wait()  # nobody is answered before it is on the disk
        try:
            write_whole(self.image(key), data)
        finally:
            with self._lock:
                self._arriving.pop(key).set()
        return key

    def image(self, key: str) -> Path:
        """Where an accepted image lies until it is graded."""
        return self.folder / _INCOMING / f"{key}.dcm"

    def is_done(self, key: str) -> bool:
        """Whether the image has been graded."""
        return self._record(key).exists()

    def waiting(self) -> list[str]:
        """The keys of the images to grade, oldest first; one that was done when the process died is cleared away."""
        found = []
        for path in _by_age(self.folder / _INCOMING):
            if self.is_done(path.stem):
                path.unlink(missing_ok=True)
            else:
                found.append(path.stem)
        return found

    def finish(self, images: Sequence[Finished]) -> list[Path]:
        """Record images as graded, with the documents made of them; returns the documents to deliver.

        Raises UsageError where something cannot be written; an image that is not recorded stays to be graded again.
        """
        documents = {
            self.folder / _OUTGOING / f"{image.key}.{name}.dcm": data
            for image in images
            for name, data in image.documents.items()
        }
        write_together(documents, pool=self._pool)
        records = {self._record(image.key): json.dumps(image.record).encode() for image in images}
        write_together(records, pool=self._pool)
        for image in images:
            self.image(image.key).unlink(missing_ok=True)
        return list(documents)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield what was recorded of each graded image."""
        for path in sorted((self.folder / _DONE).glob("*.json")):
            yield json.loads(path.read_bytes())

    def forget(self, *, before: float) -> int:
        """Remove the records of images that were graded before this time, in seconds since 1970; returns their number.

        Those of which a document still waits or is a dead letter stay.
        """
        needed = {path.name.split(".")[0] for name in (_OUTGOING, _DEAD) for path in (self.folder / name).glob("*.dcm")}
        removed = 0
        for path in (self.folder / _DONE).glob("*.json"):
            if path.stem not in needed and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def revive(self) -> int:
        """Take up the dead letters again: documents are delivered, images graded anew; returns their number."""
        letters = [path for path, _ in self.dead()]
        for path in letters:
            key, *rest = path.name.removesuffix(".dcm").split(".")
            if not rest:  # an image; before it may be graded again, it must not count as done
                self._record(key).unlink(missing_ok=True)
                sync_folder(self.folder / _DONE)  # or after a loss of power it would be cleared away as done
            target = self.folder / (_OUTGOING if rest else _INCOMING) / path.name
            with writing(target):
                path.replace(target)
            sync_folder(target.parent)
            path.with_suffix(".txt").unlink(missing_ok=True)
        return len(letters)

    def outgoing(self) -> list[Path]:
        """The documents to deliver: those of images that are done, oldest first."""
        return [path for path in _by_age(self.folder / _OUTGOING) if self.is_done(path.name.split(".")[0])]

    def delivered(self, path: Path) -> None:
        """Forget a document that has arrived; should the power fail just now, it is sent once more."""
        path.unlink(missing_ok=True)

    def bury(self, path: Path, reason: str) -> None:
        """Move a file to the dead letters, with the reason."""
        target = self.folder / _DEAD / path.name
        write_whole(target.with_suffix(".txt"), (reason + "\n").encode())
        with writing(target):
            path.replace(target)
        sync_folder(target.parent)

    def keep_copy(self, path: Path, reason: str) -> None:
        """Copy an image that gave no full set of documents to the dead letters, with the reason."""
        write_whole(self.folder / _DEAD / path.name, path.read_bytes())
        write_whole(self.folder / _DEAD / f"{path.stem}.txt", (reason + "\n").encode())

    def dead(self) -> Iterable[tuple[Path, str]]:
        """The dead letters and why each is one."""
        for path in sorted((self.folder / _DEAD).glob("*.dcm")):
            note = path.with_suffix(".txt")
            yield path, note.read_text(encoding="utf-8").strip() if note.exists() else "no reason recorded"

    def _record(self, key: str) -> Path:
        return self.folder / _DONE / f"{key}.json"


def _by_age(folder: Path) -> list[Path]:
    """The DICOM files of a folder, oldest first; one that goes away meanwhile is left out."""
    found = []
    for path in folder.glob("*.dcm"):
        try:
            found.append((path.stat().st_mtime_ns, path.name, path))
        except FileNotFoundError:
            continue
    return [path for _, _, path in sorted(found)]
