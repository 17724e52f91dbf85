"""95 % intervals by resampling patients or duplicate groups, and the headline figures of a set of photographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Grades, Integers, Reals
from retigrade.icdr import GRADES
from retigrade.metrics import classification as metrics
from retigrade.metrics.calibration import brier, expected_calibration_error, negative_log_likelihood
from retigrade.metrics.estimate import Estimate

FEWEST_GROUPS = 10
"""Below so many independent groups no interval is given: a bootstrap of a handful is noise."""

Groups = npt.NDArray[Any]


def interval(
    metric: Callable[..., float],
    *arrays: npt.NDArray[Any],
    groups: Groups | None = None,
    rng: np.random.Generator,
    rounds: int = 1000,
    pivotal: bool = False,
) -> Estimate:
    """`metric(*arrays)` with its 95 % bootstrap interval, whole groups resampled (Efron and Tibshirani 1993).

    arrays: each (N, ...), resampled together along the first axis; groups: (N,) of any type, equal for
    photographs of one patient or one duplicate group; None makes every photograph its own.
    pivotal: reflect the percentiles about the value, for a metric that resampling biases (calibration error).

    Resamples in which the metric is nan (a grade is missing) are left out. low and high are nan where there are
    fewer than 10 groups, fewer than half of the resamples are defined, or all of them agree: then the
    resamples cannot tell how sure the figure is. Otherwise low <= value <= high: an end that lies beyond the value is
    moved to it. Raises ValueError if lengths differ.
    """
    estimates = intervals(
        lambda *parts: np.array([metric(*parts)]), *arrays, groups=groups, rng=rng, rounds=rounds, pivotal=pivotal
    )
    return estimates[0]


def intervals(
    metric: Callable[..., Reals],
    *arrays: npt.NDArray[Any],
    groups: Groups | None = None,
    rng: np.random.Generator,
    rounds: int = 1000,
    pivotal: bool = False,
) -> tuple[Estimate, ...]:
    """As `interval`, for a metric that returns several figures (K,) at once; all share the same resamples."""
    count = _common_length(arrays, groups)
    values = np.asarray(metric(*arrays), dtype=np.float64)
    order, starts, sizes = _members(np.arange(count) if groups is None else groups)
    if sizes.size < FEWEST_GROUPS:
        return tuple(Estimate.of(float(value)) for value in values)
    resampled = np.empty((rounds, values.size))
    for row in resampled:
        chosen = order[_draw(starts, sizes, rng)]
        row[:] = metric(*(array[chosen] for array in arrays))
    return tuple(
        _estimate(float(value), column, pivotal=pivotal) for value, column in zip(values, resampled.T, strict=True)
    )


def _common_length(arrays: tuple[npt.NDArray[Any], ...], groups: Groups | None) -> int:
    lengths = [len(array) for array in arrays] + ([] if groups is None else [len(groups)])
    if not arrays or len(set(lengths)) != 1:
        raise ValueError(f"arrays and groups must be of one length, got {lengths}")
    return lengths[0]


def _members(groups: Groups) -> tuple[Integers, Integers, Integers]:
    """Positions sorted by group, and where in that order each group starts and how many it has."""
    _, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes)
    return np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes, sizes


def _draw(starts: Integers, sizes: Integers, rng: np.random.Generator) -> Integers:
    """Positions of the members of as many groups as there are, drawn with replacement."""
    drawn = rng.integers(starts.size, size=starts.size)
    lengths = sizes[drawn]
    ends = np.cumsum(lengths)
    return np.repeat(starts[drawn] - (ends - lengths), lengths) + np.arange(ends[-1])


def _estimate(value: float, resampled: Reals, *, pivotal: bool) -> Estimate:
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value) or defined.size * 2 < resampled.size or np.ptp(defined) == 0:
        return Estimate.of(value)
    low, high = (float(end) for end in np.quantile(defined, (0.025, 0.975)))
    if pivotal:
        low, high = 2 * value - high, 2 * value - low
    return Estimate.of(value, min(low, value), max(high, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Every headline figure of one set of photographs, each with its 95 % interval.

    support: photographs of each grade. confusion: rows true, columns decided. precision, recall and f1 are means
    weighted by support, as the publication's Table 4; the macro figures weigh grades equally. recall_per_grade and
    auroc_per_grade run from grade 0 to 4. referable_sensitivity and referable_specificity hold at `threshold`.
    """

    photos: int
    groups: int
    threshold: float
    support: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    accuracy: Estimate
    quadratic_kappa: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    macro_precision: Estimate
    macro_specificity: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    off_by_two: Estimate
    referable_auroc: Estimate
    referable_sensitivity: Estimate
    referable_specificity: Estimate
    any_auroc: Estimate
    macro_auroc: Estimate
    brier: Estimate
    nll: Estimate
    ece: Estimate
    recall_per_grade: tuple[Estimate, ...]
    auroc_per_grade: tuple[Estimate, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; an Estimate becomes {value, low, high}, and nan becomes None."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def summary(
    probabilities: Reals,
    predicted: Grades,
    target: Grades,
    *,
    groups: Groups | None = None,
    threshold: float = 0.5,
    rng: np.random.Generator,
    rounds: int = 1000,
) -> Headline:
    """Every headline figure for photographs with known grades, with 95 % intervals resampled by group.

    probabilities: floats (N, 5), rows sum to 1; decided, truth: integers (N,) of 0..4; groups: (N,), equal for
    photographs of one patient or duplicate group; threshold: on the probability of grade >= 2.
    Never fails for few photographs or a single grade: what is undefined is nan. Raises ValueError on arrays that
    do not fit each other or hold no photograph.
    """
    metrics.check_probabilities(probabilities, target)
    counts = metrics.confusion(target, predicted)
    if not target.size:
        raise ValueError("a summary needs at least one photograph, got none")

    def figures(p: Reals, d: Grades, t: Grades) -> Reals:
        return _figures(p, d, t, threshold)

    def calibration(p: Reals, d: Grades, t: Grades) -> float:
        return expected_calibration_error(p[np.arange(len(d)), d], d == t)

    found = intervals(figures, probabilities, predicted, target, groups=groups, rng=rng, rounds=rounds)
    ece = interval(calibration, probabilities, predicted, target, groups=groups, rng=rng, rounds=rounds, pivotal=True)
    named = dict(zip(_SINGLE, found, strict=False))
    per_grade = found[len(_SINGLE) :]
    return Headline(
        photos=int(target.size),
        groups=int(target.size if groups is None else np.unique(groups).size),
        threshold=threshold,
        support=tuple(int(n) for n in counts.sum(axis=1)),
        confusion=tuple(tuple(int(n) for n in row) for row in counts),
        ece=ece if ece.low is None else ece.model_copy(update={"low": max(0.0, ece.low)}),
        recall_per_grade=per_grade[: len(GRADES)],
        auroc_per_grade=per_grade[len(GRADES) :],
        **named,
    )


