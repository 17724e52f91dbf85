"""Cross-fitted distillation: targets mixed with what networks that never saw a photograph predict for it.

The training photographs are cut into shares; for each share, a teacher that learned from the others alone predicts it,
and the targets become a mixture of grade and prediction. A grade that nobody else would give pulls less, and the
probability of the stages beside it comes from what the photograph shows (Northcutt, Jiang and Chuang, "Confident
Learning", JAIR 2021, for predictions from outside; Hinton, Vinyals and Dean, 2015, for learning from them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from retigrade.arrays import Floats, Integers
from retigrade.data.manifest import Manifest
from retigrade.data.splits import Splits, within
from retigrade.metrics.decision import softmax
from retigrade.training.dataset import TrainingData
from retigrade.training.recipe import Recipe

Teach = Callable[[str, TrainingData, Recipe, Integers], Floats]
"""Trains a teacher by a name, training data and a recipe; returns its logits for some photographs, float32 (n, 5)."""


def teacher_shares(
    manifest: Manifest, splits: Splits, train: Integers, *, teachers: int, seed: int
) -> dict[str, Integers]:
    """Cut training photographs into as many shares as there are teachers; none shares a duplicate or a patient."""
    shares = {f"teacher{number}": 1 / teachers for number in range(1, teachers + 1)}
    return within(manifest, splits, train, shares=shares, seed=seed)


def cross_fitted_targets(
    data: TrainingData, recipe: Recipe, *, shares: Mapping[str, Integers], teach: Teach
) -> TrainingData:
    """The training data with targets of which `recipe.teacher_weight` is a teacher's prediction.

    shares: of the training photographs, by their teacher's name; none may share a duplicate or a patient with another.
    """
    shorter = replace(recipe, epochs=max(1, round(recipe.epochs * recipe.teacher_epochs)))
    targets = data.targets.copy()
    for name, unseen in shares.items():
        seen = np.setdiff1d(data.train, unseen)
        apart = replace(data, train=seen, fingerprint=f"{data.fingerprint} without {name}")
        predicted = softmax(teach(name, apart, shorter, unseen))
        targets[unseen] = (1 - recipe.teacher_weight) * targets[unseen] + recipe.teacher_weight * predicted
    return replace(data, targets=targets.astype(np.float32), fingerprint=f"{data.fingerprint} with teachers")
