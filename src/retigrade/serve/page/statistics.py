"""What the record comes to: gradable and referable rates, the mix of stages and its drift, agreement with readers."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import ColumnElement, and_, case, extract, func, select
from sqlalchemy.orm import Session

from retigrade.arrays import Integers
from retigrade.icdr import GRADES, Status
from retigrade.metadata import Training
from retigrade.metrics.classification import quadratic_kappa_of
from retigrade.metrics.estimate import Estimate
from retigrade.serve.page.listing import latest_reading
from retigrade.serve.page.words import words
from retigrade.serve.record import now
from retigrade.serve.tables import GradingRecord, ReadingRecord

PERIODS = (0, 7, 30, 90, 365)
"""Days that the page offers; 0 is all time."""
_MONTHS = 24
_REASONS = 6
_LARGE_DRIFT = 0.15
_DRAWS = 2000  # of mixes by chance
_NO_GRADE = len(GRADES)  # the place of an answer without a grade in the table of agreement
_STEP, _HEIGHT, _BOTTOM, _TOP = 64, 190, 22, 22  # of the plot of months, in pixels

Drift = Literal["none", "small", "large"]


@dataclass(frozen=True, slots=True)
class Month:
    """One month; gradable, referable: shares, None where of nothing."""

    name: str
    photographs: int
    graded: int
    referable: float | None

    @property
    def gradable(self) -> float | None:
        """The share of photographs with a grade."""
        return self.graded / self.photographs if self.photographs else None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage in the mix; share: of the graded photographs here; training: of those learned from."""

    grade: int
    count: int
    share: float
    training: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts of the gradings in a period.

    statuses: photographs of each status. reasons: the most frequent ones for no grade. gradable: of the photographs of
    a retina that could be read. drift: total variation between the mixes, 0 to 1. confusion: (6, 6), rows the machine,
    columns the latest reading, the last of each without a grade. agreed: readings with the machine's own answer.
    """

    photographs: int
    patients: int
    statuses: dict[str, int]
    reasons: list[tuple[str, int]]
    gradable: Estimate
    referable: Estimate
    mix: tuple[Stage, ...]
    drift: float
    drift_word: Drift
    months: tuple[Month, ...]
    confusion: list[list[int]]
    read: int
    agreed: int
    agreement: Estimate
    kappa: float | None

    @property
    def graded(self) -> int:
        """Photographs with a grade."""
        return self.statuses[Status.GRADED]


def statistics(session: Session, training: Training, *, days: int = 0, bundle: str = "") -> Statistics:
    """Return what was graded in the last `days` days, 0 for ever, by one bundle, "" for every."""
    where: list[ColumnElement[bool]] = []
    if days:
        where.append(GradingRecord.created >= now() - datetime.timedelta(days=days))
    if bundle:
        where.append(GradingRecord.bundle == bundle)
    is_referable = case((GradingRecord.referable.is_(True), 1), else_=0)
    counted = session.execute(
        select(GradingRecord.status, GradingRecord.grade, func.count(), func.sum(is_referable))
        .where(*where)
        .group_by(GradingRecord.status, GradingRecord.grade)
    ).all()
    statuses: Counter[str] = Counter()
    grades = np.zeros(len(GRADES), np.int64)
    referable = 0
    for status, grade, count, refers in counted:
        statuses[status] += count
        if grade is not None:
            grades[grade] += count
            referable += refers
    photographs, graded = sum(statuses.values()), int(grades.sum())
    retinas = graded + statuses[Status.UNGRADABLE]
    drift, word = drift_of(grades, training.grades)
    confusion = _confusion(session, where)
    read, agreed = int(confusion.sum()), int(np.trace(confusion))
    kappa = quadratic_kappa_of(confusion[:_NO_GRADE, :_NO_GRADE])
    return Statistics(
        photographs=photographs,
        patients=session.scalar(select(func.count(GradingRecord.patient.distinct())).where(*where)) or 0,
        statuses={status: statuses[status] for status in Status},
        reasons=_reasons(session, where),
        gradable=_share(graded, retinas),
        referable=_share(referable, graded),
        mix=_mix(grades, training.grades),
        drift=drift,
        drift_word=word,
        months=_months(session, where, is_referable),
        confusion=confusion.tolist(),
        read=read,
        agreed=agreed,
        agreement=_share(agreed, read),
        kappa=None if math.isnan(kappa) else kappa,
    )


def drift_of(grades: Integers, training: Sequence[int]) -> tuple[float, Drift]:
    """Return the total variation between two mixes of stages, 0 to 1, and a word on it.

    grades, training: photographs of each grade, (5,). The word is "none" where 95 % of mixes drawn by chance from the
    training mix lie as far away, or one of them is empty.
    """
    count, learned = int(grades.sum()), np.asarray(training, np.float64)
    if not count or not learned.sum():
        return 0.0, "none"
    expected = learned / learned.sum()
    drift = float(np.abs(grades / count - expected).sum() / 2)
    drawn = np.random.default_rng(0).multinomial(count, expected, size=_DRAWS) / count
    by_chance = float(np.quantile(np.abs(drawn - expected).sum(axis=1) / 2, 0.95))
    if drift <= by_chance:
        return drift, "none"
    return drift, "large" if drift >= _LARGE_DRIFT else "small"


def bundles(session: Session) -> list[str]:
    """Return the bundles that graded something, by name."""
    return list(session.scalars(select(GradingRecord.bundle).distinct().order_by(GradingRecord.bundle)))


def months_svg(months: Sequence[Month]) -> str:
    """Return a plot of photographs by month, with and without a grade: SVG that takes its colours from the page."""
    t = words()
    most = max((month.photographs for month in months), default=0) or 1
    room = _HEIGHT - _TOP - _BOTTOM
    parts = []
    for place, month in enumerate(months):
        left, wide = place * _STEP + _STEP * 0.18, _STEP * 0.64
        whole, graded = (round(count / most * room, 1) for count in (month.photographs, month.graded))
        base = _HEIGHT - _BOTTOM
        middle = round(left + wide / 2, 1)
        parts.append(
            f"<g><title>{month.name}: {month.photographs} {t('statistics.photographs').lower()}, {month.graded} "
            f"{t('statistics.months_with')}</title>"
            f'<rect class="rest" x="{left:.1f}" y="{base - whole:.1f}" width="{wide:.1f}" height="{whole}" rx="2"/>'
            f'<rect class="full" x="{left:.1f}" y="{base - graded:.1f}" width="{wide:.1f}" height="{graded}" rx="2"/>'
            f'<text x="{middle}" y="{base - whole - 6:.1f}" text-anchor="middle">{month.photographs}</text>'
            f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{month.name}</text></g>'
        )
    wide, label = max(len(months), 1) * _STEP, t("statistics.months_label")
    return f'<svg class="months" viewBox="0 0 {wide} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _share(part: int, whole: int) -> Estimate:
    return Estimate.proportion(part / whole if whole else math.nan, whole)


def _mix(grades: Integers, training: Sequence[int]) -> tuple[Stage, ...]:
    count, learned = max(int(grades.sum()), 1), max(sum(training), 1)
    return tuple(
        Stage(int(grade), int(grades[grade]), grades[grade] / count, training[grade] / learned) for grade in GRADES
    )


def _months(session: Session, where: Sequence[ColumnElement[bool]], referable: ColumnElement[int]) -> tuple[Month, ...]:
    year, month = (extract(part, GradingRecord.created) for part in ("year", "month"))
    graded = func.sum(case((GradingRecord.grade.is_not(None), 1), else_=0))
    found = session.execute(
        select(year, month, func.count(), graded, func.sum(referable))
        .where(*where)
        .group_by(year, month)
        .order_by(year.desc(), month.desc())
        .limit(_MONTHS)
    ).all()
    return tuple(
        Month(f"{int(of_year)}-{int(of_month):02d}", count, with_grade, refers / with_grade if with_grade else None)
        for of_year, of_month, count, with_grade, refers in reversed(found)
    )


def _confusion(session: Session, where: Sequence[ColumnElement[bool]]) -> Integers:
    read = latest_reading().label("read")
    is_read = select(ReadingRecord.id).where(ReadingRecord.grading == GradingRecord.id).exists()
    pairs = select(GradingRecord.grade, read).where(and_(is_read, *where)).subquery()
    counted = session.execute(select(pairs.c.grade, pairs.c.read, func.count()).group_by(pairs.c.grade, pairs.c.read))
    confusion = np.zeros((_NO_GRADE + 1, _NO_GRADE + 1), np.int64)
    for machine, person, count in counted:
        confusion[_NO_GRADE if machine is None else machine, _NO_GRADE if person is None else person] += count
    return confusion


def _reasons(session: Session, where: Sequence[ColumnElement[bool]]) -> list[tuple[str, int]]:
    """Return the most frequent reasons for no grade, without what is one photograph's own in them."""
    first: Any = GradingRecord.row["reasons"][0].as_string()
    counted = session.execute(
        select(GradingRecord.status, first, func.count())
        .where(GradingRecord.grade.is_(None), *where)
        .group_by(GradingRecord.status, first)
    )
    totals: Counter[str] = Counter()
    for status, reason, count in counted:
        totals[_general(reason, names_file=status == Status.ERROR)] += count
    return totals.most_common(_REASONS)


def _general(reason: str, *, names_file: bool) -> str:
    """Return a reason without the name of the file before it, and without the numbers after it."""
    general = reason.partition(": ")[2] if names_file else reason.partition(": ")[0]
    return (general or reason).partition(" (")[0]
