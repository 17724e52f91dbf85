"""The manifest: every graded photograph of a data set, verified, named, and fingerprinted."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.data.layouts import Listed, Listing, read_layouts
from retigrade.errors import DataError, PhotoError
from retigrade.fundus.decode import decode
from retigrade.icdr import GRADES, Grade

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One graded photograph.

    name: folder name and path below it, unique in the manifest and the same on every machine.
    patient: whose eye it is, unique over all sources; the photograph's own name where nobody knows.
    eye: "left", "right" or None. sha256: hexadecimal digest of the file's bytes. width, height: upright, in pixels.
    """

    path: Path
    name: str
    grade: Grade
    patient: str
    eye: str | None
    source: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A listed photograph that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The graded photographs of a data set, in the order of their names.

    unreadable: listed but not usable, hence not among the entries. notes: what a user should know, in sentences.
    """

    entries: tuple[Entry, ...]
    unreadable: tuple[Unreadable, ...] = ()
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
    def sources(self) -> npt.NDArray[np.str_]:
        """str (N,), the source of each entry."""
        return np.array([entry.source for entry in self.entries])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name, grade and file digest of every entry: equal for equal data sets, wherever they lie."""
        lines = sorted(f"{entry.name}\t{entry.grade:d}\t{entry.sha256}\n" for entry in self.entries)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(data: Path | Sequence[Path], *, skip_unreadable: bool = False) -> Manifest:
    """Read one or more labelled folders or CSVs, decode every photograph once, and fingerprint the whole.

    Raises DataError where a layout is not recognised, a grade is wrong or given twice, or a listed photograph is
    missing or unreadable; with `skip_unreadable` those are left out and listed in the manifest instead.
    """
    folders = [data] if isinstance(data, Path) else list(data)
    listings = [listing for folder in folders for listing in read_layouts(folder)]
    _refuse_twice(item.path for listing in listings for item in listing.pictures)
    listed = [(item, listing.root) for listing in listings for item in listing.pictures]
    unreadable = [Unreadable(path, "no such file") for listing in listings for path in listing.missing]
    entries = []
    with ThreadPoolExecutor() as pool:
        for entry in pool.map(lambda pair: _verified(*pair), listed):
            if isinstance(entry, Unreadable):
                unreadable.append(entry)
            else:
                entries.append(entry)
    if unreadable and not skip_unreadable:
        first = unreadable[0]
        raise DataError(
            f"{first.path}: {first.reason} ({len(unreadable)} of {len(listed) + _missing(listings)} photographs are "
            "missing or unreadable; mend them, or leave them out with --skip-unreadable)"
        )
    if unreadable:
        _log.warning("%d photographs left out as missing or unreadable", len(unreadable))
    notes = [note for listing in listings for note in listing.notes]
    absent = sorted(set(GRADES) - {entry.grade for entry in entries})
    if absent:
        notes.append(f"no photographs of {'grade' if len(absent) == 1 else 'grades'} {', '.join(map(str, absent))}")
    entries.sort(key=lambda entry: entry.name)
    return Manifest(tuple(entries), tuple(unreadable), tuple(notes))


def _missing(listings: Iterable[Listing]) -> int:
    return sum(len(listing.missing) for listing in listings)


def _refuse_twice(paths: Iterable[Path]) -> None:
    path, times = max(Counter(path.resolve() for path in paths).items(), key=lambda item: item[1], default=(None, 0))
    if times > 1:
        raise DataError(f"{path}: is listed {times} times; give each photograph once")


def _verified(item: Listed, root: Path) -> Entry | Unreadable:
    """The entry of a photograph that decodes, or why it cannot be used."""
    try:
        photo = decode(item.path, min_side=1)
    except PhotoError as error:
        return Unreadable(item.path, str(error).removeprefix(f"{item.path.name}: "))
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
    )
