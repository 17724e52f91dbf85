"""The node's queue on disk: what was accepted is there until it is graded, what was made until it is delivered.

    incoming/KEY.dcm            accepted, not graded yet
    done/KEY.json               graded: its rows; written before the image leaves `incoming`
    outgoing/KEY.FRAME.KIND.dcm documents to deliver, once KEY is done
    dead/NAME.dcm, NAME.txt     what could not be graded or delivered, and why

Every file appears whole and is on the disk before the next step, so a process killed at any moment loses nothing: on
the next start an image in `incoming` is graded anew, and gives documents with the same names and identifiers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retigrade.files import make_folder, sync_folder, write_whole, writing

_INCOMING, _DONE, _OUTGOING, _DEAD = "incoming", "done", "outgoing", "dead"


class Spool:
    """The folders of one node; safe to share between its threads, not between processes."""

    def __init__(self, folder: Path) -> None:
        """Make the folders and remove what a killed process left half-written; UsageError where that fails."""
        self.folder = folder
        for name in (_INCOMING, _DONE, _OUTGOING, _DEAD):
            make_folder(folder / name)
            for left in (folder / name).glob(".*.tmp"):
                left.unlink(missing_ok=True)

    def accept(self, data: bytes) -> str | None:
        """Keep a received file and return its key once it is on the disk; None where the same was accepted before.

        Raises UsageError where it cannot be written.
        """
        key = hashlib.sha256(data).hexdigest()[:40]
        if self.is_done(key) or self.image(key).exists():
            return None
        write_whole(self.image(key), data)
        return key

    def image(self, key: str) -> Path:
        """Where an accepted image lies until it is graded."""
        return self.folder / _INCOMING / f"{key}.dcm"

    def is_done(self, key: str) -> bool:
        """Whether the image has been graded."""
        return (self.folder / _DONE / f"{key}.json").exists()

    def waiting(self) -> list[str]:
        """The keys of the images to grade, oldest first; one that was done when the process died is cleared away."""
        found = []
        for path in sorted((self.folder / _INCOMING).glob("*.dcm"), key=lambda path: path.stat().st_mtime_ns):
            if self.is_done(path.stem):
                path.unlink(missing_ok=True)
            else:
                found.append(path.stem)
        return found

    def finish(self, key: str, documents: Mapping[str, bytes], record: Mapping[str, Any]) -> list[Path]:
        """Record an image as graded, with the documents made of it by `FRAME.KIND`; returns those to deliver.

        Raises UsageError where something cannot be written; the image then stays to be graded again.
        """
        paths = [self.folder / _OUTGOING / f"{key}.{name}.dcm" for name in documents]
        for path, data in zip(paths, documents.values(), strict=True):
            write_whole(path, data)
        write_whole(self.folder / _DONE / f"{key}.json", json.dumps(record).encode())
        self.image(key).unlink(missing_ok=True)
        return paths

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield what was recorded of each graded image."""
        for path in sorted((self.folder / _DONE).glob("*.json")):
            yield json.loads(path.read_bytes())

    def outgoing(self) -> list[Path]:
        """The documents to deliver: those of images that are done, oldest first."""
        paths = [path for path in (self.folder / _OUTGOING).glob("*.dcm") if self.is_done(path.name.split(".")[0])]
        return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def delivered(self, path: Path) -> None:
        """Forget a document that has arrived."""
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

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
            yield path, note.read_text().strip() if note.exists() else "no reason recorded"
