"""A measured number with its interval, and the strict record in which files keep such numbers."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from retigrade.arrays import Integers, Reals


class Record(BaseModel):
    """A frozen piece of a file that refuses unknown keys, infinities and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(Record):
    """A figure with its 95 % interval.

    value: None where the figure is not defined. low, high: None where no interval can be given; otherwise
    low <= value <= high.
    """

    value: float | None
    low: float | None
    high: float | None

    @model_validator(mode="after")
    def _contain(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.value is None and self.low is not None):
            raise ValueError("an interval has two ends and a value between them")
        if self.value is None or self.low is None or self.high is None or self.low <= self.value <= self.high:
            return self
        raise ValueError(f"{self.value} lies outside its interval {self.low} to {self.high}")

    @classmethod
    def of(cls, value: float, low: float = math.nan, high: float = math.nan) -> Self:
        """Make one from plain floats, nan where something is not defined."""
        defined = not (math.isnan(value) or math.isnan(low) or math.isnan(high))
        return cls(
            value=None if math.isnan(value) else float(value),
            low=float(low) if defined else None,
            high=float(high) if defined else None,
        )

    @classmethod
    def proportion(cls, value: float, trials: int) -> Self:
        """A share of `trials` independent trials with Wilson's interval; not defined where there are none."""
        if not trials or math.isnan(value):
            return cls(value=None, low=None, high=None)
        low, high = (float(end[0]) for end in wilson(np.array([value * trials]), np.array([trials])))
        return cls(value=float(value), low=min(low, value), high=max(high, value))

    @property
    def number(self) -> float:
        """The value alone, nan where it is not defined."""
        return math.nan if self.value is None else self.value

    def __format__(self, spec: str) -> str:
        """As in `0.912 (0.887-0.934)`, each number by `spec`, by default with three decimals; `not defined`."""
        if self.value is None:
            return "not defined"
        value, low, high = (
            None if number is None else format(number, spec or ".3f") for number in (self.value, self.low, self.high)
        )
        return f"{value}" if low is None else f"{value} ({low}-{high})"

    def __str__(self) -> str:
        return format(self)


def wilson(successes: Reals, trials: Integers) -> tuple[Reals, Reals]:
    """95 % interval of a proportion (Wilson 1927); trials above 0, any equal shapes."""
    z = 1.959963984540054
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return np.maximum(0.0, (centre - half) / scale), np.minimum(1.0, (centre + half) / scale)
