"""Ask for figures with their 95 % intervals, all from one generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retigrade.arrays import Flags, Integers, Reals
from retigrade.metrics.bootstrap import FEWEST_GROUPS, interval, intervals
from retigrade.metrics.estimate import Estimate, wilson

Column = Reals | Integers | Flags
"""(n,) or (n, ...), one entry a photograph."""


class Ask:
    """Asks for figures of photographs; `units` are their patients or duplicate groups, int64 (n,)."""

    def __init__(self, rng: np.random.Generator, *, rounds: int) -> None:
        """rounds: resamples of the bootstrap."""
        self.rng, self.rounds = rng, rounds

    def one(self, metric: Callable[..., float], *columns: Column, units: Integers) -> Estimate:
        """One figure of the columns, with its interval."""
        return interval(metric, *columns, groups=units, rng=self.rng, rounds=self.rounds)

    def several(self, metric: Callable[..., Reals], *columns: Column, units: Integers) -> list[Estimate]:
        """Several figures (K,) of the same resamples."""
        found = intervals(metric, *columns, groups=units, rng=self.rng, rounds=self.rounds)
        return list(found)

    def mean(self, values: Column, *, units: Integers) -> Estimate:
        """The mean of one column."""
        return self.one(_mean, values, units=units)

    def share(self, flags: Flags, *, units: Integers) -> Estimate:
        """The share of flags; where all are equal its interval is Wilson's, one trial a unit."""
        found = self.mean(flags, units=units)
        trials = len(np.unique(units))
        if found.value not in (0.0, 1.0) or trials < FEWEST_GROUPS:
            return found
        low, high = (float(end[0]) for end in wilson(found.value * np.array([trials]), np.array([trials])))
        return Estimate.of(found.value, min(low, found.value), max(high, found.value))


def _mean(values: Column) -> float:
    return float(values.mean()) if values.size else float("nan")
