"""What a command was pointed at: photographs, folders and CSVs, as one ordered list of inputs; the one walker."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from retigrade.errors import DataError, UnreadablePhoto, UsageError
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.formats import SNIFF_BYTES, sniff
from retigrade.grading import NOBODY, UNSTATED, Acquisition, Subject
from retigrade.input_names import HEAT, Names, own_name, safe_name
from retigrade.locate import Changes, Locator, stem
from retigrade.subjects import UNKNOWN, parse_date, parse_eye
from retigrade.tables import CsvRow, is_table, read_table
from retigrade.text import listing, shown

# What file systems, network stores and desktops put beside photographs; and whatever begins with a dot.
_SYSTEM = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "@tmp",
        "@__thumb",
        "@recycle",
        "#recycle",
    }
    | {"#snapshot", "@recently-snapshot", "$recycle.bin", "recycler", "recycled", "system volume information"}
    | {"lost+found", "network trash folder", "temporary items", "thevolumesettingsfolder"}
)
HIDDEN = "hidden or system entry"
NO_PICTURE = "not a picture file"
# A run writes these into its output folder; its maps and DICOM files are pictures, but no photographs.
_GRADINGS = "gradings.jsonl"
_WRITTEN = {
    HEAT: "maps of an earlier run",
    "thumbnails": "pictures of an earlier run",
    "aligned": "pictures of an earlier run",
    "dicom": "DICOM files of an earlier run",
}
# What a DICOM file without preamble starts with, group 0008: its length, specific character set, image type, SOP class.
_FIRST_TAGS = frozenset({b"\0\0", b"\x05\0", b"\x08\0", b"\x16\0"})


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to grade.

    path: where it is. name: how to call it, a relative POSIX path, unique among the inputs; its `picture_name` never
    leaves `heat/` nor meets another input's. frame: which picture of a file of several, from 1. reader: decodes
    the file, called as `decode` is; raises UnreadablePhoto, or NotAFundus where the file says that it shows no retina.
    subject, acquisition: whose eye it is and how it was taken, as stated beside or in the file. study: the UID of the
    DICOM study that it belongs to. warnings: what to know of these. inspect: looks at the decoded photograph and
    returns sentences that are added to its notes.
    """

    path: Path
    name: str
    frame: int | None = None
    reader: Callable[..., Photo] = decode
    subject: Subject = NOBODY
    acquisition: Acquisition = UNSTATED
    study: str | None = None
    warnings: tuple[str, ...] = ()
    inspect: Callable[[Photo], tuple[str, ...]] | None = None

    def __str__(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path}#{self.frame}"

    def read(self, *, min_side: int | None = None) -> Photo:
        """Decode the photograph, as `decode` does."""
        photo = self.reader(self.path, min_side=min_side)
        if self.inspect is None:
            return photo
        return replace(photo, notes=(*photo.notes, *self.inspect(photo)))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The reader of an input that cannot be read, for a reason that is known without decoding."""

    reason: str

    def __call__(self, path: Path, *, min_side: int | None = None) -> Photo:
        """Raise UnreadablePhoto."""
        raise UnreadablePhoto(f"{shown(path.name)}: {self.reason}")


COLUMNS = {
    "path": ("file", "filename", "file_name", "file_path", "image", "image_path", "photo", "photograph"),
    "patient": ("patient_id", "patientid", "patient_no", "patient_number", "mrn", "subject", "subject_id"),
    "eye": ("laterality", "side", "eye_side"),
    "date": ("visit_date", "exam_date", "examination_date", "study_date", "acquisition_date", "date_of_visit"),
}
"""The columns of a list of photographs, and what else they may be called."""
_OF_LABELS = ("grade", "source")  # which are for those who train and evaluate

ListDicom = Callable[[Path, str], Iterable[Input]]
"""Lists the photographs in a DICOM file, given its path and its name: one a frame, or those that a DICOMDIR names."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something found that is not an input, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs, in order, everything that was found beside them, and what a user should know, in sentences."""

    items: tuple[Input, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def expand(paths: Sequence[Path], *, exclude: Path | None = None, list_dicom: ListDicom | None = None) -> Inputs:
    """List the photographs that `paths` stand for, in their order.

    A path is a folder (recursed in order of names; a file is a photograph by its content, whatever it is called), a CSV
    with a `path` column (relative paths start at the CSV's folder) and optionally `patient`, `eye` and `date`, or
    anything else, taken as a photograph: that a file is missing or is none is for decoding to say. `exclude` is the
    output folder; what lies below it is left out, and so are the maps of earlier runs. Where a path itself is the
    output folder, only the maps in it are. `list_dicom` lists what is in a DICOM file, recognised by content; without
    it such a file is one input that cannot be read.

    Raises DataError where a CSV cannot be read or has no `path` column, UsageError where there is no input at all.
    """
    walk = Walk(exclude=exclude)
    names = Names()
    items: list[Input] = []
    notes: list[str] = []
    for path in paths:
        before = len(items)
        status = _status(path)
        is_list = status is not None and stat.S_ISREG(status.st_mode) and is_table(path)
        is_folder = status is not None and stat.S_ISDIR(status.st_mode)
        if is_list:
            listed: Iterable[Input] = _listed(path, walk.skipped, notes)
        elif is_folder:
            listed = walk.photographs(path)
        else:
            listed = (Input(path, own_name(path)),)
        prefix = names.prefix(path) if len(paths) > 1 and (is_list or is_folder) else ""
        for item in listed:
            frames = (list_dicom or _refuse_dicom)(item.path, item.name) if _is_dicom(item) else (item,)
            items += (_named(frame, item, names.unique(prefix + frame.name)) for frame in frames)
        if len(items) == before:
            walk.skipped.append(Skipped(path, "no photographs in it"))
    if not items:
        where = ", ".join(shown(str(path)) for path in paths) or "no path"
        raise UsageError(f"No photographs in {where}: looked for JPEG, PNG, TIFF, WebP, BMP and DICOM files")
    return Inputs(tuple(items), tuple(walk.skipped), tuple(notes))


def describe_skipped(skipped: Iterable[Skipped]) -> tuple[str, ...]:
    """One sentence for each reason: how many entries were skipped, and the first names."""
    by_reason: dict[str, list[str]] = {}
    for entry in skipped:
        by_reason.setdefault(entry.reason, []).append(shown(entry.path.name or str(entry.path)))
    return tuple(f"skipped {len(names)} ({reason}): {listing(names)}" for reason, names in by_reason.items())


@dataclass(slots=True)
class Walk:
    """Finds the photographs below folders, and keeps what it leaves out: the one answer to "is this a photograph?".

    exclude: the output folder, left out wherever it is met. skipped: everything else that was found, and why.
    """

    exclude: Path | None = None
    skipped: list[Skipped] = field(default_factory=list)

    def photographs(self, root: Path) -> Iterator[Input]:
        """Yield the photographs below a folder in order of names; an unreadable folder is an unreadable input."""
        excluded = None if self.exclude is None else _identity(_status(self.exclude))
        identity = _identity(_status(root))
        visited = {identity: root}
        # A stack of entries, not recursion: folders may nest deeper than Python calls.
        stack = self._entries(Input(root, ""), is_output=identity == excluded)
        while stack:
            entry = stack.pop()
            status = _status(entry.path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                if entry.path.name == "DICOMDIR":
                    self.skipped.append(Skipped(entry.path, "a DICOM directory; its files are found by themselves"))
                elif entry.reader is not decode or _is_photograph(entry.path, status):
                    yield entry
                else:
                    self.skipped.append(Skipped(entry.path, NO_PICTURE))
            elif entry.reader is not decode:
                yield entry
            elif (identity := _identity(status)) == excluded:
                self.skipped.append(Skipped(entry.path, "the output folder"))
            elif identity in visited:
                self.skipped.append(Skipped(entry.path, f"the same folder as {shown(str(visited[identity]))}"))
            else:
                visited[identity] = entry.path
                stack += self._entries(entry, is_output=False)

    def _entries(self, folder: Input, *, is_output: bool) -> list[Input]:
        """List a folder in reverse order of names, without hidden entries and without the maps of an earlier run."""
        try:
            names = sorted(os.listdir(folder.path), reverse=True)  # noqa: PTH208 - names suffice
        except OSError as error:
            reason = f"the folder cannot be read ({error.strerror})"
            return [replace(folder, name=folder.name or own_name(folder.path), reader=Unreadable(reason))]
        is_output = is_output or _GRADINGS in names
        kept: list[Input] = []
        for name in names:
            if is_hidden(name):
                self.skipped.append(Skipped(folder.path / name, HIDDEN))
            elif is_output and name in _WRITTEN:
                self.skipped.append(Skipped(folder.path / name, _WRITTEN[name]))
            else:
                kept.append(Input(folder.path / name, safe_name(PurePosixPath(folder.name, name))))
        return kept


def _listed(path: Path, skipped: list[Skipped], notes: list[str]) -> Iterator[Input]:
    """The inputs that a CSV lists, one a row; a row that cannot be read is an input that cannot be read."""
    table = read_table(path).renamed(COLUMNS)
    if "path" not in table.columns:
        raise DataError(f"{shown(path.name)}: needs a column named path; its columns are: {table.seen}")
    locator, changes, unknown = Locator(path.parent), Changes(path), list[str]()
    missing, is_any_found = list[Path](), False
    for row in table.rows:
        cell = row.get("path")
        if row.problem is not None:
            name = safe_name(PurePath(f"{path.name}:{row.line}"))
            yield Input(Path(f"{path}:{row.line}"), name, reader=Unreadable(row.problem))
        elif not cell:
            skipped.append(Skipped(path, f"line {row.line} has no path"))
        else:
            spellings = table.spellings(cell)
            located, change = locator.find(spellings)
            changes.add(change, cell, located or path)
            file = path.parent / cell if located is None else located
            is_any_found = is_any_found or located is not None
            missing += [file] if located is None else []
            subject, warnings = _subject(row, unknown)
            yield Input(file, safe_name(PurePath(cell.replace("\\", "/"))), subject=subject, warnings=warnings)
    notes += [*table.notes, *changes.notes]
    if unused := [name for name in table.columns if name not in (*COLUMNS, *_OF_LABELS)]:
        notes.append(f"{shown(path.name)}: columns not used: {listing(map(shown, unused))}")
    if unknown:
        notes.append(f"{shown(path.name)}: {len(unknown)} cells are taken as unknown: {listing(unknown, between='; ')}")
    if missing and not is_any_found:
        notes.append(
            f"{shown(path.name)}: none of its {len(missing)} photographs was found; the first was looked for as "
            f"{shown(str(missing[0]))}: {locator.why(missing[0])}"
        )


def _subject(row: CsvRow, unknown: list[str]) -> tuple[Subject, tuple[str, ...]]:
    """Whose eye a row speaks of, and what of it cannot be read, in words, which are added to `unknown` too."""
    unread: dict[str, str] = {}
    eye, date = known(row, "eye", parse_eye, unread), known(row, "date", parse_date, unread)
    unknown += (f"line {row.line}: {shown(why)}" for why in unread.values())
    warnings = tuple(UNKNOWN[column] + shown(why) for column, why in unread.items())
    return Subject(row.get("patient") or None, eye, date), warnings


_Value = TypeVar("_Value")


def known(row: CsvRow, column: str, parse: Callable[[str], _Value], unread: dict[str, str]) -> _Value | None:
    """What a cell says, or None where it says nothing that can be read; `unread` then holds why, by the column."""
    try:
        return parse(row.get(column))
    except ValueError as error:
        unread[column] = str(error)
        return None


def _named(frame: Input, item: Input, name: str) -> Input:
    """A frame by its final name; what the list states of it goes before what the file says."""
    stated = {key: value for key in ("patient", "eye", "date") if (value := getattr(item.subject, key)) is not None}
    warnings = frame.warnings if frame is item else (*item.warnings, *frame.warnings)
    return replace(frame, name=name, subject=replace(frame.subject, **stated), warnings=warnings)


def _status(path: Path) -> os.stat_result | None:
    """What the path leads to; None where it leads nowhere."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int] | None:
    return None if status is None else (status.st_dev, status.st_ino)


def is_hidden(name: str) -> bool:
    """Whether an entry of a folder, by its own name, is hidden or a system's, and never an input."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_photograph(name: str, read_head: Callable[[], bytes]) -> bool:
    """Whether a regular file is an input: by its name meant to be a picture, or by its content one of any kind.

    read_head: gives the file's first `SNIFF_BYTES` bytes, and is called only where the name does not say.
    """
    return stem(name) != name or _kind(read_head()) is not None


def _is_photograph(path: Path, status: os.stat_result | None) -> bool:
    """Whether an entry of a folder is an input.

    A dangling link, a pipe or a socket is one too: decoding says what it is, without waiting.
    """
    if status is None or not stat.S_ISREG(status.st_mode):
        return True
    try:
        return is_photograph(path.name, lambda: _head(path))
    except OSError:
        return True  # it may be one; decoding says why it cannot be read


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SNIFF_BYTES)


def _kind(head: bytes) -> str | None:
    """The kind of picture that a file starts like, DICOM without its preamble (PS3.10, 7.1) among them."""
    bare_dicom = head[:6] == b"\2\0\0\0UL" or (head[:2] == b"\x08\0" and head[2:4] in _FIRST_TAGS)
    return "DICOM" if bare_dicom else sniff(head)


def _is_dicom(item: Input) -> bool:
    status = _status(item.path)
    try:
        return status is not None and stat.S_ISREG(status.st_mode) and _kind(_head(item.path)) == "DICOM"
    except OSError:
        return False


def _refuse_dicom(path: Path, name: str) -> Iterator[Input]:
    reason = "a DICOM file, and the packages that read those are not installed; install Retigrade with its extra dicom"
    yield Input(path, name, reader=Unreadable(reason))
