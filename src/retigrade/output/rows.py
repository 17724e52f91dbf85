"""A grading as plain values, and those as one line of CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from retigrade.grading import SCHEMA, SCHEMA_VERSION, Grading

_DIGITS = 8  # of a number in CSV
_SEPARATOR = "; "  # between the reasons in one CSV cell
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # wide ones too
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line breaks, which CSV quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One input's verdict: path to seconds are the columns of `gradings.csv`; None is an empty cell.

    The others are in the JSON lines alone. prediction_set: grades in order. patient, eye ("right" or "left") and date
    (ISO 8601): whose eye it is, as far as known. device, field_of_view (degrees), pixel_spacing (mm, from row to row
    and from column to column): how the photograph was taken, as far as its file states.
    """

    path: str
    status: str
    grade: int | None
    stage: str | None
    p0: float | None
    p1: float | None
    p2: float | None
    p3: float | None
    p4: float | None
    p_referable: float | None
    referable: bool | None
    quality: float | None
    reasons: tuple[str, ...]
    sha256: str | None
    bundle: str
    seconds: float
    prediction_set: tuple[int, ...] | None = None
    patient: str | None = None
    eye: str | None = None
    date: str | None = None
    device: str | None = None
    field_of_view: float | None = None
    pixel_spacing: tuple[float, ...] | None = None
    schema: str = SCHEMA
    version: int = SCHEMA_VERSION

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each stage, or nothing where there is no grade."""
        found = (self.p0, self.p1, self.p2, self.p3, self.p4)
        return tuple(p for p in found if p is not None)


COLUMNS = tuple(Row.__dataclass_fields__)[: list(Row.__dataclass_fields__).index("seconds") + 1]


def as_row(grading: Grading) -> Row:
    """The row of one grading: the values of `Grading.to_dict`."""
    return row_of(grading.to_dict())


def row_of(values: dict[str, Any]) -> Row:
    """The row of values as `Grading.to_dict` gives them, or one line of gradings.jsonl; lists become tuples.

    Raises TypeError where a key is missing or unknown.
    """
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Row(**plain)


def csv_header() -> str:
    """The first line of `gradings.csv`."""
    return csv_record(COLUMNS)


def csv_line(row: Row) -> str:
    """One line of CSV, ended by a newline; see `csv_cell` for how a program reads the path back."""
    return csv_record([csv_cell(getattr(row, name)) for name in COLUMNS])


def json_line(row: Row) -> str:
    """One JSON object on one line: every field of the row; lists are lists, empty cells null.

    ASCII only, so that any name survives: one that is not Unicode, and one that holds a line separator.
    """
    return json.dumps(asdict(row), allow_nan=False) + "\n"


def csv_cell(value: object) -> str:
    """Return a value as the text of one CSV cell: None is empty, lists are joined by "; ".

    A text that a spreadsheet could take for a formula, one that starts with = + - @, a tab or a line break, gets an
    apostrophe in front, and so does one that starts with an apostrophe: programs take one leading apostrophe away.
    Control characters that could speak to a terminal become escapes such as `\\x1b`. The JSON lines change nothing.

    >>> csv_cell(("dark rim", "blurred")), csv_cell("=1+1"), csv_cell(0.25), csv_cell(None)
    ('dark rim; blurred', "'=1+1", '0.25', '')
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return _decimal(value)
        case tuple():
            return _harmless(_SEPARATOR.join(value))
        case str():
            return _harmless(value)
        case _:
            return str(value)


def _harmless(text: str) -> str:
    guarded = f"'{text}" if text.startswith(_FORMULA_STARTS) else text
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", guarded)


def _decimal(value: float) -> str:
    """`value` without an exponent, which some readers of CSV take for text."""
    return f"{value:.{_DIGITS}f}".rstrip("0").removesuffix(".") or "0"


def csv_record(cells: list[str] | tuple[str, ...]) -> str:
    """Return one line of CSV, ended by a newline."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)  # its own "\r\n" makes it quote a cell that holds either character
    return buffer.getvalue().removesuffix("\r\n") + "\n"
