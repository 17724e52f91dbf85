"""Whether probabilities mean what they say.

`confidence` is the probability of the predicted grade, floats (N,) of 0..1; `correct` is bool (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retigrade.arrays import Flags, Grades, Integers, Reals
from retigrade.metrics.classification import check_probabilities
from retigrade.metrics.estimate import wilson

SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityDiagram:
    """A reliability diagram: one entry for each bin that holds photographs, by rising confidence.

    confidence, accuracy: float64 (B,), means within the bin; low, high: Wilson 95 % interval of the accuracy;
    count: int64 (B,).
    """

    confidence: Reals
    accuracy: Reals
    low: Reals
    high: Reals
    count: Integers


def negative_log_likelihood(probabilities: Reals, target: Grades) -> float:
    """Mean of -log of the true grade's probability, that clipped at 1e-12; nan without photographs."""
    check_probabilities(probabilities, target)
    chosen = probabilities[np.arange(target.size), target].astype(np.float64)
    return float(-np.log(np.maximum(chosen, SMALLEST_PROBABILITY)).mean()) if target.size else math.nan


def brier(probabilities: Reals, target: Grades) -> float:
    """Mean squared distance between probabilities and the true grade's indicator, 0..2 (Brier 1950)."""
    check_probabilities(probabilities, target)
    distance = probabilities.astype(np.float64)
    distance[np.arange(target.size), target] -= 1.0
    return float((distance**2).sum(axis=1).mean()) if target.size else math.nan


def expected_calibration_error(confidence: Reals, correct: Flags, *, bins: int = 15, equal_mass: bool = True) -> float:
    """Mean over photographs of |accuracy - mean confidence| of their bin (Naeini et al. 2015), 0..1."""
    if not confidence.size:
        return math.nan
    means, accuracy, count = _binned(confidence, correct, bins=bins, equal_mass=equal_mass)
    return float(np.abs(accuracy - means) @ count / count.sum())


def calibration_error_by_chance(confidence: Reals, *, rng: np.random.Generator, rounds: int = 200) -> float:
    """The mean calibration error of as many photographs were each right with just its own confidence, 0..1.

    Few photographs a bin scatter about a perfect calibration; an error no larger than this is no evidence against one.
    """
    if not confidence.size:
        return math.nan
    right = rng.random((rounds, confidence.size)) < confidence
    return float(np.mean([expected_calibration_error(confidence, correct) for correct in right]))


def reliability(confidence: Reals, correct: Flags, *, bins: int = 15, equal_mass: bool = True) -> ReliabilityDiagram:
    """Accuracy against confidence, in `bins` bins of equal mass (or of equal width); empty bins are left out."""
    means, accuracy, count = _binned(confidence, correct, bins=bins, equal_mass=equal_mass)
    low, high = wilson(accuracy * count, count)
    return ReliabilityDiagram(means, accuracy, low, high, count)


def _binned(confidence: Reals, correct: Flags, *, bins: int, equal_mass: bool) -> tuple[Reals, Reals, Integers]:
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(f"need confidence and correct (N,), got {confidence.shape} and {correct.shape}")
    if bins < 1:
        raise ValueError(f"need at least one bin, got {bins}")
    if equal_mass:
        # Inner edges lie on values, so that ties share a bin and the order of the photographs does not matter.
        ordered = np.sort(confidence)
        edges = np.unique(ordered[np.arange(1, bins) * confidence.size // bins]) if confidence.size else ordered
        place = np.searchsorted(edges, confidence, side="right")
    else:
        place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    some = count > 0
    means = np.bincount(place, weights=confidence, minlength=bins)[some] / count[some]
    accuracy = np.bincount(place, weights=correct, minlength=bins)[some] / count[some]
    return means, accuracy, count[some]
