"""What inputs are called: names that stay below a folder, can be written there, and do not meet one another."""

from __future__ import annotations

import os
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
    # The last number of each name that was numbered: all below it are taken for good and need not be tried again.
    _last: dict[str, int] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """Return `name`; where its file would meet another input's, its first part is numbered -2, -3 and so on."""
        first, *rest = PurePosixPath(name).parts
        path, count = PurePosixPath(name), self._last.get(name, 1)
        while self._is_taken(path):
            count += 1
            path = PurePosixPath(_numbered(first, count), *rest)
            self._last[name] = count
        self._files |= picture_names(str(path))
        self._folders.update(_folders(path))
        return str(path)

    def prefix(self, path: Path) -> str:
        """Return a given path's own name as a folder, numbered where an earlier one has the same."""
        name = own_name(path)
        prefix, count = name, self._last.get(f"{name}/", 1)
        while prefix in self._prefixes:
            count += 1
            prefix = _numbered(name, count)
            self._last[f"{name}/"] = count
        self._prefixes.add(prefix)
        return prefix + "/"

    def _is_taken(self, path: PurePosixPath) -> bool:
        files = picture_names(str(path))
        return not (
            files.isdisjoint(self._files) and files.isdisjoint(self._folders) and self._files.isdisjoint(_folders(path))
        )


def _folders(path: PurePosixPath) -> set[str]:
    """The folders that the picture of an input lies in."""
    return {f"{HEAT}/{parent}" for parent in path.parents}


def _numbered(name: str, count: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{count}{path.suffix}"


def _short(part: str) -> str:
    encoded = os.fsencode(part.replace("\0", "_"))
    return part.replace("\0", "_") if len(encoded) <= _NAME_BYTES else encoded[:_NAME_BYTES].decode(errors="ignore")
