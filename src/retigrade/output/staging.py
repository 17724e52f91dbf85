"""Many files that change all at once: what was put aside takes its place, or everything stays as it was.

The marker is the commit point. Until it is written nothing in the folder has changed; from then on the change is
carried out, and whoever opens the folder after a crash carries it on from where it stopped. The listings are away while
the other files change, so that no listing ever stands beside files of another run. An error undoes what was done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from retigrade.errors import RetigradeError
from retigrade.files import sync_file, sync_folder, write_whole, writing
from retigrade.text import shown

_NEW, _OLD, _MARKER = "new", "old", "commit"
_AWAY, _IN = "away", "in"
# What is wrong with one name; a full or broken disk is wrong for all.
_NAMES = "ENAMETOOLONG", "ENOTDIR", "EISDIR", "EEXIST", "ELOOP", "EINVAL", "EACCES", "EPERM"
_OF_THE_NAME = frozenset(getattr(errno, name) for name in _NAMES)


class NoPlace(RetigradeError):
    """One file cannot be written where it belongs; others can."""


class Staging:
    """What will change in a folder, kept in a folder `stage` on the same disk until it is committed."""

    def __init__(self, folder: Path, stage: Path) -> None:
        """Change nothing yet."""
        self._folder, self._new, self._old, self._marker = folder, stage / _NEW, stage / _OLD, stage / _MARKER

    def put(self, name: str, parts: Iterable[bytes]) -> Path:
        """Write a new file aside and return where; `name` is its path below the folder, POSIX.

        Raises NoPlace where no file of that name can stand there, UsageError where nothing can be written.
        """
        staged = self._new / name
        with writing(self._folder / name), _of_the_name(name):
            self._check_place(name)
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.unlink(missing_ok=True)
            with staged.open("xb") as file:
                file.writelines(parts)
        return staged

    def holds(self, name: str) -> bool:
        """Whether a file of this name was put aside, or stands in the folder already."""
        return (self._new / name).is_file() or (self._folder / name).is_file()

    def commit(self, listings: Sequence[str], *, remove: Iterable[str] = ()) -> None:
        """Let all that was put aside take its place at once.

        listings: files that may not stand beside others of another run; one that was not put aside is removed, and so
        is what `remove` names. Raises UsageError, with everything as it was, where that cannot be done.
        """
        new = {path.relative_to(self._new).as_posix() for path in self._new.rglob("*") if not path.is_dir()}
        others = sorted(new - set(listings)) + sorted(name for name in set(remove) - new if self._may_remove(name))
        standing = {name for name in (*listings, *others) if os.path.lexists(self._folder / name)}
        moves = [(_AWAY, name) for name in listings if name in standing]
        for name in others:
            moves += [(kind, name) for kind, names in ((_AWAY, standing), (_IN, new)) if name in names]
        moves += [(_IN, name) for name in listings if name in new]
        with writing(self._folder):
            for name in listings:
                if name in new:
                    sync_file(self._new / name)
            for folder in {(self._new / name).parent for name in new}:
                sync_folder(folder)
            write_whole(self._marker, json.dumps(moves).encode())
            try:
                self._carry_out(moves)
            except BaseException:
                self._undo(moves)
                self._marker.unlink()
                raise
        self._finish()

    def recover(self) -> None:
        """Carry on where a crash stopped a commit; UsageError where that cannot be done."""
        with writing(self._folder):
            if self._marker.exists():
                self._carry_out(json.loads(self._marker.read_bytes()))
                self._finish()
            elif self._old.exists():
                shutil.rmtree(self._old)

    def clear(self) -> None:
        """Remove all that was put aside."""
        with writing(self._folder):
            for path in (self._new, self._old):
                if path.exists():
                    shutil.rmtree(path)

    def _carry_out(self, moves: Iterable[tuple[str, str]]) -> None:
        for kind, name in moves:
            target, new, old = self._folder / name, self._new / name, self._old / name
            if kind == _AWAY and not os.path.lexists(old):  # else it is away already
                old.parent.mkdir(parents=True, exist_ok=True)
                target.rename(old)
            elif kind == _IN and os.path.lexists(new):
                target.parent.mkdir(parents=True, exist_ok=True)
                new.rename(target)
        for folder in {(self._folder / name).parent for _, name in moves}:
            sync_folder(folder)

    def _undo(self, moves: Sequence[tuple[str, str]]) -> None:
        for kind, name in reversed(moves):
            target, new, old = self._folder / name, self._new / name, self._old / name
            if kind == _IN and not os.path.lexists(new):
                target.rename(new)
            elif kind == _AWAY and os.path.lexists(old):
                old.rename(target)

    def _finish(self) -> None:
        with writing(self._folder):
            self._marker.unlink()
        self.clear()

    def _check_place(self, name: str) -> None:
        """Raise NoPlace where a file of this name would replace a folder, or lie behind a link or outside."""
        path = self._folder
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise NoPlace(f"cannot write {shown(name)}: it would lie outside the folder")
        for part in pure.parts[:-1]:
            path /= part
            mode = _mode(path)
            if mode is not None and not stat.S_ISDIR(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "no folder"
                raise NoPlace(f"cannot write {shown(name)}: {shown(path.name)} is {kind}")
        mode = _mode(path / pure.name)
        if mode is not None and stat.S_ISDIR(mode):
            raise NoPlace(f"cannot write {shown(name)}: a folder of that name is in the way")

    def _may_remove(self, name: str) -> bool:
        """Whether this is a file in the folder itself, not behind a link nor outside."""
        try:
            self._check_place(name)
            return os.path.lexists(self._folder / name)
        except (NoPlace, OSError, ValueError):
            return False


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


@contextmanager
def _of_the_name(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # a NUL in it
        raise NoPlace(f"cannot write {shown(name)}: {error}") from error
    except OSError as error:
        if error.errno in _OF_THE_NAME:
            raise NoPlace(f"cannot write {shown(name)}: {error.strerror}") from error
        raise
