"""Photographs that `--keep-photos` keeps: each under the SHA-256 of its bytes, for as long as it may be kept."""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from pathlib import Path

from retigrade.errors import UsageError
from retigrade.files import make_folder, write_whole
from retigrade.text import shown

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY = 86_400
_logger = logging.getLogger(__name__)


class PhotoStore:
    """A folder of photographs; safe to share between threads and processes."""

    def __init__(self, folder: Path, *, retention_days: int | None = None) -> None:
        """retention_days: after which a photograph is deleted; None keeps it until its gradings are.

        Raises UsageError where the folder cannot be made, or is another user's.
        """
        self._folder, self._days = folder, retention_days
        make_folder(folder)
        try:
            folder.chmod(0o700)
        except OSError as error:
            raise UsageError(
                f"photographs in the folder {shown(str(folder))} cannot be kept from others ({error.strerror}); name a "
                "folder of this user's own with --keep-photos"
            ) from error

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
        """Delete what was kept for long enough; return how many. One that cannot be deleted holds up no other."""
        if self._days is None:
            return 0
        before, count = time.time() - self._days * _DAY, 0
        for folder in list(self._folder.glob("??")):
            with suppress(FileNotFoundError, NotADirectoryError):  # a server that shares the folder was faster
                count += sum(self._expire(path, before=before) for path in list(folder.iterdir()))
        return count

    def _expire(self, path: Path, *, before: float) -> bool:
        """Delete a photograph that was kept since before a moment; return whether it was."""
        try:
            if not _DIGEST.fullmatch(path.name) or path.stat().st_mtime >= before:
                return False
            self.delete(path.name)
        except FileNotFoundError:  # the other server again
            return False
        except OSError as error:
            _logger.error("a photograph that was kept for long enough cannot be deleted: %s", error.strerror)
            return False
        return True

    def _path(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return self._folder / sha256[:2] / sha256
