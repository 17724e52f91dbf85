"""What the statistics page shows beside the figures of `retigrade.serve.statistics`: intervals, months, reasons."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, case, extract, func, select
from sqlalchemy.orm import Session

from retigrade.icdr import Status
from retigrade.metadata import Training
from retigrade.metrics.estimate import Estimate
from retigrade.serve.page.words import words
from retigrade.serve.record import now
from retigrade.serve.statistics import Drift, Statistics, bounds_of, statistics_of
from retigrade.serve.tables import GradingRecord

PERIODS = (0, 7, 30, 90, 365)
"""Days that the page offers; 0 is all time."""
_MONTHS = 24
_REASONS = 6
_LARGE_DRIFT, _CHANCE, _FEWEST = 0.15, 0.05, 30
_STEP, _HEIGHT, _BOTTOM, _TOP = 64, 190, 22, 22  # of the plot of months, in pixels

DriftWord = Literal["few", "none", "small", "large", "unknown"]


@dataclass(frozen=True, slots=True)
class Month:
    """One month; referable: a share, None where of nothing."""

    name: str
    photographs: int
    graded: int
    referable: float | None

    @property
    def gradable(self) -> float | None:
        """The share of photographs with a grade."""
        return self.graded / self.photographs if self.photographs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The figures of a period, and what is shown with them.

    gradable, referable, agreement: the figures' rates with intervals. shares: of each grade among those graded.
    reasons: the most frequent ones for no grade, and how many photographs they are of.
    """

    figures: Statistics
    patients: int
    gradable: Estimate
    referable: Estimate
    agreement: Estimate
    shares: tuple[float, ...]
    drift: DriftWord
    reasons: list[tuple[str, int]]
    months: tuple[Month, ...]

    @property
    def graded(self) -> int:
        """Photographs with a grade."""
        return sum(self.figures.grades)


def shown(session: Session, training: Training, *, days: int = 0, bundle: str = "") -> Shown:
    """Return what was graded in the last `days` days, 0 for ever, by one bundle, "" for every."""
    since = (now() - datetime.timedelta(days=days)).date() if days else None
    figures = statistics_of(session, training.grades, since=since, bundle=bundle or None)
    where = bounds_of(since=since, bundle=bundle or None)
    graded = sum(figures.grades)
    return Shown(
        figures=figures,
        patients=session.scalar(select(func.count(GradingRecord.patient.distinct())).where(*where)) or 0,
        gradable=_share(figures.gradable_rate, graded + figures.statuses[Status.UNGRADABLE]),
        referable=_share(figures.referable_rate, graded),
        agreement=_share(figures.agreement.rate, figures.agreement.gradings),
        shares=tuple(count / max(graded, 1) for count in figures.grades),
        drift=drift_word(figures.drift, graded=graded),
        reasons=_reasons(session, where),
        months=_months(session, where),
    )


def drift_word(drift: Drift, *, graded: int) -> DriftWord:
    """Return what to say of a drift among `graded` photographs: whether it is more than chance makes, and how much."""
    if graded < _FEWEST:
        return "few"
    if drift.p_value is None or drift.total_variation is None:
        return "unknown"
    if drift.p_value >= _CHANCE:
        return "none"
    return "large" if drift.total_variation >= _LARGE_DRIFT else "small"


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


def _share(rate: float | None, count: int) -> Estimate:
    return Estimate.proportion(math.nan if rate is None else rate, count)


def _months(session: Session, where: Sequence[ColumnElement[bool]]) -> tuple[Month, ...]:
    year, month = (extract(part, GradingRecord.created) for part in ("year", "month"))
    graded = func.sum(case((GradingRecord.grade.is_not(None), 1), else_=0))
    referable = func.sum(case((GradingRecord.referable.is_(True), 1), else_=0))
    found = session.execute(
        select(year, month, func.count(), graded, referable)
        .where(*where)
        .group_by(year, month)
        .order_by(year.desc(), month.desc())
        .limit(_MONTHS)
    ).all()
    return tuple(
        Month(f"{int(of_year)}-{int(of_month):02d}", count, with_grade, refers / with_grade if with_grade else None)
        for of_year, of_month, count, with_grade, refers in reversed(found)
    )


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
