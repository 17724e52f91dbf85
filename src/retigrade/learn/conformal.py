"""Fit the sets of possible grades, so that they hold the true one as often as promised.

The promise holds for photographs that are like those of validation; `retigrade.possible` makes the sets.
"""

from __future__ import annotations

import math

import numpy as np

from retigrade.learn.metrics import Grades, K, Reals, check_probabilities
from retigrade.possible import scores


def conformal_threshold(probabilities: Reals, truth: Grades, coverage: float) -> float:
    """The score up to which a grade is possible, so that new photographs' sets hold the truth with `coverage`.

    probabilities: floats (N, 5) of validation photographs; truth: integers (N,) of 0..4; coverage: between 0 and 1.
    1, which makes every grade possible, where the photographs are too few to promise more. Raises ValueError on a
    coverage outside 0..1.
    """
    _check_coverage(coverage)
    check_probabilities(probabilities, truth)
    return _quantile(scores(probabilities)[np.arange(truth.size), truth], coverage)


def conformal_thresholds_per_grade(probabilities: Reals, truth: Grades, coverage: float) -> Reals:
    """As `conformal_threshold`, but the promise holds within each true grade (Vovk 2012): float64 (5,)."""
    _check_coverage(coverage)
    check_probabilities(probabilities, truth)
    own = scores(probabilities)[np.arange(truth.size), truth]
    return np.array([_quantile(own[truth == grade], coverage) for grade in range(K)])


def _quantile(own: Reals, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest score (Vovk, Gammerman and Shafer 2005)."""
    rank = math.ceil((own.size + 1) * coverage - 1e-9)
    return 1.0 if rank > own.size else float(np.sort(own)[rank - 1])


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
