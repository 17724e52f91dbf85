"""What inputs are called: names that stay below a folder, can be written there, and do not meet one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

HEAT = "heat"
"""The folder of thermal maps in an output folder."""
# Room for ".png" and the temporary file's suffix in the 255 bytes that file systems allow, and for the output folder in
# the 4,096 bytes of a path.
_NAME_BYTES, _PATH_BYTES = 220, 3000


def picture_name(name: str, *, suffix: str = ".png") -> str:
    """Return the thermal picture's path below the output folder; `name` is the input's own name."""
    return f"{HEAT}/{name}" if name.lower().endswith(suffix) else f"{HEAT}/{name}{suffix}"


def picture_names(name: str) -> set[str]:
    """Return the paths that the thermal picture of an input may have, in either format."""
    return {picture_name(name, suffix=suffix) for suffix in (".png", ".jpg")}


def own_name(path: Path) -> str:
    """Return the name of a file or folder by itself, also of one given as `.` or `..`."""
    name = path.name
    return safe_name(PurePath(name if name not in ("", "..") else Path(os.path.abspath(path)).name))  # noqa: PTH100


def safe_name(path: PurePath) -> str:
    """Return a path that stays below any folder it is joined to, its parts and the whole short enough to be written."""
    parts = [_short(part) for part in path.parts if part not in ("..", path.anchor)] or ["input"]
    while len(parts) > 1 and sum(len(os.fsencode(part)) + 1 for part in parts) > _PATH_BYTES:
        parts.pop(0)
    return "/".join(parts)


@dataclass(slots=True)
class Names:
    """Names given so far, as the pictures that they stand for, and the folders those lie in."""

    _files: set[str] = field(default_factory=set)
    _folders: set[str] = field(default_factory=set)
    _prefixes: set[str] = field(default_factory=set)
    _last: dict[str, int] = field(default_factory=dict)
    _last_prefix: dict[str, int] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """Return `name`; where its file would meet another input's, its first part is numbered -2, -3 and so on."""
        free = _first_free(name, self._last, self._is_taken)
        self._files |= picture_names(free)
        self._folders.update(_folders(free))
        return free

    def prefix(self, path: Path) -> str:
        """Return a given path's own name as a folder, numbered where an earlier one has the same."""
        free = _first_free(own_name(path), self._last_prefix, self._prefixes.__contains__)
        self._prefixes.add(free)
        return free + "/"

    def _is_taken(self, name: str) -> bool:
        files, folders = picture_names(name), _folders(name)
        return not (
            files.isdisjoint(self._files) and files.isdisjoint(self._folders) and self._files.isdisjoint(folders)
        )


def _first_free(name: str, last: dict[str, int], is_taken: Callable[[str], bool]) -> str:
    """The name, or the first of its numbered ones, that is not taken.

    last: the number that each name was given last. What is taken stays so, and lower numbers need not be tried again.
    """
    first, *rest = PurePosixPath(name).parts
    free, count = str(PurePosixPath(name)), last.get(name, 1)
    while is_taken(free):
        count += 1
        free = str(PurePosixPath(_numbered(first, count), *rest))
        last[name] = count
    return free


def _folders(name: str) -> set[str]:
    """The folders that the picture of an input lies in."""
    return {f"{HEAT}/{parent}" for parent in PurePosixPath(name).parents}


def _numbered(name: str, count: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{count}{path.suffix}"


def _short(part: str) -> str:
    encoded = os.fsencode(part.replace("\0", "_"))
    return part.replace("\0", "_") if len(encoded) <= _NAME_BYTES else encoded[:_NAME_BYTES].decode(errors="ignore")
