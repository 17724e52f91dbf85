"""Whether the probabilities can be relied on: operating points, reliability, confidence, possible grades.

Each of all graded photographs; calibration and possible grades of every source by itself, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from retigrade.evaluation.ask import Ask
from retigrade.evaluation.predictions import Graded
from retigrade.evaluation.result import Bin, Point, Sets, Step, Trust
from retigrade.grader import Grader
from retigrade.icdr import GRADES
from retigrade.metadata import Metadata
from retigrade.metrics import classification as metrics
from retigrade.metrics.calibration import calibration_error_by_chance, expected_calibration_error, reliability

CONFIDENCES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DEFAULT_POINT = "default"


def points(graded: Graded, grader: Grader, ask: Ask) -> Iterator[Point]:
    """The bundle's default threshold and its operating points, on these photographs."""
    metadata = grader.bundle.metadata
    in_use = grader.operating_point or DEFAULT_POINT
    thresholds = {DEFAULT_POINT: metadata.referable_threshold} | {
        name: point.threshold for name, point in metadata.operating_points.items()
    }
    score, referable, units = metrics.p_referable(graded.probabilities), graded.referable, graded.units
    for name, threshold in thresholds.items():
        called = score >= threshold
        yield Point(
            name=name,
            threshold=threshold,
            in_use=name == in_use,
            sensitivity=ask.share(called[referable], units=units[referable]),
            specificity=ask.share(~called[~referable], units=units[~referable]),
            precision=ask.share(referable[called], units=units[called]),
        )


def bins(graded: Graded) -> Iterator[Bin]:
    """The reliability diagram, in 15 bins of equal mass."""
    if not len(graded):
        return
    found = reliability(graded.confidence, graded.correct)
    columns = (found.confidence, found.accuracy, found.low, found.high, found.count)
    for confidence, accuracy, low, high, count in zip(*columns, strict=True):
        yield Bin(
            confidence=float(confidence), accuracy=float(accuracy), low=float(low), high=float(high), photos=int(count)
        )


def steps(graded: Graded, ask: Ask) -> Iterator[Step]:
    """Accuracy of those whose stage has at least some confidence, as long as there are any."""
    for at_least in CONFIDENCES if len(graded) else ():
        sure = graded.confidence >= at_least
        if not sure.any():
            return
        yield Step(
            at_least=at_least,
            photos=int(sure.sum()),
            share=float(sure.mean()),
            accuracy=ask.share(graded.correct[sure], units=graded.units[sure]),
        )


def rises(steps: Sequence[Step]) -> bool | None:
    """Whether leaving out less certain photographs always raised accuracy; None where no step leaves any out."""
    kept = [step for before, step in pairwise(steps) if step.photos < before.photos]
    if not kept:
        return None
    accuracies = [step.accuracy.value or 0.0 for step in (steps[0], *kept)]
    return all(later > earlier or later == 1.0 for earlier, later in pairwise(accuracies))


def sets(graded: Graded, metadata: Metadata, ask: Ask) -> Sets | None:
    """Coverage and size of the sets of possible grades; None where the bundle names none."""
    if metadata.conformal is None or graded.prediction_set is None:
        return None
    size = graded.prediction_set.sum(axis=1)
    held = graded.prediction_set[np.arange(len(graded)), graded.target]
    one, two, three, four, five = (int(np.sum(size == count)) for count in range(1, len(GRADES) + 1))
    return Sets(
        promised=metadata.conformal.coverage,
        coverage=ask.share(held, units=graded.units),
        size=ask.mean(size, units=graded.units),
        sizes=(one, two, three, four, five),
    )


def by_source(graded: Graded, grader: Grader, ask: Ask) -> Iterator[Trust]:
    """All of them, then each data set by itself, in the order of their names."""
    yield _trust("all", graded, grader, ask)
    for name in sorted(set(graded.source.tolist())):
        yield _trust(name, graded.where(graded.source == name), grader, ask)


def _trust(name: str, graded: Graded, grader: Grader, ask: Ask) -> Trust:
    found = sets(graded, grader.bundle.metadata, ask)
    point = next(one for one in points(graded, grader, ask) if one.in_use)
    return Trust(
        name=name,
        photos=len(graded),
        ece=_defined(expected_calibration_error(graded.confidence, graded.correct)),
        ece_by_chance=_defined(calibration_error_by_chance(graded.confidence, rng=ask.rng)),
        coverage=None if found is None else found.coverage,
        size=None if found is None else found.size,
        sensitivity=point.sensitivity,
        specificity=point.specificity,
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
