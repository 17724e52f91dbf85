"""Choose a bundle's threshold on a user's own labelled photographs, and say what it will cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.arrays import Flags, Integers
from retigrade.bundle import bundle_file, reseal
from retigrade.data.manifest import read_manifest
from retigrade.errors import DataError, UsageError, needs_extra
from retigrade.evaluation.measure import learned_from, learned_from_remarks
from retigrade.evaluation.predictions import LabelledSet, Predictions, open_grader, predict_labelled
from retigrade.files import write_whole
from retigrade.metadata import Metadata
from retigrade.metrics.classification import referral_score, threshold_for_sensitivity
from retigrade.metrics.decision import OperatingPoint
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.registry import AT_OPERATING_POINT, at_operating_point
from retigrade.progress import RunProgress

TUNED = "tuned"
PEOPLE = 1000
FEWEST = 20
"""Fewer independent referable eyes, or others, choose no threshold: Wilson's interval of 20 of 20 begins at 0.84."""
FEW = 100
"""Fewer are said to be few."""
_STEP = 1e-6  # thresholds are rounded down to it, so that another machine's last digits change nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A threshold, what it reached, and what to expect of it among 1000 people with a gradable photograph.

    missed: referable people who would not be referred; over_referred: people who would be and need not.
    refused: the share of the photographs that got no grade. referable, others: the photographs that chose it.
    remarks: what a user must know, in sentences.
    """

    point: OperatingPoint
    prevalence: float
    missed: Estimate
    over_referred: Estimate
    refused: float
    referable: int
    others: int
    remarks: tuple[str, ...]

    def metadata(self, metadata: Metadata) -> Metadata:
        """The bundle's metadata with this operating point, named `tuned`, as the default one."""
        points = {**metadata.operating_points, TUNED: self.point}
        # Those of the former point would now be read as this one's.
        figures = tuple(figure for figure in metadata.figures if figure.metric not in AT_OPERATING_POINT)
        update = {"operating_points": points, "referable_threshold": self.point.threshold, "figures": figures}
        return metadata.model_copy(update=update)


def tune(
    data: Path | str | Sequence[Path | str],
    *,
    sensitivity: float,
    out: Path | str | None = None,
    bundle: Path | str | None = None,
    prevalence: float = 0.1,
    skip_unreadable: bool = False,
    jobs: int | None = None,
    progress: RunProgress | None = None,
) -> Tuned:
    """Choose the threshold for referral on labelled photographs, and write a bundle that uses it.

    data: labelled folders or CSV files. sensitivity: the share of referable photographs to catch, above 0, at most 1.
    out: the new bundle's file, None writes none. bundle: the one to start from, None the shipped one. prevalence: the
    share of the people to be screened who are referable, 0 to 1. skip_unreadable: leave out photographs that cannot be
    read. jobs: photographs at work at once, None one a core. progress: hears of each step.

    Raises UsageError where an option is out of range, the sensitivity cannot be met without referring everybody, or the
    extra `report` is not installed; DataError where the photographs cannot be used or are too few, BundleError where
    the bundle cannot be.
    """
    with needs_extra("report"):
        # What is missing must not wait for the gradings.
        import scipy  # noqa: F401
    _check(sensitivity, prevalence)
    path = bundle_file(bundle)
    grader, jobs = open_grader(path, jobs=jobs)
    manifest = read_manifest(data, skip_unreadable=skip_unreadable, progress=progress)
    labelled = LabelledSet.of(manifest, progress=progress)
    predictions = predict_labelled(grader, labelled, jobs=jobs, progress=progress)
    known = learned_from(predictions, grader.bundle.metadata)
    tuned = choose_threshold(predictions, sensitivity=sensitivity, prevalence=prevalence, known=known)
    if out is not None:
        write_whole(Path(out), reseal(path.read_bytes(), tuned.metadata(grader.bundle.metadata)))
    return tuned


def choose_threshold(
    predictions: Predictions, *, sensitivity: float, prevalence: float, known: Sequence[str] | None = ()
) -> Tuned:
    """Take the highest threshold whose sensitivity on the graded photographs is at least `sensitivity`.

    Intervals are Wilson's, counting each patient or duplicate group once. known: the photographs that the bundle
    learned from, None where it does not say. Raises as `tune`.
    """
    _check(sensitivity, prevalence)
    graded = predictions.graded
    sample, groups = graded.sample, graded.groups
    referable = sample.referable
    for kind, flags in (("referable (moderate or worse)", referable), ("less than referable", ~referable)):
        if (count := len(np.unique(groups[flags]))) < FEWEST:
            raise DataError(
                f"of {len(predictions.gradings)} photographs {len(graded)} were graded, and those that are {kind} are "
                f"of {count} independent eyes or patients; {FEWEST} are needed to choose a threshold: add some"
            )
    score = referral_score(sample.probabilities, sample.predicted)
    threshold = math.floor(threshold_for_sensitivity(score, referable, sensitivity) / _STEP) * _STEP
    threshold = min(round(threshold, 6), 1.0)
    referred = at_operating_point(sample, threshold).referred
    if referred.all():
        raise UsageError(
            f"a sensitivity of {sensitivity:g} cannot be met: only by referring all {len(graded)} graded photographs; "
            "ask for less, or train on photographs like these"
        )
    caught = _share(referred[referable], groups[referable])
    spared = _share(~referred[~referable], groups[~referable])
    return Tuned(
        point=OperatingPoint(threshold=threshold, sensitivity=caught, specificity=spared),
        prevalence=prevalence,
        missed=_people(caught, prevalence),
        over_referred=_people(spared, 1 - prevalence),
        refused=1 - len(graded) / len(predictions.gradings),
        referable=int(referable.sum()),
        others=int((~referable).sum()),
        remarks=tuple(_remarks(predictions, referable, groups, known)),
    )


def _check(sensitivity: float, prevalence: float) -> None:
    if not 0 < sensitivity <= 1:
        raise UsageError(f"--sensitivity must lie above 0 and at most at 1, got {sensitivity:g}")
    if not 0 <= prevalence <= 1:
        raise UsageError(f"--prevalence must lie from 0 to 1, got {prevalence:g}")


def _remarks(
    predictions: Predictions, referable: Flags, groups: Integers, known: Sequence[str] | None
) -> Iterator[str]:
    yield from learned_from_remarks(known, len(predictions.gradings))
    for kind, flags in (("referable", referable), ("other", ~referable)):
        if (count := len(np.unique(groups[flags]))) < FEW:
            yield f"Only {count} independent {kind} eyes chose the threshold: see how wide the interval is."


def _share(flags: Flags, groups: Integers) -> Estimate:
    """The share of flags; its interval is as wide as if each group had one photograph, and never degenerate."""
    return Estimate.proportion(float(flags.mean()), len(np.unique(groups)))


def _people(right: Estimate, share: float) -> Estimate:
    """How many of 1000 people, of whom `share` are of this kind, are judged wrongly."""
    rates = (right.value, right.high, right.low)
    return Estimate.of(*(PEOPLE * share * (1 - (math.nan if rate is None else rate)) for rate in rates))