_SINGLE = (
    "accuracy",
    "quadratic_kappa",
    "balanced_accuracy",
    "macro_f1",
    "macro_precision",
    "macro_specificity",
    "precision",
    "recall",
    "f1",
    "off_by_two",
    "referable_auroc",
    "referable_sensitivity",
    "referable_specificity",
    "any_auroc",
    "macro_auroc",
    "brier",
    "nll",
)


def _figures(probabilities: Reals, predicted: Grades, target: Grades, threshold: float) -> Reals:
    """The figures named in `_SINGLE`, then recall and AUROC of each grade."""
    counts = metrics.confusion(target, predicted)
    rates = metrics.rates(counts)
    macro, weighted = rates.macro(), rates.weighted()
    referable = metrics.is_referable(target)
    score = metrics.p_referable(probabilities)
    point = metrics.at_threshold(score, referable, threshold)
    aurocs = metrics.auroc_per_grade(probabilities, target)
    single = (
        metrics.accuracy(target, predicted),
        metrics.quadratic_kappa_of(counts),
        macro["sensitivity"],
        macro["f1"],
        macro["precision"],
        macro["specificity"],
        weighted["precision"],
        weighted["sensitivity"],
        weighted["f1"],
        metrics.off_by_two(target, predicted),
        metrics.auroc(score, referable),
        point.sensitivity,
        point.specificity,
        metrics.auroc(metrics.p_any(probabilities), target > 0),
        metrics.mean_defined(aurocs),
        brier(probabilities, target),
        negative_log_likelihood(probabilities, target),
    )
    return np.concatenate([single, rates.sensitivity, aurocs])


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.model_dump()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
