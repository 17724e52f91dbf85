"""What a bundle says of itself: calibration and thresholds from validation photographs, figures from test ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from retigrade.arrays import Floats, Integers, Reals
from retigrade.heatmap import disease_evidence
from retigrade.metadata import Figure, OutOfDistributionDetector
from retigrade.metrics.bootstrap import summary
from retigrade.metrics.classification import ThresholdRates, at_threshold, is_referable, p_referable
from retigrade.metrics.decision import Decision, OperatingPoint, softmax, spread
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.fitting import fit_decision, fit_temperature
from retigrade.training.export import ModelOutputs

SENSITIVITY, SPECIFICITY = 0.95, 0.90  # that screening is to reach
_SPECIFIC = 0.95  # specificity of the specific point
_DOUBTFUL = 0.15  # share of validation photographs for which a second reader is advised
_HOT = 0.995  # quantile of the contrast that is shown as hottest
_COMPONENTS = 32
_STRANGE = 0.998  # quantile of the distances of known photographs, beyond which one is refused, with a margin
_MARGIN = 1.25
_SHOWN = (
    "accuracy",
    "quadratic_kappa",
    "referable_auroc",
    "any_auroc",
    "referable_sensitivity",
    "referable_specificity",
    "balanced_accuracy",
    "ece",
)


def calibrated(answers: ModelOutputs, grades: Integers) -> tuple[float, Decision]:
    """The temperature, and the decision with the highest kappa at it."""
    temperature = fit_temperature(answers.logits, grades)
    return temperature, fit_decision(softmax(answers.logits, temperature=temperature), grades)


def operating_points(probabilities: Reals, grades: Integers) -> dict[str, OperatingPoint]:
    """Named thresholds on the probability of a referable stage; none where photographs are of one kind only.

    screening: reaches the sensitivity of 0.95, and is as far as can be, in standard errors, from missing either it or
    the specificity of 0.90 on other photographs. balanced: the highest sum of both (Youden 1950). specific: the highest
    sensitivity at a specificity of 0.95.
    """
    score, referable = p_referable(probabilities), is_referable(grades)
    if not referable.any() or referable.all():
        return {}
    points = [at_threshold(score, referable, float(threshold)) for threshold in np.unique(score)]
    sick, healthy = int(referable.sum()), int((~referable).sum())

    def room(point: ThresholdRates) -> tuple[float, float]:
        sure, spared = _room(point.sensitivity, SENSITIVITY, sick), _room(point.specificity, SPECIFICITY, healthy)
        return min(sure, spared), point.specificity

    chosen = {
        "screening": max((point for point in points if point.sensitivity >= SENSITIVITY), key=room),
        "balanced": max(points, key=lambda point: point.sensitivity + point.specificity),
        "specific": next((point for point in points if point.specificity >= _SPECIFIC), points[-1]),
    }
    return {
        name: OperatingPoint(
            threshold=min(point.threshold, 1.0),
            sensitivity=Estimate.proportion(point.sensitivity, sick),
            specificity=Estimate.proportion(point.specificity, healthy),
        )
        for name, point in chosen.items()
    }


def _room(reached: float, wished: float, photos: int) -> float:
    """How many of its standard errors a share lies above the wished one."""
    return (reached - wished) * math.sqrt(photos / (wished * (1 - wished)))


def second_reader_spread(probabilities: Reals) -> float:
    """The spread of probabilities (N, 5) beyond which a second reader is advised."""
    return float(np.quantile(spread(probabilities), 1 - _DOUBTFUL))


def cam_maximum(answers: ModelOutputs, probabilities: Reals) -> float:
    """The disease evidence to show as hottest, one for all photographs."""
    pairs = zip(answers.maps, probabilities, strict=True)
    return max(float(np.quantile([disease_evidence(maps, p) for maps, p in pairs], _HOT)), 1e-3)


def fit_out_of_distribution(train: Floats, validation: Floats) -> OutOfDistributionDetector:
    """What features of photographs look like, learned on some, (n, C), and limited by others, (m, C)."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-3
    _, _, rows = np.linalg.svd((train - mean) / scale, full_matrices=False)
    fitted = OutOfDistributionDetector.pack(mean=mean, scale=scale, components=rows[:_COMPONENTS], limit=1.0)
    limit = float(np.quantile(fitted.distance(validation), _STRANGE)) * _MARGIN
    return fitted.model_copy(update={"limit": limit})


def figures(
    probabilities: Reals,
    decision: Decision,
    grades: Integers,
    *,
    sets: Mapping[str, Integers],
    groups: Integers,
    threshold: float,
    seed: int = 0,
) -> Iterator[Figure]:
    """The headline figures of each named set of photographs, with 95 % intervals resampled by group.

    probabilities: (N, 5); grades, groups: (N,); sets: positions among the N. Figures that so few photographs leave
    without an interval are left out.
    """
    predicted = decision.decide_all(probabilities)
    for name, chosen in sets.items():
        found = summary(
            probabilities[chosen],
            predicted[chosen],
            grades[chosen],
            groups=groups[chosen],
            threshold=threshold,
            rng=np.random.default_rng(seed),
        )
        for metric in _SHOWN:
            estimate: Estimate = getattr(found, metric)
            if estimate.low is not None:
                yield Figure(set=name, photos=len(chosen), graded=len(chosen), metric=metric, estimate=estimate)
