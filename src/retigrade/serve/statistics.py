"""What the record adds up to: how many photographs could be graded, which grades, and whether readers agree."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from retigrade.icdr import GRADES, Status
from retigrade.metrics.classification import quadratic_kappa_of
from retigrade.serve.record import is_current
from retigrade.serve.tables import GradingRecord, ReadingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Machine and readers, by each photograph's last reading.

    gradings: those that were read. agreed: with the machine's grade; a reading without a grade agrees where the machine
    gave none. rate: their share, null without any. quadratic_kappa: of those that both gave a grade, null where it is
    not defined. confusion: 5 x 5 counts, rows by the reader's grade, columns by the machine's.
    """

    gradings: int
    agreed: int
    rate: float | None
    quadratic_kappa: float | None
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The record's mix of grades beside that of the photographs which the bundle learned from.

    training: shares of the grades there, in order, which sum to 1. total_variation: half the sum of the differences of
    shares, 0 (the same) to 1. chi_square: Pearson's statistic of the counts against the training mix, with 4 degrees of
    freedom; p_value: how often a record with that mix would give one as large; both null without gradings, or where the
    training lacks a grade.
    """

    training: tuple[float, ...]
    total_variation: float | None
    chi_square: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Figures of the gradings made from `since` on, before `until`.

    statuses: how many of each. gradable_rate: share of the photographs that are eyes which got a grade. grades: counts
    in order. referable_rate: share of the graded ones. Rates are 0..1, null without photographs.
    """

    since: datetime.date | None
    until: datetime.date | None
    gradings: int
    statuses: dict[str, int]
    gradable_rate: float | None
    grades: tuple[int, ...]
    referable_rate: float | None
    agreement: Agreement
    drift: Drift


def statistics_of(
    session: Session,
    training: Sequence[int],
    *,
    since: datetime.date | None = None,
    until: datetime.date | None = None,
    bundle: str | None = None,
) -> Statistics:
    """Return the figures.

    training: how many photographs of each grade the bundle learned from. bundle: the identity of the one whose gradings
    are counted, earlier ones too; None for all, where each photograph counts once, by its latest grading.
    """
    bounds = bounds_of(since=since, until=until, bundle=bundle)
    columns = GradingRecord.status, GradingRecord.grade, GradingRecord.referable
    statuses = dict.fromkeys((status.value for status in Status), 0)
    grades, referable = [0] * len(GRADES), 0
    for status, grade, is_referable, count in session.execute(
        select(*columns, func.count()).where(*bounds).group_by(*columns)
    ):
        statuses[status] += count
        if grade is not None:
            grades[grade] += count
        referable += count if is_referable else 0
    graded = statuses[Status.GRADED]
    return Statistics(
        since=since,
        until=until,
        gradings=sum(statuses.values()),
        statuses=statuses,
        gradable_rate=_share(graded, graded + statuses[Status.UNGRADABLE]),
        grades=tuple(grades),
        referable_rate=_share(referable, graded),
        agreement=_agreement(session, bounds),
        drift=drift_of(grades, training),
    )


def bounds_of(
    *, since: datetime.date | None = None, until: datetime.date | None = None, bundle: str | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions that gradings are counted by; None asks for none of a date, and for what counts."""
    bounds = [is_current() if bundle is None else GradingRecord.bundle == bundle]
    if since is not None:
        bounds.append(GradingRecord.created >= _midnight(since))
    if until is not None:
        bounds.append(GradingRecord.created < _midnight(until))
    return bounds


def _agreement(session: Session, bounds: Sequence[ColumnElement[bool]]) -> Agreement:
    place = func.row_number().over(
        partition_by=ReadingRecord.grading, order_by=(ReadingRecord.created.desc(), ReadingRecord.id.desc())
    )
    readings = select(ReadingRecord.grading, ReadingRecord.grade, place.label("place")).subquery()
    statement = (
        select(readings.c.grade, GradingRecord.grade, func.count())
        .join(GradingRecord, GradingRecord.id == readings.c.grading)
        .where(readings.c.place == 1, *bounds)
        .group_by(readings.c.grade, GradingRecord.grade)
    )
    counts, total, agreed = np.zeros((len(GRADES), len(GRADES)), np.int64), 0, 0
    for reader, machine, count in session.execute(statement):
        total += count
        agreed += count if reader == machine else 0
        if reader is not None and machine is not None:
            counts[reader, machine] += count
    kappa = quadratic_kappa_of(counts)
    return Agreement(
        gradings=total,
        agreed=agreed,
        rate=_share(agreed, total),
        quadratic_kappa=None if math.isnan(kappa) else kappa,
        confusion=tuple(tuple(row) for row in counts.tolist()),
    )


def drift_of(grades: Sequence[int], training: Sequence[int]) -> Drift:
    """Return how a mix of grades differs from the one learned from; both are counts in order."""
    observed, learned = np.array(grades, float), np.array(training, float)
    total = observed.sum()
    shares = learned / max(learned.sum(), 1)
    if total == 0 or learned.sum() == 0:
        return Drift(training=tuple(shares.tolist()), total_variation=None, chi_square=None, p_value=None)
    variation = float(np.abs(observed / total - shares).sum() / 2)
    if not shares.all():
        return Drift(training=tuple(shares.tolist()), total_variation=variation, chi_square=None, p_value=None)
    expected = shares * total
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    # The upper tail of chi-square with 4 degrees of freedom (Abramowitz and Stegun 26.4.5).
    p_value = math.exp(-chi_square / 2) * (1 + chi_square / 2)
    return Drift(
        training=tuple(shares.tolist()), total_variation=variation, chi_square=chi_square, p_value=min(p_value, 1.0)
    )


def _midnight(day: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
