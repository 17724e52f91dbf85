"""Which grades are possible: a run around the most probable one, as long as a promised coverage needs it to be.

Grades are tried from the most probable outwards, always next the more probable neighbour, so a set is a run without
gaps (Lu, Angelopoulos and Pomerantz 2022, ordinal adaptive prediction sets). The score of a grade is the probability
already held by the grades tried before it: 0 for the most probable one.
"""

from __future__ import annotations

import numpy as np

from retigrade.arrays import Flags, Reals
from retigrade.icdr import GRADES


def prediction_sets(probabilities: Reals, threshold: float) -> Flags:
    """Which grades are possible, bool (N, 5): a run without gaps that holds at least the most probable grade.

    probabilities: floats (N, 5), rows sum to 1. threshold: 0 and up; 1 makes every grade possible.
    """
    return np.asarray(scores(probabilities) <= threshold)


def contiguous(prediction_set: Flags) -> Flags:
    """Fill what lies between the first and the last possible grade of each row, bool (N, 5)."""
    reached = np.maximum.accumulate(prediction_set, axis=1)
    to_come = np.maximum.accumulate(prediction_set[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(reached & to_come)


def scores(probabilities: Reals) -> Reals:
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
