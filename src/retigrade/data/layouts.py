"""How a labelled folder or CSV is laid out, and which grade it gives to which picture.

Grades are joined to pictures by name, never by position. A layout is recognised, never guessed: what fits none is an
error.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retigrade.errors import DataError
from retigrade.icdr import Grade

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
CLASS_FOLDERS = {
    "no_dr": Grade.NONE,
    "mild": Grade.MILD,
    "moderate": Grade.MODERATE,
    "severe": Grade.SEVERE,
    "proliferate_dr": Grade.PROLIFERATIVE,
    "proliferative_dr": Grade.PROLIFERATIVE,
}
EYES = {"left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One picture as its layout lists it; `patient` is None where the layout knows none."""

    path: Path
    grade: Grade
    source: str
    patient: str | None = None
    eye: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What one layout yielded: its root folder, the graded pictures, the listed files not there, and remarks."""

    root: Path
    pictures: tuple[Listed, ...]
    missing: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """One kind of label CSV: its two columns, and the only name it goes by when found in a folder, if any."""

    key: str
    grade: str
    file_name: str | None = None


GENERIC = CsvLayout("path", "grade")
OPTIONAL = ("patient", "eye", "source")
CSV_LAYOUTS = (
    GENERIC,
    CsvLayout("id_code", "diagnosis", file_name="train.csv"),
    CsvLayout("image", "level", file_name="trainlabels.csv"),
    CsvLayout("image name", "retinopathy grade"),
)
WANTED = "path,grade[,patient,eye,source] or id_code,diagnosis or image,level or Image name,Retinopathy grade"
LAYOUTS = (
    "class folders No_DR Mild Moderate Severe Proliferate_DR; APTOS train.csv; EyePACS trainLabels.csv; "
    f"a CSV with the columns {WANTED}"
)


def read_layouts(data: Path) -> tuple[Listing, ...]:
    """List the graded pictures of one folder or CSV; a folder of recognised folders gives one listing for each.

    Raises DataError where the layout is not recognised, or a CSV has bad columns, rows or grades.
    """
    if data.is_file():
        return (_read_csv(data),)
    if not data.is_dir():
        raise DataError(f"{data}: no such folder or CSV")
    try:
        found = _read_folder(data, above=frozenset())
        ungraded = sorted(set(_pictures(data)).difference(item.path for listing in found for item in listing.pictures))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    if not found:
        seen = "".join(f"; {path.name} has the columns {', '.join(_header(path))}" for path in _csvs(data)[:3])
        raise DataError(f"{data}: no layout recognised{seen}. Known layouts: {LAYOUTS}")
    if not ungraded:
        return found
    note = f"{_name(data)}: {len(ungraded)} pictures have no grade and are left out, e.g. {ungraded[0]}"
    return (replace(found[0], notes=(*found[0].notes, note)), *found[1:])


def _read_folder(folder: Path, *, above: frozenset[str]) -> tuple[Listing, ...]:
    """The folder itself where it has a label CSV or class folders; else whatever its sub-folders hold.

    above: the real paths on the way here; a link back to one of them is not followed.
    """
    labels = _label_csvs(folder)
    if len(labels) > 1:
        names = ", ".join(path.name for path in labels)
        raise DataError(f"{folder}: more than one CSV with grades ({names}); give the one that you mean")
    classed = _in_class_folders(folder, _pictures(folder))
    if labels:
        return (_agree(_read_csv(labels[0]), classed),)
    if classed and not any(_label_csvs(below) for below, _ in _folders(folder)):
        return (Listing(folder, classed),)
    above |= {os.path.realpath(folder)}
    children = [path for path in sorted(folder.iterdir()) if path.is_dir() and os.path.realpath(path) not in above]
    return tuple(listing for child in children for listing in _read_folder(child, above=above))


def _in_class_folders(folder: Path, pictures: Sequence[Path]) -> tuple[Listed, ...]:
    listed = []
    for path in pictures:
        parts = {part.casefold() for part in path.relative_to(folder).parts[:-1]}
        grades = {CLASS_FOLDERS[part] for part in parts & CLASS_FOLDERS.keys()}
        if len(grades) > 1:
            raise DataError(f"{path}: lies in the folders of two grades; keep one of them")
        if grades:
            listed.append(_named_by_eye(path, grades.pop(), _name(folder)))
    return tuple(listed)


def _agree(listing: Listing, classed: Sequence[Listed]) -> Listing:
    """The listing of a CSV with class folders beside it: both must tell the same, a picture in one alone counts."""
    by_path = {item.path: item for item in listing.pictures}
    for item in classed:
        other = by_path.setdefault(item.path, item)
        if other.grade != item.grade:
            raise DataError(
                f"{item.path}: has two grades, {item.grade:d} by its folder and {other.grade:d} by the CSV; mend one"
            )
    return replace(listing, pictures=tuple(by_path.values()))


def _read_csv(path: Path) -> Listing:
    header = _header(path)
    layout = _layout_of(header)
    if layout is None:
        raise DataError(f"{path}: has the columns {', '.join(header) or 'none'}; wanted are {WANTED}")
    root = path.parent
    by_stem = defaultdict(list)
    for picture in () if layout is GENERIC else _pictures(root):
        by_stem[picture.stem].append(picture)
    found: dict[Path, Listed] = {}
    missing: list[Path] = []
    for number, row in _records(path):
        where = f"{path}, line {number}"
        key = row[layout.key]
        if not key:
            raise DataError(f"{where}: the column {layout.key!r} is empty")
        file = root / key if layout is GENERIC else _pick(by_stem.get(_stem(key), ()), where)
        item = _listed(file or root / key, row, layout, where=where, source=_name(root))
        if file is None or not file.exists():
            missing.append(item.path)
            continue
        first = found.setdefault(item.path, item)
        if first.grade != item.grade:
            raise DataError(f"{where}: {key} has two grades, {first.grade:d} and {item.grade:d}; mend one of them")
    if not found and not missing:
        raise DataError(f"{path}: lists no photographs")
    unused = sorted(set(header) - {layout.key, layout.grade, *OPTIONAL}) if layout is GENERIC else []
    notes = (f"{path.name}: columns not used: {', '.join(unused)}",) if unused else ()
    return Listing(root, tuple(found.values()), tuple(missing), notes)


def _listed(file: Path, row: Mapping[str, str], layout: CsvLayout, *, where: str, source: str) -> Listed:
    grade = _grade(row[layout.grade], where)
    if layout is not GENERIC:
        return _named_by_eye(file, grade, source)
    eye = row.get("eye", "")
    if eye and eye.casefold() not in EYES:
        raise DataError(f"{where}: eye {eye!r} is neither left nor right")
    return Listed(file, grade, row.get("source") or source, row.get("patient") or None, EYES.get(eye.casefold()))


def _named_by_eye(file: Path, grade: Grade, source: str) -> Listed:
    """EyePACS names its files by patient and eye, in copies with class folders too."""
    patient, _, side = file.stem.rpartition("_")
    if patient and side in ("left", "right"):
        return Listed(file, grade, source, patient, side)
    return Listed(file, grade, source)


def _grade(text: str, where: str) -> Grade:
    try:
        return Grade(float(text))  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(f"{where}: grade {text!r} is not one of 0, 1, 2, 3, 4") from error


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with its line number and values stripped; the header comes first."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for cells in reader:
                values = [cell.strip() for cell in cells]
                if any(values):
                    yield reader.line_num, values
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable UTF-8 CSV ({error})") from error


def _header(path: Path) -> list[str]:
    return [name.casefold() for name in next(_rows(path), (0, []))[1]]


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    header = _header(path)
    for number, values in list(_rows(path))[1:]:
        yield number, dict(zip(header, values + [""] * (len(header) - len(values)), strict=False))


def _layout_of(header: Sequence[str], file_name: str | None = None) -> CsvLayout | None:
    """The layout whose columns are all there; `file_name` holds a CSV found in a folder to the name it must go by.

    Kaggle puts a sample submission with the very same columns and invented grades beside the true labels.
    """
    for layout in CSV_LAYOUTS:
        named = file_name is None or layout.file_name in (None, file_name.casefold())
        if named and layout.key in header and layout.grade in header:
            return layout
    return None


def _label_csvs(folder: Path) -> list[Path]:
    return [path for path in _csvs(folder) if _layout_of(_header(path), path.name)]


def _csvs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.casefold() == ".csv" and path.is_file())


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder under `root` with its file names, links followed, none visited twice."""

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for top, below, names in os.walk(root, followlinks=True, onerror=refuse):
        below.sort()
        real = os.path.realpath(top)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield Path(top), sorted(names)


def _pictures(root: Path) -> list[Path]:
    """Whatever is called a picture, be it a broken link or a pipe: reading it will tell."""
    return [
        path
        for top, names in _folders(root)
        for path in (top / name for name in names)
        if path.suffix.casefold() in PICTURE_SUFFIXES
    ]


def _stem(name: str) -> str:
    """The name without a picture's suffix: CSVs list `a1` or `a1.png` for one and the same photograph."""
    path = Path(name)
    return path.stem if path.suffix.casefold() in PICTURE_SUFFIXES else name


def _pick(candidates: Sequence[Path], where: str) -> Path | None:
    if len(candidates) > 1:
        raise DataError(f"{where}: more than one picture has this name: {candidates[0]} and {candidates[1]}")
    return candidates[0] if candidates else None


def _name(folder: Path) -> str:
    return folder.resolve().name
