"""How five probabilities become one grade, and one a referral: the rules that travel in a bundle."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from retigrade.arrays import Integers, Reals
from retigrade.icdr import GRADES, Grade
from retigrade.metrics.estimate import Estimate, Record

Fraction = Annotated[float, Field(ge=0, le=1)]
Rule = Literal["argmax", "median", "mean"]
Cuts = tuple[float, float, float, float]

PLAIN_CUTS: Cuts = (0.5, 1.5, 2.5, 3.5)


class Decision(Record):
    """How five probabilities become one grade.

    rule: `argmax`, the most probable grade, the milder on a tie; `median`, the first grade at which the cumulative
    probability reaches one half; `mean`, the number of `cuts` at or below the expected grade.
    cuts: four ascending expected grades, used by `mean` alone.
    """

    rule: Rule
    cuts: Cuts

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if any(low >= high for low, high in pairwise(self.cuts)):
            raise ValueError(f"the cuts must ascend, got {self.cuts}")
        return self

    def decide(self, probabilities: Reals) -> Grade:
        """Return the grade of one photo; probabilities: floats (5,), sum to 1."""
        return Grade(int(self.decide_all(probabilities[None])[0]))

    def decide_all(self, probabilities: Reals) -> Integers:
        """Return the grade of each row of probabilities (N, 5): int64 (N,)."""
        match self.rule:
            case "argmax":
                return np.asarray(probabilities.argmax(axis=1))
            case "median":
                return np.asarray((np.cumsum(probabilities, axis=1) >= 0.5).argmax(axis=1))
            case "mean":
                return np.asarray(np.searchsorted(self.cuts, expected_grade(probabilities), side="right"))


class OperatingPoint(Record):
    """A threshold on the probability of a referable stage, and what it reached on some photographs."""

    threshold: Fraction
    sensitivity: Estimate
    specificity: Estimate


def expected_grade(probabilities: Reals) -> Reals:
    """Mean of the grades weighted by their probabilities (N, 5), float64 (N,) of 0..4."""
    return np.asarray(probabilities.astype(np.float64) @ np.arange(len(GRADES)))


def spread(probabilities: Reals) -> Reals:
    """Variance of the grade under each row of probabilities (N, 5), float64 (N,).

    0 where the grade is certain, 4 where it is none or proliferative alike: doubt between far grades counts more.
    """
    p, grades = probabilities.astype(np.float64), np.arange(len(GRADES))
    return np.asarray((p * (grades - expected_grade(p)[:, None]) ** 2).sum(axis=1))


def needs_second_reader(probabilities: Reals, *, limit: float) -> bool:
    """Whether a second reader is advised: the probabilities (5,) are spread beyond `limit`, in squared grades.

    On validation photographs the most widely spread 15 % hold as many wrong stages as the 15 % with the least probable
    stage, and more than twice as many that are two or more stages off.
    """
    return bool(spread(probabilities[None])[0] > limit)


def softmax(logits: Reals, *, temperature: float = 1.0) -> Reals:
    """Probabilities float64 (N, 5) of logits (N, 5) divided by `temperature` (above 0).

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
