"""What is fitted on photographs that a network did not train on: temperature, decision, thresholds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Integers, Reals
from retigrade.heatmap import disease_evidence
from retigrade.metrics.classification import ThresholdRates, at_threshold, is_referable, referral_score
from retigrade.metrics.decision import Decision, OperatingPoint, softmax, spread
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.fitting import fit_decision, fit_temperature
from retigrade.training.export import ModelOutputs

SENSITIVITY, SPECIFICITY = 0.95, 0.90  # that screening is to reach
BALANCED = 0.85  # sensitivity and specificity that the balanced point is to reach
_SPECIFIC = 0.95  # specificity of the specific point
_DOUBTFUL = 0.15  # share of validation photographs for which a second reader is advised
_HOTTEST = 0.995  # quantile of the disease evidence that is shown as hottest


def equal_sources(sources: Integers | npt.NDArray[np.str_]) -> Reals:
    """How much each photograph counts so that every source weighs the same: float64 (N,), mean 1.

    sources: the name or number of each photograph's, (N,).

    A network that is to hold elsewhere must not be calibrated for whoever sent the most photographs.
    """
    _, position, photos = np.unique(sources, return_inverse=True, return_counts=True)
    return np.asarray(len(position) / len(photos) / photos[position])


def calibrate(outputs: ModelOutputs, grades: Integers, *, weights: Reals | None = None) -> tuple[float, Decision]:
    """The temperature, and the decision with the highest kappa at it; weights: (N,), how much each counts."""
    temperature = fit_temperature(outputs.logits, grades, weights=weights)
    probabilities = softmax(outputs.logits, temperature=temperature)
    return temperature, fit_decision(probabilities, grades, weights=weights)


def operating_points(
    probabilities: Reals,
    decision: Decision,
    grades: Integers,
    *,
    weights: Reals | None = None,
    groups: Integers | None = None,
    sources: Integers | npt.NDArray[np.str_] | None = None,
) -> dict[str, OperatingPoint]:
    """Named thresholds on the probability of a referable stage; none where photographs are of one class only.

    screening: reaches the sensitivity of 0.95, and is as far as can be, in standard errors, from missing either it or
    the specificity of 0.90 on other photographs; not above balanced. balanced: is as far as can be, in standard
    errors, from missing a sensitivity or a specificity of 0.85 in any source; rates over all sources hide the one whose
    eyes are hard to tell, and the highest sum of both (Youden 1950) may give away much of one for a little of the
    other. specific: the highest sensitivity at a specificity of 0.95, or the highest specificity. A photo whose stage
    by `decision` is referable is referred at every threshold. weights: (N,), how much each photograph counts; None
    counts all alike. groups: (N,), equal where photographs are of one patient or duplicates, which are one piece of
    evidence; None for all apart. sources: the name or number of each photograph's, (N,); None for a single one.
    """
    weights = np.ones(len(grades)) if weights is None else weights
    groups = np.arange(len(grades)) if groups is None else groups
    score, referable = referral_score(probabilities, decision.decide_all(probabilities)), is_referable(grades)
    if not referable.any() or referable.all():
        return {}
    points = [at_threshold(score, referable, float(threshold), weights=weights) for threshold in np.unique(score)]
    sick, healthy = (_effective(weights[flags], groups[flags]) for flags in (referable, ~referable))
    of_source = [np.full(len(grades), True)] if sources is None else [sources == name for name in np.unique(sources)]
    kinds = [part for here in of_source for part in (here & referable, here & ~referable) if part.any()]
    evidence = [_effective(weights[part], groups[part]) for part in kinds]

    def room_of_screening(point: ThresholdRates) -> tuple[float, float]:
        rooms = _room(point.sensitivity, SENSITIVITY, sick), _room(point.specificity, SPECIFICITY, healthy)
        return min(rooms), point.specificity

    def least_room(point: ThresholdRates) -> tuple[float, float]:
        right = (score >= point.threshold) == referable
        reached = [float(np.average(right[part], weights=weights[part])) for part in kinds]
        return min(_room(share, BALANCED, n) for share, n in zip(reached, evidence, strict=True)), point.specificity

    balanced = max(points, key=least_room)
    reaching = [point for point in points if point.sensitivity >= SENSITIVITY and point.threshold <= balanced.threshold]
    chosen = {
        "screening": max(reaching, key=room_of_screening),
        "balanced": balanced,
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


def _effective(weights: Reals, groups: Integers) -> int:
    """Of how many groups that count alike a weighted share is as certain (Kish 1965)."""
    of_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights)
    return round(float(of_group.sum() ** 2 / (of_group**2).sum()))


def _room(reached: float, wanted: float, photos: int) -> float:
    """How many of its standard errors a share lies above the wanted one."""
    return (reached - wanted) * math.sqrt(photos / (wanted * (1 - wanted)))


def second_reader_spread(probabilities: Reals) -> float:
    """The spread of probabilities (N, 5) beyond which a second reader is advised."""
    return float(np.quantile(spread(probabilities), 1 - _DOUBTFUL))


def cam_maximum(outputs: ModelOutputs, probabilities: Reals) -> float:
    """The disease evidence to show as hottest, one for all photographs."""
    pairs = zip(outputs.maps, probabilities, strict=True)
    return max(float(np.quantile([disease_evidence(maps, p) for maps, p in pairs], _HOTTEST)), 1e-3)
