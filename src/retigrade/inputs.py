"""What the command line was pointed at: photographs, folders and CSVs, as one ordered list of inputs."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath

from retigrade.errors import UnreadablePhoto, UsageError
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.formats import SNIFF_BYTES, sniff
from retigrade.grading import NOBODY, Subject
from retigrade.text import shown

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp"})

# A run writes these into its output folder; its maps and DICOM files are pictures, but no photographs.
_GRADINGS = "gradings.jsonl"
_WRITTEN = {"heat": "maps of an earlier run", "dicom": "DICOM files of an earlier run"}
# What a DICOM file without preamble starts with, group 0008: its length, specific character set, image type, SOP class.
_FIRST_TAGS = frozenset({b"\0\0", b"\x05\0", b"\x08\0", b"\x16\0"})
# Room for ".png" and the temporary file's suffix in the 255 bytes that file systems allow.
_NAME_BYTES = 220


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to grade.

    path: where it is. name: how to call it, a relative POSIX path, unique among the inputs; `heat/<name>.png` never
    leaves `heat/` nor meets another input's file. frame: which picture of a file of several, from 1. reader: decodes
    the file, called as `decode` is; raises UnreadablePhoto, or NotAFundus where the file says that it shows no retina.
    subject: whose eye it is, as stated beside or in the file.
    """

    path: Path
    name: str
    frame: int | None = None
    reader: Callable[..., Photo] = decode
    subject: Subject = NOBODY

    def __str__(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path}#{self.frame}"

    def read(self, *, min_side: int | None = None) -> Photo:
        """Decode the photograph, as `decode` does."""
        return self.reader(self.path, min_side=min_side)


ListDicom = Callable[[Path, str], Iterable[Input]]
"""Lists the photographs in a DICOM file, given its path and its name: one a frame, or those that a DICOMDIR names."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something found that is not an input, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs, in order, and everything that was found beside them."""

    items: tuple[Input, ...]
    skipped: tuple[Skipped, ...] = ()


def expand(paths: Sequence[Path], *, exclude: Path | None = None, list_dicom: ListDicom | None = None) -> Inputs:
    """List the photographs that `paths` stand for, in their order.

    A path is a folder (recursed in order of names, hidden entries left out), a CSV with a `path` column (relative paths
    start at the CSV's folder), or anything else, taken as a photograph: that a file is missing or is none is for
    decoding to say. `exclude` is the output folder; what lies below it is left out, and so are the maps of earlier
    runs. Where a path itself is the output folder, only the maps in it are. `list_dicom` lists what is in a DICOM file,
    recognised by content; without it such a file is one input that cannot be read.

    Raises UsageError: a CSV that cannot be read or has no `path` column, or no input at all.
    """
    walk = _Walk(exclude=None if exclude is None else _identity(_status(exclude)))
    names, prefixes = _Names(), set[str]()
    items: list[Input] = []
    for path in paths:
        before = len(items)
        prefix = _prefix(path, prefixes) if len(paths) > 1 and _is_collection(path) else ""
        for photo, name in walk.photos(path):
            listed = (list_dicom or _unread_dicom)(photo, name) if _is_dicom(photo) else (Input(photo, name),)
            items += (replace(item, name=names.unique(prefix + item.name)) for item in listed)
        if len(items) == before:
            walk.skipped.append(Skipped(path, "no photographs in it"))
    if not items:
        where = ", ".join(shown(str(path)) for path in paths) or "no path"
        raise UsageError(f"No photographs in {where}: looked for JPEG, PNG, TIFF, WebP and BMP files")
    return Inputs(tuple(items), tuple(walk.skipped))


Found = tuple[Path, str]
"""A photograph and its name below the path that led to it."""


