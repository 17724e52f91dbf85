"""Fit the sets of possible grades, so that they hold the true one as often as promised.

The promise holds for photographs that are like those of validation; `retigrade.metrics.prediction_sets` makes the sets.
"""

from __future__ import annotations

import math

import numpy as np

from retigrade.arrays import Grades, Reals
from retigrade.metrics.classification import check_probabilities
from retigrade.metrics.prediction_sets import scores


def conformal_quantile(probabilities: Reals, target: Grades, coverage: float) -> float:
    """The score up to which a grade is possible, so that new photographs' sets hold the truth with `coverage`.

    probabilities: floats (N, 5) of validation photographs; truth: integers (N,) of 0..4; coverage: between 0 and 1.
    It is the ceil((N + 1) coverage)-th smallest score of a true grade (Vovk, Gammerman and Shafer 2005), or 1, which
    makes every grade possible, where the photographs are too few to promise more. Raises ValueError on a coverage
    outside 0..1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    check_probabilities(probabilities, target)
    own = np.sort(scores(probabilities)[np.arange(target.size), target])
    rank = math.ceil((own.size + 1) * coverage - 1e-9)
    return 1.0 if rank > own.size else float(own[rank - 1])
