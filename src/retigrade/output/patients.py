"""From photographs to people: what each visit showed of either eye, and what to do for the patient.

The rule, once, in `action_of`: a patient with a referable eye is referred; without one, both eyes must have been graded
before the next screening is soon enough; else the eyes that were not are photographed again. An eye that is missing or
cannot be graded never makes a patient negative, nor does a photograph of an eye whose side nobody knows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from retigrade.grader import LOW_CONFIDENCE
from retigrade.grading import Eye
from retigrade.icdr import GRADES, Status
from retigrade.output.rows import Row, csv_cell, csv_record
from retigrade.subjects import UNKNOWN

_DISAGREEMENT = 2
"""Stages by which two photographs of one eye on one day may not differ without a second reader."""
_BETWEEN_FILES = ";"
SCHEMA, SCHEMA_VERSION = "retigrade.visit", 1
"""What a visit as JSON says that it is."""


class EyeStatus(StrEnum):
    """What is known of one eye at one visit."""

    GRADED = "graded"
    UNGRADABLE = "ungradable"
    MISSING = "missing"


class Action(StrEnum):
    """What to do for the patient."""

    REFER = "refer"
    RESCREEN = "rescreen"
    REPHOTOGRAPH = "rephotograph"


@dataclass(frozen=True, slots=True, kw_only=True)
class EyeResult:
    """One eye at one visit: the worst of its gradable photographs.

    best: the row that stands for the eye: of those with the worst grade, the one of the best quality; None unless
    graded. p_referable: the highest of the graded photographs. reasons: why it has no grade, or needs a second reader.
    """

    status: EyeStatus
    best: Row | None = None
    p_referable: float | None = None
    referable: bool = False
    second_reader: bool = False
    reasons: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def grade(self) -> int | None:
        """The worst grade, 0 to 4; None unless graded."""
        return None if self.best is None else self.best.grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One patient on one day, or without one.

    unknown: the photographs of an eye whose side is not known. date_unread: whether a date was stated for any of them
    that could not be read.
    """

    patient: str
    date: str | None
    right: EyeResult
    left: EyeResult
    unknown: EyeResult
    action: Action
    reasons: tuple[str, ...]
    date_unread: bool = False

    @property
    def eyes(self) -> tuple[EyeResult, EyeResult, EyeResult]:
        """Right, left and unknown."""
        return self.right, self.left, self.unknown

    @property
    def worst_grade(self) -> int | None:
        """The highest grade of any photograph, 0 to 4; None where none was graded."""
        return max((eye.grade for eye in self.eyes if eye.grade is not None), default=None)

    @property
    def p_referable(self) -> float | None:
        """The highest probability of a referable stage; None where no photograph was graded."""
        return max((eye.p_referable for eye in self.eyes if eye.p_referable is not None), default=None)

    @property
    def second_reader(self) -> bool:
        """Whether a person should look: a second reader is advised for an eye, or a date could not be read."""
        return self.date_unread or any(eye.second_reader for eye in self.eyes)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that the visit rests on."""
        return tuple(path for eye in self.eyes for path in eye.files)


COLUMNS = (
    "patient", "date", "right_status", "right_grade", "left_status", "left_grade", "worst_grade", "p_referable",
    "action", "second_reader", "reasons", "files",
)  # fmt: skip


def action_of(*, referable: bool, right: EyeStatus, left: EyeStatus) -> Action:
    """Return what to do for a patient; referable: whether any photograph of the visit is, of whichever eye.

    >>> action_of(referable=False, right=EyeStatus.GRADED, left=EyeStatus.MISSING).value
    'rephotograph'
    """
    if referable:
        return Action.REFER
    both_graded = right is EyeStatus.GRADED and left is EyeStatus.GRADED
    return Action.RESCREEN if both_graded else Action.REPHOTOGRAPH


def visits_of(rows: Iterable[Row]) -> Iterator[Visit]:
    """Yield one visit for each patient and day, in the order of their names and days; rows of nobody are left out.

    Photographs without a date are a visit of their own, before the dated ones.
    """
    together: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.patient is not None:
            together[row.patient, row.date or ""].append(row)
    dated = {patient for patient, date in together if date}
    for patient, date in sorted(together):
        rows = together[patient, date]
        yield visit_of(rows, patient=patient, date=date or None, has_dated_visits=patient in dated)


def visit_of(rows: Sequence[Row], *, patient: str, date: str | None, has_dated_visits: bool = False) -> Visit:
    """Return what the photographs of one patient on one day come to, or those of which no day is known.

    has_dated_visits: whether the patient has others that are; to photographs without a date that matters.
    """
    right, left, unknown = (
        eye_of([row for row in rows if row.eye == eye], name=name)
        for eye, name in ((Eye.RIGHT, "right eye"), (Eye.LEFT, "left eye"), (None, "eye of unknown side"))
    )
    referable = right.referable or left.referable or unknown.referable
    reasons = [*right.reasons, *left.reasons]
    if unknown.status is not EyeStatus.MISSING:
        reasons += [f"{len(unknown.files)} photographs of an eye whose side is not known", *unknown.reasons]
    unread = dict.fromkeys(reason for row in rows for reason in row.reasons if reason.startswith(UNKNOWN["date"]))
    if date is None:
        reasons += [*unread, *_undated(len(rows), has_dated_visits=has_dated_visits)]
    return Visit(
        patient=patient,
        date=date,
        right=right,
        left=left,
        unknown=unknown,
        action=action_of(referable=referable, right=right.status, left=left.status),
        reasons=tuple(reasons),
        date_unread=bool(unread),
    )


def _undated(photographs: int, *, has_dated_visits: bool) -> Iterator[str]:
    """Say what is not known of photographs without a date: they are taken together, and never silently."""
    if photographs > 1:
        yield f"no date: its {photographs} photographs are taken together and may be of several visits"
    if has_dated_visits:
        yield "no date: it may be earlier or later than the patient's dated visits"


def eye_of(rows: Sequence[Row], *, name: str) -> EyeResult:
    """Return what the photographs of one eye at one visit come to; `name` is what its reasons call it."""
    files = tuple(row.path for row in rows)
    if not rows:
        return EyeResult(status=EyeStatus.MISSING, reasons=(f"{name} missing",))
    graded = [row for row in rows if row.status == Status.GRADED and row.grade is not None]
    if not graded:
        whys = dict.fromkeys(reason for row in rows for reason in row.reasons)
        return EyeResult(
            status=EyeStatus.UNGRADABLE, reasons=(f"{name} without a grade: {', '.join(whys)}",), files=files
        )
    grades = [row.grade for row in graded if row.grade is not None]
    best = max(graded, key=lambda row: (row.grade or 0, row.quality or 0.0))
    reasons = []
    if max(grades) - min(grades) >= _DISAGREEMENT:
        stages = " and ".join(GRADES[grade].stage for grade in (min(grades), max(grades)))
        reasons.append(f"{name}: its photographs of one visit disagree, {stages}: a second reader is advised")
    if any(LOW_CONFIDENCE in row.reasons for row in graded):
        reasons.append(f"{name}: {LOW_CONFIDENCE}")
    return EyeResult(
        status=EyeStatus.GRADED,
        best=best,
        p_referable=max(row.p_referable or 0.0 for row in graded),
        referable=any(row.referable for row in graded),
        second_reader=bool(reasons),
        reasons=tuple(reasons),
        files=files,
    )


def patients_csv(visits: Iterable[Visit]) -> str:
    """Return `patients.csv`: the columns, then one line for each visit."""
    lines = [csv_record(COLUMNS)]
    for visit in visits:
        values = _values(visit) | {"files": _BETWEEN_FILES.join(visit.files)}
        lines.append(csv_record([csv_cell(value) for value in values.values()]))
    return "".join(lines)


def patients_jsonl(visits: Iterable[Visit]) -> str:
    """Return the same as JSON lines: lists are lists, empty cells null."""
    kind = {"schema": SCHEMA, "version": SCHEMA_VERSION}
    return "".join(json.dumps(_values(visit) | kind, allow_nan=False) + "\n" for visit in visits)


def _values(visit: Visit) -> dict[str, object]:
    """Return the columns of one visit by name."""
    values = (
        visit.patient,
        visit.date,
        visit.right.status.value,
        visit.right.grade,
        visit.left.status.value,
        visit.left.grade,
        visit.worst_grade,
        visit.p_referable,
        visit.action.value,
        visit.second_reader,
        visit.reasons,
        visit.files,
    )
    return dict(zip(COLUMNS, values, strict=True))