@dataclass(slots=True)
class _Walk:
    """Finds the photographs below each path and keeps what it leaves out."""

    exclude: tuple[int, int] | None
    skipped: list[Skipped] = field(default_factory=list)

    def photos(self, path: Path) -> Iterator[Found]:
        """Yield what one PATH of the command line stands for."""
        status = _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            yield from self._folder(path, status)
        elif status is not None and _is_csv(path, status):
            yield from self._listed(path)
        else:
            yield path, _own_name(path)

    def _folder(self, root: Path, status: os.stat_result | None) -> Iterator[Found]:
        identity = _identity(status)
        visited = {identity: root}
        # A stack of (entry, its name below the root), not recursion: folders may nest deeper than Python calls.
        stack = self._entries(root, "", is_output=identity == self.exclude)
        while stack:
            path, name = stack.pop()
            status = _status(path)
            if status is None or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                yield path, name  # a dangling link, a pipe, a socket: decoding says what it is, without waiting
            elif stat.S_ISREG(status.st_mode):
                if _is_picture(path) or _is_dicom(path):
                    yield path, name
                else:
                    self.skipped.append(Skipped(path, "not a picture file"))
            elif (identity := _identity(status)) == self.exclude:
                self.skipped.append(Skipped(path, "the output folder"))
            elif identity in visited:
                self.skipped.append(Skipped(path, f"the same folder as {shown(str(visited[identity]))}"))
            else:
                visited[identity] = path
                stack += self._entries(path, name + "/", is_output=False)

    def _entries(self, folder: Path, prefix: str, *, is_output: bool) -> list[Found]:
        """List a folder in reverse order of names, without what is hidden and without the maps of an earlier run."""
        try:
            names = sorted(os.listdir(folder), reverse=True)  # noqa: PTH208 - names suffice
        except OSError as problem:
            self.skipped.append(Skipped(folder, f"folder cannot be read ({problem.strerror})"))
            return []
        is_output = is_output or _GRADINGS in names
        kept: list[Found] = []
        for name in names:
            if name.startswith("."):
                self.skipped.append(Skipped(folder / name, "hidden"))
            elif is_output and name in _WRITTEN:
                self.skipped.append(Skipped(folder / name, _WRITTEN[name]))
            else:
                kept.append((folder / name, _safe(PurePosixPath(prefix + name))))
        return kept

    def _listed(self, path: Path) -> Iterator[Found]:
        try:
            # A name that is not UTF-8 passes through as the file system gives it.
            with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
                rows = csv.reader(file)
                header = [column.strip() for column in next(rows, [])]
                if "path" not in header:
                    found = ", ".join(shown(column) for column in header) or "none"
                    raise UsageError(f"{shown(path.name)}: needs a column named path; its columns are: {found}")
                at = header.index("path")
                for row in rows:
                    cell = row[at].strip() if at < len(row) else ""
                    if cell:
                        yield path.parent / cell, _safe(PurePath(cell))
                    elif row:
                        self.skipped.append(Skipped(path, f"line {rows.line_num} has no path"))
        except (OSError, csv.Error) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else str(problem)
            raise UsageError(f"{shown(path.name)}: the CSV cannot be read ({reason})") from None


@dataclass(slots=True)
class _Names:
    """Names given so far, as the files `<name>.png` that they stand for, and the folders those lie in."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """Return `name`; where its file would meet another input's, its first part is numbered -2, -3 and so on."""
        first, *rest = PurePosixPath(name).parts
        path, count = PurePosixPath(name), 1
        while self._is_taken(path):
            count += 1
            path = PurePosixPath(_numbered(first, count), *rest)
        self.files.add(f"{path}.png")
        self.folders.update(str(parent) for parent in path.parents)
        return str(path)

    def _is_taken(self, path: PurePosixPath) -> bool:
        file = f"{path}.png"
        return file in self.files or file in self.folders or any(str(parent) in self.files for parent in path.parents)


def _numbered(name: str, count: int) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{count}{path.suffix}"


def _prefix(path: Path, given: set[str]) -> str:
    """Return the PATH's own name as a folder, numbered where an earlier PATH has the same."""
    own = _own_name(path)
    prefix, count = own, 1
    while prefix in given:
        count += 1
        prefix = _numbered(own, count)
    given.add(prefix)
    return prefix + "/"


def _own_name(path: Path) -> str:
    name = path.name
    return _safe(PurePath(name if name not in ("", "..") else Path(os.path.abspath(path)).name))  # noqa: PTH100


def _safe(path: PurePath) -> str:
    """Return a path that stays below any folder it is joined to, its last part short enough for an added suffix."""
    parts = [part for part in path.parts if part not in ("..", path.anchor)] or ["input"]
    last = os.fsencode(parts[-1])
    if len(last) > _NAME_BYTES:
        parts[-1] = last[:_NAME_BYTES].decode(errors="ignore")
    return "/".join(parts)


def _status(path: Path) -> os.stat_result | None:
    """What the path leads to; None where it leads nowhere."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int] | None:
    return None if status is None else (status.st_dev, status.st_ino)


def _is_collection(path: Path) -> bool:
    status = _status(path)
    return status is not None and (stat.S_ISDIR(status.st_mode) or _is_csv(path, status))


def _is_csv(path: Path, status: os.stat_result) -> bool:
    return path.suffix.lower() == ".csv" and stat.S_ISREG(status.st_mode)


def _is_picture(path: Path) -> bool:
    """Whether a regular file goes by a picture's suffix, or by none and starts like one."""
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    try:
        with path.open("rb") as file:
            return sniff(file.read(SNIFF_BYTES)) is not None
    except OSError:
        return True  # it may be one; decoding says why it cannot be read


def _is_dicom(path: Path) -> bool:
    """Whether a regular file starts like DICOM, with its preamble or, as old ones, without (PS3.10, 7.1)."""
    status = _status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError:
        return False
    return sniff(head) == "DICOM" or head[:6] == b"\2\0\0\0UL" or (head[:2] == b"\x08\0" and head[2:4] in _FIRST_TAGS)


def _unread_dicom(path: Path, name: str) -> Iterator[Input]:
    yield Input(path, name, reader=_refuse_dicom)


def _refuse_dicom(path: Path, *, min_side: int | None = None) -> Photo:
    raise UnreadablePhoto(
        f"{shown(path.name)}: a DICOM file, and the packages that read those are not installed; install Retigrade with "
        "its extra dicom"
    )
