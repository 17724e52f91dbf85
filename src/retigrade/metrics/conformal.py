"""Prediction sets: the run of grades around the most probable one that holds the true grade as often as promised.

Grades are tried from the most probable outwards, always next the more probable neighbour, so a set is contiguous (Lu,
Angelopoulos and Pomerantz 2022, ordinal adaptive prediction sets). The nonconformity score of a grade is the
probability already held by the grades tried before it: 0 for the most probable one. The promise holds for photographs
that are like those of validation.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from retigrade.arrays import Flags, Grades, Reals
from retigrade.icdr import GRADES, Grade
from retigrade.metrics.classification import check_probabilities
from retigrade.metrics.decision import Fraction
from retigrade.metrics.estimate import Record


class Conformal(Record):
    """How probabilities become a prediction set, so that these hold the true grade with `coverage`.

    quantile: the nonconformity score up to which a grade is in the set.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    quantile: Fraction

    def prediction_set(self, probabilities: Reals, grade: Grade) -> tuple[Grade, ...]:
        """Return the prediction set of one photo in order: contiguous, with the predicted `grade` in it."""
        members = prediction_sets(probabilities[None], self.quantile)
        members[0, grade] = True
        return tuple(Grade(place) for place in np.flatnonzero(contiguous(members)[0]).tolist())


def prediction_sets(probabilities: Reals, quantile: float) -> Flags:
    """Which grades are in the set, bool (N, 5): contiguous, with at least the most probable grade.

    probabilities: floats (N, 5), rows sum to 1. quantile: 0 and up; 1 puts every grade in.
    """
    return np.asarray(nonconformity_scores(probabilities) <= quantile)


def contiguous(prediction_set: Flags) -> Flags:
    """Fill what lies between the first and the last grade of each set, bool (N, 5)."""
    reached = np.maximum.accumulate(prediction_set, axis=1)
    to_come = np.maximum.accumulate(prediction_set[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(reached & to_come)


def nonconformity_scores(probabilities: Reals) -> Reals:
    """Score of every grade, float64 (N, 5) of 0..1: the probability held by the grades tried before it."""
    p = probabilities.astype(np.float64)
    rows = np.arange(len(p))
    low = high = p.argmax(axis=1)
    held = p[rows, low]
    out = np.zeros(p.shape)
    padded = np.pad(p, ((0, 0), (1, 1)), constant_values=-1.0)
    for _ in GRADES[1:]:
        below, above = padded[rows, low], padded[rows, high + 2]
        down = below >= above
        low, high = np.where(down, low - 1, low), np.where(down, high, high + 1)
        added = np.where(down, low, high)
        out[rows, added] = np.minimum(held, 1.0)
        held = held + p[rows, added]
    return out


def conformal_quantile(probabilities: Reals, target: Grades, coverage: float, *, weights: Reals | None = None) -> float:
    """The score up to which a grade is in the set, so that new photographs' sets hold the true one with `coverage`.

    probabilities: floats (N, 5) of validation photographs; target: integers (N,) of 0..4; coverage: between 0 and 1.
    It is the ceil((N + 1) coverage)-th smallest score of a true grade (Vovk, Gammerman and Shafer 2005), or 1, which
    puts every grade in, where the photographs are too few to promise more. weights: floats (N,), how much each
    photograph counts, None counts all alike; a new one then counts as much as their mean (Tibshirani et al. 2019).
    Raises ValueError on a coverage outside 0..1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    check_probabilities(probabilities, target)
    scores = nonconformity_scores(probabilities)[np.arange(target.size), target]
    if weights is None or not scores.size:
        weights = np.ones(scores.size)
    ascending = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[ascending]) / weights.mean() if scores.size else scores
    rank = int(np.searchsorted(reached, (scores.size + 1) * coverage - 1e-9))
    return 1.0 if rank >= scores.size else float(scores[ascending[rank]])
