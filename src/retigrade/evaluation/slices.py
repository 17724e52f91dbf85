"""The figures of some of the photographs: by source and by quality."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retigrade.arrays import Integers, Reals
from retigrade.evaluation.ask import Ask
from retigrade.evaluation.predictions import Graded, Predictions
from retigrade.evaluation.result import Slice
from retigrade.metrics import classification as metrics
from retigrade.metrics.estimate import Estimate

_TERCILES = ("lowest third", "middle third", "highest third")


def by_source(verdicts: Predictions, ask: Ask) -> Iterator[Slice]:
    """Each data set by itself, in the order of their names."""
    source = np.array([entry.source for entry in verdicts.labelled.entries])
    for name in sorted(set(source.tolist())):
        own = source == name
        gradable = ask.share(verdicts.is_graded[own], units=verdicts.labelled.units[own])
        graded = verdicts.graded.where(verdicts.graded.source == name)
        yield _slice(name, int(own.sum()), gradable, graded, ask)


def by_quality(graded: Graded, ask: Ask) -> Iterator[Slice]:
    """The graded in thirds of quality; nothing where they are fewer than three."""
    if len(graded) < len(_TERCILES):
        return
    # By rank, so that thirds are thirds even where many scores are equal.
    third = np.argsort(np.argsort(graded.quality, kind="stable"), kind="stable") * len(_TERCILES) // len(graded)
    for number, name in enumerate(_TERCILES):
        own = third == number
        low, high = graded.quality[own].min(), graded.quality[own].max()
        everyone = Estimate.of(1.0)
        yield _slice(f"{name} ({low:.2f} to {high:.2f})", int(own.sum()), everyone, graded.where(own), ask)


def _slice(name: str, photos: int, gradable: Estimate, graded: Graded, ask: Ask) -> Slice:
    def figures(target: Integers, predicted: Integers, probabilities: Reals) -> Reals:
        referable = metrics.auroc(metrics.p_referable(probabilities), metrics.is_referable(target))
        any_stage = metrics.auroc(metrics.p_any(probabilities), target > 0)
        right, kappa = metrics.accuracy(target, predicted), metrics.quadratic_kappa(target, predicted)
        return np.array([right, kappa, referable, any_stage])

    accuracy, kappa, referable, any_stage = ask.several(
        figures, graded.target, graded.predicted, graded.probabilities, units=graded.units
    )
    return Slice(
        name=name,
        photos=photos,
        gradable=gradable,
        accuracy=accuracy,
        quadratic_kappa=kappa,
        referable_auroc=referable,
        any_auroc=any_stage,
    )
