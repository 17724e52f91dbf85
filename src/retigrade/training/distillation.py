"""What networks that never saw a photograph say of it: a second opinion on grades that graders disagree about.

The training photographs are cut into parts; of each part, a network that learned from the others alone gives its
opinion, and the targets become a mixture of grade and opinion. A grade that nobody else would give pulls less, and the
probability of the stages beside it comes from what the photograph shows (Northcutt, Jiang and Chuang, "Confident
Learning", JAIR 2021, for opinions from outside; Hinton, Vinyals and Dean, 2015, for learning from them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from retigrade.arrays import Floats, Integers
from retigrade.metrics.decision import softmax
from retigrade.training.dataset import TrainingData
from retigrade.training.recipe import Recipe

Teach = Callable[[str, TrainingData, Recipe], Callable[[Integers], Floats]]
"""Trains by a name, a lesson and a recipe, and returns what answers for photographs: logits float32 (n, 5)."""


def cross_fitted_targets(
    lesson: TrainingData, recipe: Recipe, *, parts: Mapping[str, Integers], teach: Teach
) -> TrainingData:
    """The lesson with targets that are `recipe.trust` of opinion and the rest of grade.

    parts: of the training photographs, by name; none may share a duplicate or a patient with another.
    """
    shorter = replace(recipe, epochs=max(1, round(recipe.epochs * recipe.fewer)))
    targets = lesson.targets.copy()
    for name, own in parts.items():
        others = np.setdiff1d(lesson.train, own)
        taught = replace(lesson, train=others, fingerprint=f"{lesson.fingerprint} without {name}")
        opinion = softmax(teach(name, taught, shorter)(own))
        targets[own] = (1 - recipe.trust) * targets[own] + recipe.trust * opinion
    return replace(lesson, targets=targets.astype(np.float32), fingerprint=f"{lesson.fingerprint} with opinions")
