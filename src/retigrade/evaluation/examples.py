"""What an evaluation names one by one: mistakes, refusals, what the bundle lacks, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retigrade.evaluation.predictions import Graded, Predictions, worst
from retigrade.evaluation.result import Mistake, Refusal
from retigrade.icdr import Status
from retigrade.metadata import MAX_SPREAD, Metadata
from retigrade.metrics.bootstrap import FEWEST_GROUPS


def mistakes(verdicts: Predictions) -> Iterator[Mistake]:
    """The wrong grades, the costliest first."""
    return (_mistake(verdicts, position) for position in worst(verdicts))


def _mistake(verdicts: Predictions, position: int) -> Mistake:
    entry, grading = verdicts.labelled.entries[position], verdicts.gradings[position]
    if grading.grade is None or grading.probabilities is None:
        raise ValueError(f"{entry.name} has no grade to be wrong")
    return Mistake(
        name=entry.name,
        true_grade=int(entry.grade),
        decided_grade=int(grading.grade),
        cost=(int(grading.grade) - int(entry.grade)) ** 2,
        confidence=float(grading.probabilities[grading.grade]),
        prediction_set=None if grading.prediction_set is None else tuple(map(int, grading.prediction_set)),
        quality=grading.quality,
        reasons=grading.reasons,
    )


def refusals(verdicts: Predictions) -> Iterator[Refusal]:
    """The photographs without a grade."""
    for entry, grading in zip(verdicts.labelled.entries, verdicts.gradings, strict=True):
        if grading.status is not Status.GRADED:
            yield Refusal(
                name=entry.name, true_grade=int(entry.grade), status=grading.status.value, reasons=grading.reasons
            )


def missing(metadata: Metadata) -> Iterator[str]:
    """What a bundle may carry and this one does not."""
    if not metadata.operating_points:
        yield "operating points"
    if metadata.conformal is None:
        yield "sets of possible grades"
    if metadata.second_reader_spread >= MAX_SPREAD:
        yield "a limit beyond which a second reader is advised"
    if metadata.out_of_distribution is None:
        yield "limits by which a photograph unlike those learned from is refused"


def remarks(verdicts: Predictions, graded: Graded) -> Iterator[str]:
    """What a reader must know before the figures."""
    if not len(graded):
        yield "No photograph was graded, so there are no figures; the refusals say why."
        return
    groups = len(np.unique(graded.units))
    if groups < FEWEST_GROUPS:
        yield (
            f"Only {groups} independent patients or duplicate groups were graded: fewer than {FEWEST_GROUPS} give no "
            "intervals, and the figures mean little."
        )
    present = np.unique(graded.target)
    if len(present) == 1:
        yield f"All photographs are of grade {present[0]}: kappa, AUROC and the other grades' figures are not defined."
    elif not graded.referable.any():
        yield "No photograph is referable: sensitivity, precision and the referable AUROC are not defined."
    elif graded.referable.all():
        yield "Every photograph is referable: specificity and the referable AUROC are not defined."
    if refused := len(verdicts.gradings) - len(graded):
        yield f"{refused} photographs have no grade; every figure but the gradable rate is of the graded ones alone."
