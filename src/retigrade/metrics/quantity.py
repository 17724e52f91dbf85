"""Measured numbers as they are kept in a file: validated, and with null where nothing can be said."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict

from retigrade.metrics.bootstrap import Estimate


class Part(BaseModel):
    """A frozen piece of a report that refuses unknown keys, infinities and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quantity(Part):
    """A figure and its 95 % interval; None where it is not defined, or too few groups give no interval."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Keep an estimate; nan becomes None."""
        return cls(value=number(estimate.value), low=number(estimate.low), high=number(estimate.high))

    def __str__(self) -> str:
        """Three decimals, as in `0.912 (0.887-0.934)`."""
        return self.shown(3)

    def shown(self, digits: int) -> str:
        """The value and its interval with so many decimals; `not defined` where there is no value."""
        if self.value is None:
            return "not defined"
        value = f"{self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return value
        return f"{value} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def number(value: float) -> float | None:
    """A plain float, or None for nan."""
    return None if math.isnan(value) else float(value)
