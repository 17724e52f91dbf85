"""What an evaluation names one by one: mistakes, refusals, what the bundle lacks, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retigrade.card import Card
from retigrade.learn.evaluation.findings import Mistake, Refusal
from retigrade.learn.intervals import FEWEST_GROUPS
from retigrade.learn.verdicts import Graded, Verdicts, worst
from retigrade.records import Status


def mistakes(verdicts: Verdicts) -> Iterator[Mistake]:
    """The wrong grades, the costliest first."""
    return (_mistake(verdicts, position) for position in worst(verdicts))


def _mistake(verdicts: Verdicts, position: int) -> Mistake:
    entry, grading = verdicts.labelled.entries[position], verdicts.gradings[position]
    if grading.grade is None or grading.probabilities is None:
        raise ValueError(f"{entry.name} has no grade to be wrong")
    return Mistake(
        name=entry.name,
        true_grade=int(entry.grade),
        decided_grade=int(grading.grade),
        cost=(int(grading.grade) - int(entry.grade)) ** 2,
        confidence=float(grading.probabilities[grading.grade]),
        possible=None if grading.possible is None else tuple(map(int, grading.possible)),
        quality=grading.quality,
        reasons=grading.reasons,
    )


def refusals(verdicts: Verdicts) -> Iterator[Refusal]:
    """The photographs without a grade."""
    for entry, grading in zip(verdicts.labelled.entries, verdicts.gradings, strict=True):
        if grading.status is not Status.GRADED:
            yield Refusal(
                name=entry.name, true_grade=int(entry.grade), status=grading.status.value, reasons=grading.reasons
            )


def missing(card: Card) -> Iterator[str]:
    """What a bundle may carry and this one does not."""
    if not card.operating_points:
        yield "operating points"
    if card.conformal is None:
        yield "sets of possible grades"
    if card.low_confidence == 0:
        yield "a confidence below which a second reader is advised"
    if card.features is None:
        yield "limits by which a photograph unlike those learned from is refused"


def remarks(verdicts: Verdicts, graded: Graded) -> Iterator[str]:
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
    present = np.unique(graded.truth)
    if len(present) == 1:
        yield f"All photographs are of grade {present[0]}: kappa, AUROC and the other grades' figures are not defined."
    elif not graded.referable.any():
        yield "No photograph is referable: sensitivity, precision and the referable AUROC are not defined."
    elif graded.referable.all():
        yield "Every photograph is referable: specificity and the referable AUROC are not defined."
    if refused := len(verdicts.gradings) - len(graded):
        yield f"{refused} photographs have no grade; every figure but the gradable rate is of the graded ones alone."
