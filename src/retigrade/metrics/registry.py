"""Every named metric of predictions on labelled photographs: the one list that tables, plots, cards and JSON read.

To add one, add it to `METRICS`; to show it, name its key in the list of the table that is to show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from retigrade.arrays import Flags, Grades, Integers, Reals
from retigrade.metrics import classification
from retigrade.metrics.bootstrap import Bootstrap, settled
from retigrade.metrics.calibration import brier, expected_calibration_error, negative_log_likelihood
from retigrade.metrics.estimate import Estimate


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """Predictions on n labelled photographs.

    probabilities: floats (n, 5), rows sum to 1. predicted, target: integers (n,) of 0..4. referred: bool (n,), whether
    each is called referable. prediction_set: bool (n, 5), or None where there are no sets.
    """

    probabilities: Reals
    predicted: Grades
    target: Grades
    referred: Flags
    prediction_set: Flags | None = None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Integers | Flags) -> Sample:
        """Those at these positions, int64 (k,), or that are flagged, bool (n,)."""
        sets = self.prediction_set
        return Sample(
            probabilities=self.probabilities[rows],
            predicted=self.predicted[rows],
            target=self.target[rows],
            referred=self.referred[rows],
            prediction_set=None if sets is None else sets[rows],
        )

    @cached_property
    def counts(self) -> Integers:
        """Confusion matrix int64 (5, 5), rows target and columns predicted."""
        return classification.confusion(self.target, self.predicted)

    @cached_property
    def rates(self) -> classification.Rates:
        """Rates of each grade against the rest."""
        return classification.rates(self.counts)

    @cached_property
    def confidence(self) -> Reals:
        """The probability of the predicted grade, float64 (n,)."""
        return np.asarray(self.probabilities[np.arange(len(self)), self.predicted])

    @cached_property
    def correct(self) -> Flags:
        """Whether the predicted grade is the true one, bool (n,)."""
        return np.asarray(self.predicted == self.target)

    @cached_property
    def referable(self) -> Flags:
        """Whether the true grade is referable, bool (n,)."""
        return classification.is_referable(self.target)

    @cached_property
    def covered(self) -> Flags:
        """Whether the prediction set holds the true grade, bool (n,); all False without sets."""
        sets = self.prediction_set
        return np.zeros(len(self), bool) if sets is None else np.asarray(sets[np.arange(len(self)), self.target])


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A named figure of a sample.

    title: as a row is called; short: as a column is. function: nan where it is not defined. trials: of a share, those
    that it is a share of. pivotal: resampling biases it, see `Bootstrap.estimates`.
    """

    key: str
    title: str
    short: str
    function: Callable[[Sample], float]
    trials: Callable[[Sample], Flags] | None = None
    pivotal: bool = False


def _all(sample: Sample) -> Flags:
    return np.ones(len(sample), bool)


def _share(flags: Flags, among: Flags) -> float:
    return float(flags[among].mean()) if among.any() else float("nan")


_METRICS = (
    Metric(
        key="accuracy",
        title="accuracy",
        short="accuracy",
        function=lambda s: classification.accuracy(s.target, s.predicted),
        trials=_all,
    ),
    Metric(
        key="quadratic_kappa",
        title="quadratic weighted kappa",
        short="QWK",
        function=lambda s: classification.quadratic_kappa_of(s.counts),
    ),
    Metric(
        key="balanced_accuracy",
        title="balanced accuracy",
        short="balanced accuracy",
        function=lambda s: s.rates.macro()["sensitivity"],
    ),
    Metric(key="macro_f1", title="macro F1", short="macro F1", function=lambda s: s.rates.macro()["f1"]),
    Metric(
        key="weighted_f1",
        title="F1 weighted by support",
        short="weighted F1",
        function=lambda s: s.rates.weighted()["f1"],
    ),
    Metric(
        key="off_by_two",
        title="two or more stages off",
        short="two off",
        function=lambda s: classification.off_by_two(s.target, s.predicted),
        trials=_all,
    ),
    Metric(
        key="referable_auroc",
        title="referable AUROC",
        short="referable AUROC",
        function=lambda s: classification.auroc(classification.p_referable(s.probabilities), s.referable),
    ),
    Metric(
        key="any_auroc",
        title="none-vs-any AUROC",
        short="none-vs-any AUROC",
        function=lambda s: classification.auroc(classification.p_any(s.probabilities), s.target > 0),
    ),
    Metric(
        key="referable_sensitivity",
        title="referable sensitivity, at the point in use",
        short="referable sensitivity",
        function=lambda s: _share(s.referred, s.referable),
        trials=lambda s: s.referable,
    ),
    Metric(
        key="referable_specificity",
        title="referable specificity, at the point in use",
        short="referable specificity",
        function=lambda s: _share(~s.referred, ~s.referable),
        trials=lambda s: ~s.referable,
    ),
    Metric(
        key="referable_precision",
        title="referable precision, at the point in use",
        short="referable precision",
        function=lambda s: _share(s.referable, s.referred),
        trials=lambda s: s.referred,
    ),
    Metric(
        key="ece",
        title="expected calibration error, 15 equal-mass bins",
        short="ECE",
        function=lambda s: expected_calibration_error(s.confidence, s.correct),
        pivotal=True,
    ),
    Metric(key="brier", title="Brier score", short="Brier", function=lambda s: brier(s.probabilities, s.target)),
    Metric(
        key="nll",
        title="negative log-likelihood",
        short="NLL",
        function=lambda s: negative_log_likelihood(s.probabilities, s.target),
    ),
    Metric(
        key="coverage",
        title="coverage of the prediction sets",
        short="coverage",
        function=lambda s: float("nan") if s.prediction_set is None else _share(s.covered, _all(s)),
        trials=_all,
    ),
    Metric(
        key="set_size",
        title="mean size of the prediction sets",
        short="set size",
        function=lambda s: (
            float(s.prediction_set.sum(axis=1).mean()) if s.prediction_set is not None and len(s) else float("nan")
        ),
    ),
)

AT_OPERATING_POINT = ("referable_sensitivity", "referable_specificity", "referable_precision")
"""The keys of those that depend on the operating point in use."""
METRICS: Mapping[str, Metric] = MappingProxyType({metric.key: metric for metric in _METRICS})
"""By key."""


def measure(sample: Sample, keys: Iterable[str], *, groups: Integers, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The metrics with these keys, each with its 95 % interval, all from the same resamples of whole groups (n,).

    Never fails for few photographs or a single grade: what is undefined has no value.
    """
    metrics = [METRICS[key] for key in keys]
    if not len(sample):
        return {metric.key: Estimate.of(float("nan")) for metric in metrics}

    def figures(rows: Integers) -> Reals:
        drawn = sample.take(rows)
        return np.array([metric.function(drawn) for metric in metrics])

    pivotal = np.array([metric.pivotal for metric in metrics], bool)
    estimates = bootstrap.estimates(figures, np.arange(len(sample)), groups=groups, pivotal=pivotal)
    return {
        metric.key: estimate if metric.trials is None else settled(estimate, groups=groups[metric.trials(sample)])
        for metric, estimate in zip(metrics, estimates, strict=True)
    }


def at_operating_point(sample: Sample, threshold: float) -> Sample:
    """The same photographs, referred from another threshold on, 0..1."""
    score = classification.referral_score(sample.probabilities, sample.predicted)
    return replace(sample, referred=score >= threshold)
