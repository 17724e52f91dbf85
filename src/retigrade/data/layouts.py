"""How a labelled folder or CSV is laid out, and which grade it gives to which photograph.

Grades are joined to photographs by name, never by position. A layout is recognised, never guessed: what fits none is an
error. What is a photograph is for `retigrade.inputs` to say, how a CSV is read for `retigrade.tables`.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from retigrade.data.names import NameIndex
from retigrade.errors import DataError
from retigrade.grading import Eye
from retigrade.icdr import GRADES, Grade
from retigrade.inputs import COLUMNS, NO_PICTURE, Unreadable, Walk, describe_skipped, known
from retigrade.locate import Changes, Locator, stem
from retigrade.subjects import parse_date, parse_eye
from retigrade.tables import CsvRow, CsvTable, is_table, read_table
from retigrade.text import listing, shown

CLASS_FOLDERS = {
    **dict.fromkeys(("no_dr", "nodr", "none"), Grade.NONE),
    **dict.fromkeys(("mild", "mild_dr", "mild_npdr"), Grade.MILD),
    **dict.fromkeys(("moderate", "moderate_dr", "moderate_npdr"), Grade.MODERATE),
    **dict.fromkeys(("severe", "severe_dr", "severe_npdr"), Grade.SEVERE),
    **dict.fromkeys(("proliferate_dr", "proliferative_dr", "proliferative", "pdr"), Grade.PROLIFERATIVE),
}
"""Names of class folders, in lower case, blanks and hyphens as underscores, without a number before them."""
NUMBER_FOLDERS = {str(int(grade)): grade for grade in GRADES}
"""Class folders too, but only where one is 0 and nothing else lies beside them: 1 and 2 may be patients."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A listed photograph that cannot be used, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{shown(str(self.path))}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Listed:
    """One photograph as its layout lists it; what the layout does not know is None, or empty.

    origin: of what kind within its source, such as a camera or an export. rejected: whether a reader of image quality
    called it unusable.
    """

    path: Path
    grade: Grade
    source: str
    patient: str | None = None
    eye: Eye | None = None
    date: datetime.date | None = None
    origin: str = ""
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What one layout yielded: its root folder, the graded photographs, what cannot be used, and remarks."""

    root: Path
    photographs: tuple[Listed, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """One kind of label CSV by its two columns."""

    key: str
    grade: str


GENERIC = CsvLayout("path", "grade")
OPTIONAL = ("patient", "eye", "source", "date", "origin", "quality")
_RENAMED = {column: COLUMNS[column] for column in ("patient", "eye", "date")}  # as in a list of photographs to grade
REJECTED = "2"
"""The quality of EyeQ (Fu et al. 2019) that says "reject"; 0 is good, 1 usable."""
CSV_LAYOUTS = (
    GENERIC,
    CsvLayout("id_code", "diagnosis"),
    CsvLayout("image", "level"),
    CsvLayout("image_name", "retinopathy_grade"),
)
WANTED = (
    "path,grade[,patient,eye,source,date,origin,quality] or id_code,diagnosis or image,level or "
    "Image name,Retinopathy grade"
)
LAYOUTS = (
    "class folders No_DR Mild Moderate Severe Proliferate_DR, or 0 1 2 3 4; APTOS train.csv; EyePACS trainLabels.csv; "
    f"a CSV with the columns {WANTED}"
)
# Kaggle puts a sample with the very same columns and invented grades beside the true labels.
_SAMPLE = re.compile(r"sample|submission", re.IGNORECASE)
_GRADINGS = frozenset({"path", "status", "grade", "bundle"})  # what `retigrade grade` writes is no label


class _NoneFound(DataError):
    """Not one photograph of a CSV was found, so that it may be the list of others."""


def read_layouts(data: Path) -> tuple[Listing, ...]:
    """List the graded photographs of one folder or CSV; a folder of recognised folders gives one listing for each.

    Raises DataError where the layout is not recognised, or a CSV has bad columns, rows or grades.
    """
    if data.is_file():
        return (_read_csv(read_table(data), None),)
    if not data.is_dir():
        raise DataError(f"{shown(str(data))}: no such folder or CSV")
    folder = _Folder.walked(data)
    listings = folder.listings()
    broken = [table for table in folder.tables.values() if isinstance(table, DataError)]
    if not listings:
        if broken:
            raise broken[0]
        seen = "".join(f"; {shown(table.path.name)} has the columns {table.seen}" for table in folder.read_tables()[:3])
        raise DataError(f"{shown(str(data))}: no layout recognised{seen}. Known layouts: {LAYOUTS}")
    graded = {item.path for one in listings for item in one.photographs}
    ungraded = [shown(str(path)) for path in folder.photographs if path not in graded]
    notes = [*folder.notes, *(f"not used: {error}" for error in broken)]
    if ungraded:
        notes.append(f"{_name(data)}: {len(ungraded)} pictures have no grade and are left out: {listing(ungraded)}")
    first = replace(listings[0], left_out=(*listings[0].left_out, *folder.left_out), notes=(*listings[0].notes, *notes))
    return (first, *listings[1:])


@dataclass(slots=True)
class _Folder:
    """All that lies below one folder. tables: the CSVs, read when first asked for; why one cannot be read, instead."""

    root: Path
    photographs: list[Path]
    tables: dict[Path, CsvTable | DataError | None]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def walked(cls, root: Path) -> _Folder:
        walk = Walk()
        entries = list(walk.photographs(root))
        refused = [
            LeftOut(entry.path, entry.reader.reason) for entry in entries if isinstance(entry.reader, Unreadable)
        ]
        tables = {skip.path: None for skip in walk.skipped if skip.reason == NO_PICTURE and is_table(skip.path)}
        others = (skip for skip in walk.skipped if skip.path not in tables)
        return cls(
            root,
            [entry.path for entry in entries if not isinstance(entry.reader, Unreadable)],
            dict(sorted(tables.items())),
            tuple(refused),
            tuple(f"{_name(root)}: {sentence}" for sentence in describe_skipped(others)),
        )

    def read_tables(self) -> list[CsvTable]:
        """All tables that can be read."""
        return [table for path in self.tables if isinstance(table := self._table(path), CsvTable)]

    def listings(self) -> tuple[Listing, ...]:
        """One listing for each folder with label CSVs or class folders; below such a one none is sought."""
        listings = []
        waiting = [(self.root, self.photographs, list(self.tables))]
        while waiting:
            folder, photographs, tables = waiting.pop()
            labels = [path for path in tables if path.parent == folder and self._is_label(path)]
            deeper = any(path.parent != folder and self._is_label(path) for path in tables)
            if labels:
                chosen = _chosen(
                    folder, [table for path in labels if isinstance(table := self._table(path), CsvTable)], photographs
                )
                listings.append(_agree(chosen, _in_class_folders(folder, photographs, numbers=False)))
            elif not deeper and (classed := _in_class_folders(folder, photographs, numbers=True)):
                listings.append(Listing(folder, classed, notes=_number_note(folder, photographs)))
            else:
                parts = _by_child(folder, photographs), _by_child(folder, tables)
                children = sorted(parts[0].keys() | parts[1].keys(), reverse=True)
                waiting += [(child, parts[0].get(child, []), parts[1].get(child, [])) for child in children]
        return tuple(listings)

    def _table(self, path: Path) -> CsvTable | DataError:
        table = self.tables[path]
        if table is None:
            try:
                table = read_table(path)
            except DataError as error:
                table = error
            self.tables[path] = table
        return table

    def _is_label(self, path: Path) -> bool:
        """Whether a CSV gives grades; it may go by any name but that of a sample."""
        table = self._table(path)
        if isinstance(table, DataError) or _SAMPLE.search(path.name):
            return False
        return _layout_of(table) is not None and not _is_gradings(table)


def _by_child(folder: Path, paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Paths by the sub-folder of `folder` in which they lie."""
    depth = len(folder.parts)
    children = defaultdict(list)
    for path in paths:
        if len(path.parts) > depth + 1:
            children[folder / path.parts[depth]].append(path)
    return dict(children)


