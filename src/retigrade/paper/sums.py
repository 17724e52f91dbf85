"""The sums that the audit of the publication needs: exact where they can be, and honest about rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence


def chi_squared(counts: Sequence[int], reference: Sequence[int]) -> float:
    """Pearson's statistic of `counts` against the mix of `reference`, K - 1 degrees of freedom."""
    scale = sum(counts) / sum(reference)
    return sum((n - r * scale) ** 2 / (r * scale) for n, r in zip(counts, reference, strict=True))


def chi_squared_of_part(counts: Sequence[int], whole: Sequence[int]) -> float:
    """As `chi_squared`, for `counts` drawn from `whole` without putting back (hypergeometric variance).

    A part that is most of the whole must mirror it closely, so the statistic grows by (N - 1) / (N - n).
    """
    drawn, total = sum(counts), sum(whole)
    return chi_squared(counts, whole) * (total - 1) / (total - drawn)


def chi_squared_between(first: Sequence[int], second: Sequence[int]) -> float:
    """Pearson's statistic that two sets of counts have one mix, K - 1 degrees of freedom."""
    pooled = [a + b for a, b in zip(first, second, strict=True)]
    return chi_squared(first, pooled) + chi_squared(second, pooled)


def survival(statistic: float, *, freedom: int) -> float:
    """Chance that chi-squared exceeds `statistic`, for an even number of degrees of freedom (a finite sum)."""
    if freedom < 2 or freedom % 2:
        raise ValueError(f"this sum needs an even number of degrees of freedom, got {freedom}")
    half = statistic / 2
    return math.exp(-half) * sum(half**k / math.factorial(k) for k in range(freedom // 2))


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Mean of `values` weighted by `weights`."""
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def mean_of_rounded(values: Sequence[float], *, unit: float) -> tuple[float, float, float]:
    """Mean of values printed in steps of `unit`, and the least and greatest that it can have been before rounding."""
    mean = sum(values) / len(values)
    return mean, mean - unit / 2, mean + unit / 2


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two closed ranges (low, high) share a point; ends that differ by rounding of floats count as equal."""
    return first[0] <= second[1] + 1e-12 and second[0] <= first[1] + 1e-12


def reachable(percentage: float, photographs: int, *, decimals: int) -> bool:
    """Whether any whole number of correct photographs rounds to this accuracy (the GRIM test, Brown and Heathers 2017).

    A half may have been rounded either way.
    """
    half = 0.5 * 10.0**-decimals + 1e-9
    nearest = math.floor(percentage * photographs / 100)
    return any(abs(100 * k / photographs - percentage) <= half for k in (nearest, nearest + 1))


def least_overlap(whole: float, first: float, second: float) -> float:
    """How many photographs two parts of a set of `whole` must share at least."""
    return max(0.0, first + second - whole)


def highest_mean_f1(precision: float, recall: float) -> float:
    """The most that a mean of F1 over grades can be, given the same means of precision and recall.

    F1 = 2PR / (P + R) is concave, so its mean is at most its value at the means (Jensen); it can be far less.
    """
    return 2 * precision * recall / (precision + recall)
