"""Choose a bundle's threshold on a user's own labelled photographs, and say what it will cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retigrade.arrays import Flags, Integers
from retigrade.errors import DataError, UsageError
from retigrade.evaluation.predictions import Predictions
from retigrade.metadata import Metadata
from retigrade.metrics.classification import p_referable, threshold_for_sensitivity
from retigrade.metrics.decision import OperatingPoint
from retigrade.metrics.estimate import Estimate

TUNED = "tuned"
PEOPLE = 1000
_STEP = 1e-6  # thresholds are rounded down to it, so that another machine's last digits change nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A threshold, what it reached, and what to expect of it among 1000 people with a gradable photograph.

    missed: referable people who would not be referred; over_referred: people who would be and need not.
    refused: the share of the photographs that got no grade. referable, healthy: the photographs that chose it.
    """

    point: OperatingPoint
    prevalence: float
    missed: Estimate
    over_referred: Estimate
    refused: float
    referable: int
    healthy: int

    def metadata(self, metadata: Metadata) -> Metadata:
        """The card with this operating point, named `tuned`, as the default one."""
        points = {**metadata.operating_points, TUNED: self.point}
        return metadata.model_copy(update={"operating_points": points, "referable_threshold": self.point.threshold})


def tune(verdicts: Predictions, *, sensitivity: float, prevalence: float) -> Tuned:
    """Take the highest threshold whose sensitivity on the graded photographs is at least the wish.

    sensitivity: above 0, at most 1. prevalence: of referable retinopathy among the people to be screened, 0 to 1.
    Estimates are Wilson's, counting each patient or duplicate group once. Raises UsageError where the wish is out of
    range or cannot be met without referring everybody, DataError where a kind of photograph is absent.
    """
    if not 0 < sensitivity <= 1:
        raise UsageError(f"--sensitivity must lie above 0 and at most at 1, got {sensitivity:g}")
    if not 0 <= prevalence <= 1:
        raise UsageError(f"--prevalence must lie from 0 to 1, got {prevalence:g}")
    graded = verdicts.graded
    referable = graded.referable
    if not referable.any() or referable.all():
        lacking = "referable (moderate or worse)" if not referable.any() else "less than referable"
        raise DataError(
            f"a sensitivity of {sensitivity:g} cannot be met or checked: of {len(verdicts.gradings)} photographs "
            f"{len(graded)} were graded and none is {lacking}; add some"
        )
    score = p_referable(graded.probabilities)
    threshold = math.floor(threshold_for_sensitivity(score, referable, sensitivity) / _STEP) * _STEP
    called = score >= threshold
    if called.all():
        raise UsageError(
            f"a sensitivity of {sensitivity:g} cannot be met: only by referring all {len(graded)} graded photographs; "
            "ask for less, or train on photographs like these"
        )
    caught = _share(called[referable], graded.units[referable])
    spared = _share(~called[~referable], graded.units[~referable])
    return Tuned(
        point=OperatingPoint(threshold=min(round(threshold, 6), 1.0), sensitivity=caught, specificity=spared),
        prevalence=prevalence,
        missed=_people(caught, prevalence),
        over_referred=_people(spared, 1 - prevalence),
        refused=1 - len(graded) / len(verdicts.gradings),
        referable=int(referable.sum()),
        healthy=int((~referable).sum()),
    )


def _share(flags: Flags, units: Integers) -> Estimate:
    """The share of flags; its interval is as wide as if each unit had one photograph, and never degenerate."""
    return Estimate.proportion(float(flags.mean()), len(np.unique(units)))


def _people(right: Estimate, share: float) -> Estimate:
    """How many of 1000 people, of whom `share` are of this kind, are judged wrongly."""
    ends = (right.value, right.high, right.low)
    return Estimate.of(*(PEOPLE * share * (1 - (1.0 if end is None else end)) for end in ends))
