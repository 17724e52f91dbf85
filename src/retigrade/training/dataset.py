"""What one training learns from, and in which order it sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.data.groups import Groups
from retigrade.icdr import GRADES
from retigrade.training.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingData:
    """Prepared photographs and which of them train and validate.

    photos: uint8 (N, S, S, 3). grades: int64 (N,), 0..4. targets: float32 (N, 5), rows sum to 1. sources: int64 (N,),
    the number of each photograph's data set. train, validation: int64 indices. fingerprint: of manifest and split.
    """

    photos: Pixels
    grades: Integers
    targets: Floats
    sources: Integers
    train: Integers
    validation: Integers
    fingerprint: str


def soft_targets(grades: Integers, groups: Groups, *, neighbours: float) -> Floats:
    """Spread each grade over its neighbours, and average it over near-duplicates that graders disagreed on.

    neighbours: probability that moves to each adjacent grade. Returns float32 (N, 5), rows sum to 1.
    """
    beside = np.eye(len(GRADES), k=1) + np.eye(len(GRADES), k=-1)
    spread = np.eye(len(GRADES)) + neighbours * (beside - np.diag(beside.sum(axis=1)))
    targets = spread[grades]
    for group in groups:
        targets[list(group)] = targets[list(group)].mean(axis=0)
    return targets.astype(np.float32)


def sampling_weights(lesson: TrainingData, recipe: Recipe) -> npt.NDArray[np.float64]:
    """How often each training photograph is drawn, relative to the others: float64 (n,), sums to 1."""
    drawn = np.ones(len(lesson.train))
    balanced = ((lesson.grades, recipe.balance), (lesson.sources, recipe.source_balance))
    for labels, balance in balanced:
        own = labels[lesson.train]
        drawn *= np.bincount(own)[own] ** -balance
    return np.asarray(drawn / drawn.sum())


def order(chance: npt.NDArray[np.float64], *, draws: int, rng: np.random.Generator) -> Integers:
    """Positions to draw in one epoch: each as often as its chance says, to within one, in random order: int64 (draws,).

    Systematic sampling of the remainders keeps every epoch's mix at its expectation.
    """
    expected = chance * draws
    times = np.floor(expected).astype(np.int64)
    missing = draws - int(times.sum())
    places = rng.permutation(len(chance))
    marks = np.searchsorted(np.cumsum((expected - times)[places]), rng.uniform(0, 1) + np.arange(missing))
    times[places[np.minimum(marks, len(places) - 1)]] += 1
    return rng.permutation(np.repeat(np.arange(len(chance)), times))
