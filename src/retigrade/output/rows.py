"""A grading as plain values, and those as one line of CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass

from retigrade.grading import Grading

_DIGITS = 8  # of a probability: five rounded ones still sum to 1 within 1e-7
_SEPARATOR = "; "  # between the reasons in one CSV cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One input's verdict: path to seconds are the columns of `gradings.csv`; None is an empty cell.

    The others are in the JSON lines alone. prediction_set: grades in order. patient, eye ("right" or "left") and date
    (ISO 8601): whose eye it is, as far as known.
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

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each stage, or nothing where there is no grade."""
        found = (self.p0, self.p1, self.p2, self.p3, self.p4)
        return tuple(p for p in found if p is not None)


COLUMNS = tuple(Row.__dataclass_fields__)[: list(Row.__dataclass_fields__).index("seconds") + 1]


def as_row(grading: Grading) -> Row:
    """The row of one grading: probabilities rounded to 8 digits, quality to 4, seconds to 4."""
    given = grading.probabilities
    p0, p1, p2, p3, p4 = (None,) * 5 if given is None else (round(float(p), _DIGITS) for p in given)
    return Row(
        path=grading.path,
        status=grading.status.value,
        grade=None if grading.grade is None else int(grading.grade),
        stage=grading.stage,
        p0=p0,
        p1=p1,
        p2=p2,
        p3=p3,
        p4=p4,
        p_referable=None if grading.p_referable is None else round(float(grading.p_referable), _DIGITS),
        referable=None if grading.referable is None else bool(grading.referable),
        quality=None if grading.quality is None else round(float(grading.quality), 4),
        reasons=grading.reasons,
        sha256=grading.sha256,
        bundle=grading.bundle,
        seconds=round(grading.seconds, 4),
        prediction_set=None
        if grading.prediction_set is None
        else tuple(int(grade) for grade in grading.prediction_set),
        patient=grading.subject.patient,
        eye=None if grading.subject.eye is None else grading.subject.eye.value,
        date=None if grading.subject.date is None else grading.subject.date.isoformat(),
    )


def csv_header() -> str:
    """The first line of `gradings.csv`."""
    return csv_record(COLUMNS)


def csv_line(row: Row) -> str:
    """One line of CSV, ended by a newline.

    The path stands as it is, even where a spreadsheet would take it for a formula: programs join on it.
    """
    return csv_record([csv_cell(getattr(row, name)) for name in COLUMNS])


def json_line(row: Row) -> str:
    """One JSON object on one line: every field of the row; lists are lists, empty cells null.

    ASCII only, so that any name survives: one that is not Unicode, and one that holds a line separator.
    """
    return json.dumps(asdict(row), allow_nan=False) + "\n"


def csv_cell(value: object) -> str:
    """Return a value as the text of one CSV cell: None is empty, lists are joined by "; "."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return _decimal(value)
        case tuple():
            return _SEPARATOR.join(value)
        case _:
            return str(value)


def _decimal(value: float) -> str:
    """`value` without an exponent, which some readers of CSV take for text."""
    return f"{value:.{_DIGITS}f}".rstrip("0").removesuffix(".") or "0"


def csv_record(cells: list[str] | tuple[str, ...]) -> str:
    """Return one line of CSV, ended by a newline."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)  # its own "\r\n" makes it quote a cell that holds either character
    return buffer.getvalue().removesuffix("\r\n") + "\n"
