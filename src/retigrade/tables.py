"""The one reader of CSV files: whatever a spreadsheet or a script wrote, by the same rules for every command.

UTF-8, UTF-16 and Windows-1252; commas, semicolons, tabs and bars; header names without regard to case, blanks and
underscores. Quoting is strict: a quote that is not closed costs its own row, not those below it.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retigrade.errors import DataError
from retigrade.text import listing, shown

SUFFIXES = frozenset({".csv", ".tsv"})
MAX_BYTES = 256 * 2**20

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_ALONE = "\x1f"  # separates nothing: in a table of one column, a comma is part of the name
_MOST_LINES = 100  # that one quoted cell may span
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WINDOWS = "cp1252"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_FORMULA_TEXT = re.compile(r'="(.*)"')  # how spreadsheets are made to keep the zeros of 007


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row that is not blank: its line number from 1, its cells by column, or why it cannot be read."""

    line: int
    cells: Mapping[str, str]
    problem: str | None = None

    def get(self, column: str) -> str:
        """The cell without blanks around it; empty where there is no such column."""
        return self.cells.get(column, "")


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file. columns: the header's names, in lower case, with underscores for blanks. encoding: as read."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]
    separator: str
    encoding: str
    notes: tuple[str, ...] = ()

    @property
    def seen(self) -> str:
        """The columns and the separator, for an error."""
        columns = ", ".join(map(shown, self.columns)) or "none"
        return f"{columns} (separated by {_SEPARATORS[self.separator]})" if self.separator in _SEPARATORS else columns

    def spellings(self, cell: str) -> tuple[str, ...]:
        """The ways in which a cell may name a file: as read, with slashes for back-slashes, and as its bytes."""
        ways = [cell]
        if self.encoding == _WINDOWS:
            ways.append(os.fsdecode(cell.encode(_WINDOWS, "surrogateescape")))
        return tuple(dict.fromkeys([*ways, *(way.replace("\\", "/") for way in ways)]))

    def renamed(self, names: Mapping[str, Sequence[str]]) -> CsvTable:
        """Return the table with columns by the names that are asked for, where another of their names is used.

        names: of each column, those it may have beside its own, which goes before them. Each change is noted. Raises
        DataError where two of the others are there.
        """
        new = {}
        for name, others in names.items():
            there = [other for other in others if other in self.columns]
            if name in self.columns or not there:
                continue
            if len(there) > 1:
                raise DataError(
                    f"{shown(self.path.name)}: {' and '.join(there)} may both be the {name}; name the right one {name}"
                )
            new[there[0]] = name
        if not new:
            return self
        rows = tuple(
            replace(row, cells={new.get(column, column): cell for column, cell in row.cells.items()})
            for row in self.rows
        )
        note = f"{shown(self.path.name)}: read {listing(f'{old} as {name}' for old, name in new.items())}"
        columns = tuple(new.get(column, column) for column in self.columns)
        return replace(self, columns=columns, rows=rows, notes=(*self.notes, note))


def is_table(path: Path) -> bool:
    """Whether a file goes by the name of a table."""
    return path.suffix.casefold() in SUFFIXES


