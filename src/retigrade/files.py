"""Files that appear whole or not at all: written under a temporary name beside their own, then given it.

A temporary name is new for every write and opened with O_EXCL, so no link is followed and no other process's file is
touched; the file has the mode that any new file has, and its bytes are on the disk before its name is.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path

from retigrade.errors import UsageError
from retigrade.text import shown

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file for any writer to fill; it replaces `target` if no error was raised.

    Missing folders are made. Raises UsageError where the file cannot be written; an older one then stays.
    """
    temporary = target.with_name(f".{secrets.token_hex(12)}.tmp")  # short enough beside any name
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        made = os.open(temporary, _NEW, 0o666)
        mode = os.fstat(made).st_mode & 0o7777
        os.close(made)
        try:
            yield temporary
            with temporary.open(
                "rb+"
            ) as file:  # a writer may have put another file in its place, with a mode of its own
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(target)
            sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_whole(target: Path, data: bytes) -> None:
    """Write a file in one step, with the folders that it needs; UsageError where that fails."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def write_together(files: Mapping[Path, bytes], *, pool: Executor) -> None:
    """Write several files, each in one step; all are on the disk when it returns.

    pool: waits for the disk in its threads: what waits at the same time, a file system brings to the disk together, so
    twenty files take little longer than one. Raises UsageError where one cannot be written; others may be there then.
    """
    temporaries = {target: target.with_name(f".{secrets.token_hex(12)}.tmp") for target in files}
    try:
        list(pool.map(_write_new, temporaries.values(), files.values()))  # raises what one of them raised
        for target, temporary in temporaries.items():
            with writing(target):
                temporary.replace(target)
        for folder in {target.parent for target in files}:
            sync_folder(folder)
    except BaseException:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def _write_new(path: Path, data: bytes) -> None:
    with writing(path):
        opened = os.open(path, _NEW, 0o666)
        try:
            with os.fdopen(opened, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(opened)
        finally:
            os.close(opened)


def sync_file(path: Path) -> None:
    """Bring a file's bytes onto the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk, where the system can."""
    if os.name == "posix":  # Windows opens no folders, and needs none of this
        sync_file(folder)


def make_folder(folder: Path) -> None:
    """Make the folder where it is missing; UsageError where it cannot be made."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"cannot write into {shown(str(folder))}: it is not a folder; name another one")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn a failure to write `target` into UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {shown(str(target))}: {error.strerror or error}") from error
