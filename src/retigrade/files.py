"""Files that appear whole or not at all: written under a temporary name beside their own, then given it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from retigrade.errors import UsageError
from retigrade.text import shown


class Draft:
    """A text file that grows under a temporary name until it is published or discarded.

    UTF-8; a byte of a file name that is none becomes an escape (`\\udc80`), so that the file stays readable.
    """

    def __init__(self, target: Path) -> None:
        """Open the draft; UsageError where the folder cannot be written."""
        self._target = target
        self._temporary = _beside(target)
        with writing(target):
            self._stream: TextIO = self._temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")

    def write(self, text: str) -> None:
        """Add `text`; UsageError where it cannot be written, as on a full disk."""
        with writing(self._target):
            self._stream.write(text)

    def publish(self) -> None:
        """Give the file its name, in place of an older one."""
        with writing(self._target):
            self._stream.close()
            self._temporary.replace(self._target)

    def discard(self) -> None:
        """Remove what was written; an older file of that name stays. After `publish` this does nothing."""
        with suppress(OSError):  # what was still in memory did not fit on the disk; it goes anyway
            self._stream.close()
        self._temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make the folder where it is missing; UsageError where it cannot be made."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"cannot write into {shown(str(folder))}: it is not a folder; name another with --out")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_whole(target: Path, data: bytes) -> None:
    """Write a file in one step, with the folders that it needs; UsageError where that fails."""
    temporary = _beside(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn a failure to write `target` into UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {shown(str(target))}: {error.strerror}") from error


def _beside(target: Path) -> Path:
    """Return the temporary name for `target`: short enough beside any name, and of this process alone."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".{digest}.{os.getpid()}.tmp")
