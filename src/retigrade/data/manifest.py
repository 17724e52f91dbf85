"""The manifest: every graded photograph of a data set, verified, named, and fingerprinted."""

from __future__ import annotations

import datetime
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.data.layouts import LeftOut, Listed, read_layouts
from retigrade.errors import DataError, NotAFundus, PhotoError
from retigrade.fundus.crop import decode_side
from retigrade.fundus.decode import decode
from retigrade.fundus.field import find_field
from retigrade.grading import Eye
from retigrade.icdr import GRADES, Grade
from retigrade.progress import RunProgress
from retigrade.text import shown


@dataclass(frozen=True, slots=True)
class Entry:
    """One graded photograph.

    name: folder name and path below it, unique in the manifest and the same on every machine. patient: whose eye it is,
    unique over all sources; the photograph's own name where nobody knows. eye, date: None where nobody knows. origin:
    of what kind within its source, such as a camera or an export, or empty. rejected: whether a reader of image quality
    called it unusable. sha256: hexadecimal digest of the file's bytes. width, height: upright, in pixels.
    """

    path: Path
    name: str
    grade: Grade
    patient: str
    eye: Eye | None
    source: str
    sha256: str
    width: int
    height: int
    date: datetime.date | None = None
    origin: str = ""
    rejected: bool = False

    @property
    def subset(self) -> str:
        """The source, and the origin within it where that is known: `eyepacs/native`."""
        return f"{self.source}/{self.origin}" if self.origin else self.source


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The graded photographs of a data set, in the order of their names.

    unreadable: missing or not to be decoded, unusable: without a retinal disc; neither is among the entries.
    notes: what a user should know, in sentences. Raises DataError without entries, or where two go by one name.
    """

    entries: tuple[Entry, ...]
    unreadable: tuple[LeftOut, ...] = ()
    unusable: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.entries:
            raise DataError("no readable photographs with a grade")
        name, times = Counter(entry.name for entry in self.entries).most_common(1)[0]
        if times > 1:
            raise DataError(f"{name}: {times} photographs go by this name; give folders with different names")

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def grades(self) -> npt.NDArray[np.int64]:
        """int64 (N,), 0 to 4."""
        return np.array([entry.grade for entry in self.entries], dtype=np.int64)

    @property
    def paths(self) -> list[Path]:
        """The files, N."""
        return [entry.path for entry in self.entries]

    @property
    def sources(self) -> npt.NDArray[np.str_]:
        """str (N,), the source of each entry."""
        return np.array([entry.source for entry in self.entries])

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """All photographs that cannot be used."""
        return (*self.unreadable, *self.unusable)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name, grade and file digest of every entry: equal for equal data sets, wherever they lie."""
        lines = sorted(f"{entry.name}\t{entry.grade:d}\t{entry.sha256}\n" for entry in self.entries)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(
    data: Path | str | Sequence[Path | str],
    *,
    size: int | None = None,
    skip_unreadable: bool = False,
    progress: RunProgress | None = None,
) -> Manifest:
    """Read one or more labelled folders or CSVs, decode every photograph once, and fingerprint the whole.

    size: the side in pixels of the canonical pictures that will be made of them; where it is given, photographs without
    a retinal disc cannot be used. skip_unreadable: leave out what cannot be used, and list it in the manifest.
    progress: hears how the reading goes.
    Raises DataError where a layout is not recognised, a grade is wrong or given twice, or, unless skipped, with a list
    of all photographs that cannot be used.
    """
    folders = [Path(data)] if isinstance(data, (Path, str)) else [Path(folder) for folder in data]
    listings = [listing for folder in folders for listing in read_layouts(folder)]
    _refuse_twice(item.path for listing in listings for item in listing.photographs)
    listed = [(item, listing.root) for listing in listings for item in listing.photographs]
    unreadable = [left_out for listing in listings for left_out in listing.left_out]
    unusable: list[LeftOut] = []
    entries: list[Entry] = []
    with ThreadPoolExecutor() as pool:
        read = (progress or RunProgress()).track(
            pool.map(lambda pair: _entry_or_why(*pair, size=size), listed),
            "reading",
            total=len(listed),
            kind=lambda entry: "usable" if isinstance(entry, Entry) else "unusable",
        )
        for (item, _), entry in zip(listed, read, strict=True):
            if isinstance(entry, Entry):
                entries.append(entry)
            else:
                reason = str(entry).removeprefix(f"{shown(item.path.name)}: ")
                (unusable if isinstance(entry, NotAFundus) else unreadable).append(LeftOut(item.path, reason))
    left_out = [*unreadable, *unusable]
    if left_out and not skip_unreadable:
        total = len(left_out) + len(entries)
        raise DataError(
            f"{len(left_out)} of {total} photographs cannot be used; fix them, or leave them out with "
            "--skip-unreadable:\n" + "\n".join(f"  {photograph}" for photograph in left_out)
        )
    notes = [note for listing in listings for note in listing.notes]
    absent = sorted(set(GRADES) - {entry.grade for entry in entries})
    if absent:
        notes.append(f"no photographs of {'grade' if len(absent) == 1 else 'grades'} {', '.join(map(str, absent))}")
    entries.sort(key=lambda entry: entry.name)
    return Manifest(tuple(entries), tuple(unreadable), tuple(unusable), tuple(notes))


def _refuse_twice(paths: Iterable[Path]) -> None:
    path, times = max(Counter(path.resolve() for path in paths).items(), key=lambda item: item[1], default=(None, 0))
    if times > 1:
        raise DataError(f"{path}: is listed {times} times; give each photograph once")


def _entry_or_why(item: Listed, root: Path, *, size: int | None) -> Entry | PhotoError:
    """The entry of a photograph that can be used, or why it cannot."""
    try:
        photo = decode(item.path, min_side=1 if size is None else decode_side(size))
        if size is not None:
            find_field(photo)
    except PhotoError as error:
        return error
    scope = root.resolve().name
    inside = item.path.relative_to(root) if item.path.is_relative_to(root) else item.path
    name = f"{scope}/{inside.as_posix()}"
    return Entry(
        path=item.path,
        name=name,
        grade=item.grade,
        patient=f"{scope}/{item.patient}" if item.patient else name,
        eye=item.eye,
        source=item.source,
        sha256=photo.sha256,
        width=photo.width,
        height=photo.height,
        date=item.date,
        origin=item.origin,
        rejected=item.rejected,
    )
