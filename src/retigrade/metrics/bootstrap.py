"""95 % intervals by resampling patients or duplicate groups as wholes (Efron and Tibshirani 1993)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Integers, Reals
from retigrade.metrics.estimate import Estimate

FEWEST_GROUPS = 10
"""Below so many independent groups no interval is given: a bootstrap of a handful is noise."""

Groups = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Resamples whole groups, the same for every figure of the same photographs: equal figures get equal intervals."""

    rounds: int = 1000
    seed: int = 0

    def estimate(
        self,
        metric: Callable[..., float],
        *arrays: npt.NDArray[Any],
        groups: Groups | None = None,
        pivotal: bool = False,
    ) -> Estimate:
        """`metric(*arrays)` with its interval; see `estimates`."""
        (estimate,) = self.estimates(lambda *parts: np.array([metric(*parts)]), *arrays, groups=groups, pivotal=pivotal)
        return estimate

    def estimates(
        self,
        metric: Callable[..., Reals],
        *arrays: npt.NDArray[Any],
        groups: Groups | None = None,
        pivotal: Flags | bool = False,
    ) -> tuple[Estimate, ...]:
        """Several figures (K,) at once, `metric(*arrays)`, with their intervals from the same resamples.

        arrays: each (N, ...), resampled together along the first axis; groups: (N,) of any type, equal for photographs
        of one patient or one duplicate group; None makes every photograph its own. pivotal: bool (K,) or for all:
        reflect the percentiles about the value, for a metric that resampling biases (calibration error).

        Resamples in which a figure is nan (a grade is missing) are left out of its interval. There is none where there
        are fewer than 10 groups, fewer than half of the resamples are defined, or all of them agree: then they cannot
        tell how sure the figure is. Otherwise an end that lies beyond the value is moved to it. Raises ValueError if
        lengths differ.
        """
        count = _common_length(arrays, groups)
        values = np.asarray(metric(*arrays), dtype=np.float64)
        order, starts, sizes = _members(np.arange(count) if groups is None else groups)
        if sizes.size < FEWEST_GROUPS:
            return tuple(Estimate.of(value) for value in values.tolist())
        rng = np.random.default_rng(self.seed)
        resampled = np.empty((self.rounds, values.size))
        for row in resampled:
            chosen = order[_draw(starts, sizes, rng)]
            row[:] = metric(*(array[chosen] for array in arrays))
        reflected = np.broadcast_to(np.asarray(pivotal, bool), values.shape).tolist()
        columns = zip(values.tolist(), resampled.T, reflected, strict=True)
        return tuple(_estimate(value, column, pivotal=pivot) for value, column, pivot in columns)

    def share(self, flags: Flags, *, among: Flags | None = None, groups: Integers) -> Estimate:
        """The share of `flags` (N,), of all or of those `among` (N,), with its interval.

        Where all are equal the interval is Wilson's, one trial a group.
        """
        counted = np.ones(flags.shape, bool) if among is None else among

        def mean(some: Flags, of: Flags) -> float:
            return float(some[of].mean()) if of.any() else math.nan

        return settled(self.estimate(mean, flags, counted, groups=groups), groups=groups[counted])


def settled(share: Estimate, *, groups: Groups) -> Estimate:
    """A share of 0 or 1, which no resample changes, with Wilson's interval, one trial a group; others as they are."""
    trials = len(np.unique(groups))
    if share.value not in (0.0, 1.0) or trials < FEWEST_GROUPS:
        return share
    return Estimate.proportion(share.value, trials)


def _common_length(arrays: tuple[npt.NDArray[Any], ...], groups: Groups | None) -> int:
    lengths = [len(array) for array in arrays] + ([] if groups is None else [len(groups)])
    if not arrays or len(set(lengths)) != 1:
        raise ValueError(f"arrays and groups must be of one length, got {lengths}")
    return lengths[0]


def _members(groups: Groups) -> tuple[Integers, Integers, Integers]:
    """Positions sorted by group, and where in that order each group starts and how many it has."""
    _, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes)
    return np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes, sizes


def _draw(starts: Integers, sizes: Integers, rng: np.random.Generator) -> Integers:
    """Positions of the members of as many groups as there are, drawn with replacement."""
    drawn = rng.integers(starts.size, size=starts.size)
    lengths = sizes[drawn]
    ends = np.cumsum(lengths)
    return np.repeat(starts[drawn] - (ends - lengths), lengths) + np.arange(ends[-1])


def _estimate(value: float, resampled: Reals, *, pivotal: bool) -> Estimate:
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value) or defined.size * 2 < resampled.size or np.ptp(defined) == 0:
        return Estimate.of(value)
    low, high = (float(end) for end in np.quantile(defined, (0.025, 0.975)))
    if pivotal:  # of a figure that is never negative
        low, high = max(0.0, 2 * value - high), 2 * value - low
    return Estimate.of(value, min(low, value), max(high, value))