def read_table(path: Path) -> CsvTable:
    """Read a CSV file.

    Raises DataError where it cannot be read, is no text, or has two columns of one name.
    """
    data = _read(path)
    text, encoding = _decoded(data)
    lines = re.split(r"\r\n|\r|\n", text)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    stated = re.fullmatch(r"\s*\"?sep=(.)\"?\s*", lines[first], re.IGNORECASE)  # Excel's own line
    first += stated is not None
    header = lines[first] if first < len(lines) else ""
    if "\0" in header:
        raise DataError(f"{shown(str(path))}: not a CSV but binary data; save it as CSV, UTF-8")
    separator = stated[1] if stated else _separator(header)
    try:
        columns = [_column(name) for name in next(_cells([header], separator), [])]
    except csv.Error as error:
        raise DataError(f"{shown(str(path))}: the header, line {first + 1}, cannot be read ({error})") from error
    twice = [name for name, times in Counter(columns).items() if name and times > 1]
    if twice:
        raise DataError(f"{shown(str(path))}: has the column {shown(twice[0])!r} more than once; keep one of them")
    rows = tuple(_rows(lines, first + 1, columns, separator))
    notes = (f"{shown(path.name)}: is not UTF-8 and was read as Windows-1252",) if encoding == _WINDOWS else ()
    return CsvTable(path, tuple(name for name in columns if name), rows, separator, encoding, notes)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{shown(str(path))}: {size / 2**20:.0f} MiB, more than the {MAX_BYTES // 2**20} that are read"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(str(path))}: the CSV cannot be read ({error.strerror})") from error
    if data.startswith(_WORKBOOKS):
        raise DataError(f"{shown(str(path))}: a spreadsheet's own format, not a CSV; save it as CSV, UTF-8")
    return data


def _decoded(data: bytes) -> tuple[str, str]:
    """The text and its encoding; bytes that Windows-1252 does not have are kept as surrogates."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, "replace"), encoding
    begin = data[:400]
    for encoding, zeros in (("utf-16-le", begin[1::2]), ("utf-16-be", begin[::2])):
        if len(begin) > 3 and zeros.count(0) > 0.8 * len(zeros):
            return data.decode(encoding, "replace"), encoding
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return data.decode(_WINDOWS, "surrogateescape"), _WINDOWS


def _separator(header: str) -> str:
    """The separator that the header has most of, outside quotes."""
    plain = re.sub(r'"[^"]*"', "", header)
    best = max(_SEPARATORS, key=plain.count)
    return best if best in plain else _ALONE


def _column(name: str) -> str:
    return re.sub(r"[\s_\u00a0]+", "_", name.strip().strip("\ufeff\"'").strip()).casefold()


def _cells(lines: Sequence[str], separator: str) -> Iterator[list[str]]:
    return csv.reader([f"{line}\n" for line in lines], delimiter=separator, strict=True, skipinitialspace=True)


def _rows(lines: Sequence[str], at: int, columns: Sequence[str], separator: str) -> Iterator[CsvRow]:
    while at < len(lines):
        cells, taken, problem = _record(lines, at, columns, separator)
        values = [_value(cell) for cell in cells]
        if problem is None and any(values[len(columns) :]):
            problem = f"has {len(values)} cells, the header has {len(columns)} columns"
        if problem is not None:
            yield CsvRow(at + 1, {}, f"line {at + 1} {problem}")
        elif any(values):
            yield CsvRow(at + 1, {name: value for name, value in zip(columns, values, strict=False) if name})
        at += taken


def _record(lines: Sequence[str], at: int, columns: Sequence[str], separator: str) -> tuple[list[str], int, str | None]:
    """The cells that begin at a line, how many lines they take, and what is wrong with them.

    A quoted cell may span lines, unless the lines below would be whole rows by themselves: then a quote is missing.
    """
    for taken in range(1, _MOST_LINES + 1):
        try:
            (cells,) = _cells(lines[at : at + taken], separator)
        except csv.Error as error:
            if "unexpected end" not in str(error):
                return [], 1, f"cannot be read ({error})"
            if at + taken >= len(lines) or _is_row(lines[at + taken], columns, separator):
                break
            continue
        except ValueError:  # a blank line
            return [], 1, None
        return cells, taken, None
    return [], 1, "has a quote that is not closed"


def _is_row(line: str, columns: Sequence[str], separator: str) -> bool:
    try:
        (cells,) = _cells([line], separator)
    except (csv.Error, ValueError):
        return False
    return len(cells) == len(columns)


def _value(cell: str) -> str:
    cell = cell.strip()
    formula = _FORMULA_TEXT.fullmatch(cell)
    return formula[1].strip() if formula else cell