def _chosen(folder: Path, tables: Sequence[CsvTable], photographs: Sequence[Path]) -> Listing:
    """The listing of the one label CSV that names photographs here; another that does too is an error."""
    listings: list[Listing] = []
    refused: list[DataError] = []
    of_others: list[DataError] = []
    for table in tables:
        try:
            listings.append(_read_csv(table, photographs))
        except _NoneFound as error:
            of_others.append(error)
        except DataError as error:
            refused.append(error)
    if len(listings) + len(refused) > 1:
        names = ", ".join(shown(table.path.name) for table in tables)
        raise DataError(f"{shown(str(folder))}: more than one CSV with grades ({names}); give the one that you mean")
    if not listings:
        raise [*refused, *of_others][0]
    return replace(listings[0], notes=(*listings[0].notes, *(f"not used: {error}" for error in of_others)))


def _class_of(name: str) -> Grade | None:
    """The grade that a folder's name stands for, as `Severe`, `severe NPDR` or `3 - Severe`."""
    words = re.sub(r"[\s_-]+", "_", name.casefold()).strip("_")
    number, _, rest = words.partition("_")
    grade = CLASS_FOLDERS.get(words)
    if grade is None and number in NUMBER_FOLDERS:
        grade = CLASS_FOLDERS.get(rest)
        return grade if grade == NUMBER_FOLDERS[number] else None
    return grade


