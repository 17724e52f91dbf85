"""Whether probabilities mean what they say, and what is fitted on validation so that they do.

`confidence` is the probability of the decided grade, floats (N,) of 0..1; `correct` is bool (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retigrade.arrays import Flags, Grades, Integers, Reals
from retigrade.metrics.classification import check_probabilities

SMALLEST_PROBABILITY = 1e-12
TEMPERATURES = (0.1, 10.0)
"""The range searched: outside it the validation grades are separated or pure noise, and no temperature helps."""


_NEWTON_STEPS = 20  # the problem is convex; half as many are enough


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """A reliability diagram: one entry for each bin that holds photographs, by rising confidence.

    confidence, accuracy: float64 (B,), means within the bin; low, high: Wilson 95 % interval of the accuracy;
    count: int64 (B,).
    """

    confidence: Reals
    accuracy: Reals
    low: Reals
    high: Reals
    count: Integers


def softmax(logits: Reals, *, temperature: float = 1.0) -> Reals:
    """Probabilities float64 (N, 5) of logits (N, 5) divided by `temperature` (above 0)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


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
    return float(np.mean([expected_calibration_error(confidence, one) for one in right]))


def reliability(confidence: Reals, correct: Flags, *, bins: int = 15, equal_mass: bool = True) -> Reliability:
    """Accuracy against confidence, in `bins` bins of equal mass (or of equal width); empty bins are left out."""
    means, accuracy, count = _binned(confidence, correct, bins=bins, equal_mass=equal_mass)
    low, high = wilson(accuracy * count, count)
    return Reliability(means, accuracy, low, high, count)


def wilson(successes: Reals, trials: Integers) -> tuple[Reals, Reals]:
    """95 % interval of a proportion (Wilson 1927); trials above 0, any equal shapes."""
    z = 1.959963984540054
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return np.maximum(0.0, (centre - half) / scale), np.minimum(1.0, (centre + half) / scale)


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


def fit_prior(logits: Reals, target: Grades, *, pull: float = 0.005) -> Reals:
    """Find what to add to the logits of each grade so that grades come as often as they are, float64 (5,), mean 0.

    Training draws rare grades more often than they occur, which shifts the logits (Saerens, Latinne and Decaestecker
    2002); the shift is the intercept that minimises the negative log-likelihood, `pull` drawing it towards 0.
    logits: floats (N, 5); truth: integers (N,) of 0..4. By Newton's method.
    """
    shift = np.zeros(logits.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = softmax(logits + shift)
        slope = (p - np.eye(logits.shape[1])[target]).mean(axis=0) + pull * shift
        curvature = np.diag(p.mean(axis=0)) - p.T @ p / len(p) + pull * np.eye(len(shift))
        shift = shift - np.linalg.solve(curvature, slope)
    return np.asarray(shift - shift.mean())


def fit_temperature(logits: Reals, target: Grades) -> float:
    """The temperature that makes logits (N, 5) most likely on validation (Guo et al. 2017), within 0.1..10.

    The loss is convex in 1/T, so it has one valley in log T and a golden-section search finds it.
    Raises ValueError without photographs or on logits that do not fit.
    """
    if not target.size:
        raise ValueError("a temperature needs at least one validation photograph, got none")
    check_probabilities(softmax(logits), target)

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / math.exp(log_temperature)
        peak = scaled.max(axis=1)
        total = np.log(np.exp(scaled - peak[:, None]).sum(axis=1)) + peak
        return float((total - scaled[np.arange(target.size), target]).mean())

    golden = (math.sqrt(5) - 1) / 2
    low, high = (math.log(end) for end in TEMPERATURES)
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)
