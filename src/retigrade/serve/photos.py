"""Photographs that `--keep-photos` keeps: each under the SHA-256 of its bytes, for as long as it may be kept."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path

from retigrade.files import make_folder, write_whole

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY = 86_400


class PhotoStore:
    """A folder of photographs; safe to share between threads and processes."""

    def __init__(self, folder: Path, *, retention_days: int | None = None) -> None:
        """retention_days: after which a photograph is deleted; None keeps it until its gradings are.

        Raises UsageError where the folder cannot be made.
        """
        self._folder, self._days = folder, retention_days
        make_folder(folder)
        folder.chmod(0o700)

    def keep(self, sha256: str, data: bytes | bytearray) -> None:
        """Keep a photograph; once this returns it is on the disk. Raises UsageError where that fails."""
        path = self._path(sha256)
        if not path.exists():
            write_whole(path, bytes(data))
            path.chmod(0o600)

    def find(self, sha256: str | None) -> Path | None:
        """Return where a photograph is, None where it is not, or not any more."""
        if sha256 is None:
            return None
        path = self._path(sha256)
        return path if path.is_file() else None

    def delete(self, sha256: str) -> None:
        """Delete a photograph, if it is there."""
        path = self._path(sha256)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in the folder
            path.parent.rmdir()

    def purge(self) -> int:
        """Delete what was kept for long enough; return how many."""
        if self._days is None:
            return 0
        before, count = time.time() - self._days * _DAY, 0
        for path in self._folder.glob("??/*"):
            if _DIGEST.fullmatch(path.name) and path.stat().st_mtime < before:
                self.delete(path.name)
                count += 1
        return count

    def _path(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return self._folder / sha256[:2] / sha256