def _in_class_folders(folder: Path, photographs: Sequence[Path], *, numbers: bool) -> tuple[Listed, ...]:
    """The photographs below class folders; `numbers`: whether folders named 0 to 4 may be some."""
    numbered = _number_folders(folder, photographs) if numbers else {}
    named = {
        name: grade for path in photographs for name in path.parent.parts if (grade := _class_of(name)) is not None
    }
    listed = []
    for path in photographs:
        inside = path.parent.parts[len(folder.parts) :]
        grades = {named[part] for part in inside if part in named}
        grades |= {numbered[above] for above in path.parents if above in numbered}
        if len(grades) > 1:
            raise DataError(f"{shown(str(path))}: lies in the folders of two grades; keep one of them")
        if grades:
            listed.append(_named_by_eye(Listed(path, grades.pop(), _name(folder))))
    return tuple(listed)


def _number_folders(folder: Path, photographs: Sequence[Path]) -> dict[Path, Grade]:
    """The folders that are called by the number of a grade, where they are class folders: 0 and others, and no more."""
    children = defaultdict(set)
    for path in photographs:
        for above in path.parents:
            if above == folder:
                break
            children[above.parent].add(above.name)
    return {
        parent / name: NUMBER_FOLDERS[name]
        for parent, names in children.items()
        if "0" in names and len(names) > 1 and names <= NUMBER_FOLDERS.keys()
        for name in names
    }


def _number_note(folder: Path, photographs: Sequence[Path]) -> tuple[str, ...]:
    names = sorted({path.name for path in _number_folders(folder, photographs)})
    return (f"{_name(folder)}: the folders {', '.join(names)} are taken for the grades",) if names else ()


def _agree(listed: Listing, classed: Sequence[Listed]) -> Listing:
    """The listing of a CSV with class folders beside it: both must say the same, a photograph in one alone counts."""
    by_path = {item.path: item for item in listed.photographs}
    for item in classed:
        other = by_path.setdefault(item.path, item)
        if other.grade != item.grade:
            raise DataError(
                f"{shown(str(item.path))}: has two grades, {item.grade:d} by its folder and {other.grade:d} by the CSV"
                "; keep one of them"
            )
    return replace(listed, photographs=tuple(by_path.values()))


def _read_csv(table: CsvTable, photographs: Sequence[Path] | None) -> Listing:
    """What a CSV lists; `photographs` are those below its folder, None where nobody has looked yet."""
    path, root = table.path, table.path.parent
    layout = _layout_of(table)
    if layout is None:
        raise DataError(f"{shown(str(path))}: has the columns {table.seen}; wanted are {WANTED}")
    if _is_gradings(table):
        raise DataError(f"{shown(str(path))}: is what `retigrade grade` wrote, not labels")
    table = table.renamed(_RENAMED)
    locator: Locator | NameIndex = Locator(root)
    if layout is not GENERIC:
        found = [entry.path for entry in Walk().photographs(root)] if photographs is None else photographs
        locator = NameIndex(root, found)
    listed: dict[Path, Listed] = {}
    left_out: list[LeftOut] = []
    changes, unknown = Changes(path), list[str]()
    first_missing: LeftOut | None = None
    for row in table.rows:
        where = f"{shown(str(path))}, line {row.line}"
        key = row.get(layout.key)
        if row.problem is not None:
            left_out.append(LeftOut(Path(f"{path}:{row.line}"), row.problem))
            continue
        if not key:
            raise DataError(f"{where}: the column {layout.key!r} is empty")
        grade = _grade(row.get(layout.grade), where)
        file, change = locator.find(table.spellings(key))
        changes.add(change, key, file or path)
        if file is None:
            missing = LeftOut(root / key, locator.why(root / key))
            first_missing = first_missing or missing
            left_out.append(missing)
            continue
        item = listed.setdefault(file, _listed(file, grade, row, _name(root), unknown))
        if item.grade != grade:
            raise DataError(f"{where}: {shown(key)} has two grades, {item.grade:d} and {grade:d}; keep one of them")
    if not listed and first_missing is not None:
        raise _NoneFound(
            f"{shown(str(path))}: none of its {len(left_out)} photographs was found; the first was looked for as "
            f"{first_missing}"
        )
    if not listed and not left_out:
        raise DataError(f"{shown(str(path))}: lists no photographs")
    notes = [*table.notes, *changes.notes]
    if layout is GENERIC and (unused := sorted(set(table.columns) - {layout.key, layout.grade, *OPTIONAL})):
        notes.append(f"{shown(path.name)}: columns not used: {', '.join(map(shown, unused))}")
    if unknown:
        notes.append(f"{shown(path.name)}: {len(unknown)} cells are taken as unknown: {listing(unknown, between='; ')}")
    return Listing(root, tuple(listed.values()), tuple(left_out), tuple(notes))


def _listed(file: Path, grade: Grade, row: CsvRow, source: str, unknown: list[str]) -> Listed:
    unread: dict[str, str] = {}
    item = Listed(
        file,
        grade,
        row.get("source") or source,
        row.get("patient") or None,
        known(row, "eye", parse_eye, unread),
        known(row, "date", parse_date, unread),
        row.get("origin"),
        row.get("quality").removesuffix(".0") == REJECTED,
    )
    unknown += (f"line {row.line}: {shown(why)}" for why in unread.values())
    return item if "path" in row.cells or item.patient else _named_by_eye(item)


def _named_by_eye(item: Listed) -> Listed:
    """EyePACS names its files by patient and eye, in copies with class folders too."""
    patient, _, side = stem(item.path.name).rpartition("_")
    return replace(item, patient=patient, eye=Eye(side)) if patient and side in ("left", "right") else item


def _grade(text: str, where: str) -> Grade:
    try:
        return Grade(float(text.replace(",", ".")))  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(f"{where}: grade {text!r} is not one of 0, 1, 2, 3, 4") from error


def _layout_of(table: CsvTable) -> CsvLayout | None:
    """The layout whose columns are all there."""
    return next((one for one in CSV_LAYOUTS if {one.key, one.grade} <= set(table.columns)), None)


def _is_gradings(table: CsvTable) -> bool:
    return set(table.columns) >= _GRADINGS


def _name(folder: PurePath | Path) -> str:
    return Path(folder).resolve().name
