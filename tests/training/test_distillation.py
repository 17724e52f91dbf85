"""Targets become part grade and part opinion, and an opinion never comes from a network that saw the photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from retigrade.arrays import Floats, Integers
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.distillation import cross_fitted_targets
from retigrade.training.recipe import BEST, Recipe

GRADES = np.arange(12) % 5
LESSON = TrainingData(
    photos=np.zeros((12, 8, 8, 3), np.uint8),
    grades=GRADES,
    targets=soft_targets(GRADES, (), neighbours=0.0),
    sources=np.zeros(12, np.int64),
    train=np.arange(8),
    validation=np.arange(8, 10),
    fingerprint="drawn",
)
PARTS = {"first": np.arange(0, 4), "second": np.arange(4, 8)}
RECIPE = replace(BEST, epochs=10, trust=0.25, fewer=0.5)


def test_opinions_come_from_networks_that_did_not_see_the_photographs() -> None:
    taught: dict[str, tuple[list[int], int]] = {}

    def teach(name: str, lesson: TrainingData, recipe: Recipe) -> Callable[[Integers], Floats]:
        taught[name] = lesson.train.tolist(), recipe.epochs
        assert name in lesson.fingerprint
        return lambda indices: np.tile(np.float32([0, 0, 30, 0, 0]), (len(indices), 1))

    after = cross_fitted_targets(LESSON, RECIPE, parts=PARTS, teach=teach)
    assert taught == {"first": ([4, 5, 6, 7], 5), "second": ([0, 1, 2, 3], 5)}
    assert after.targets.dtype == np.float32
    assert after.targets.sum(axis=1) == pytest.approx(1)
    assert after.targets[0] == pytest.approx([0.75, 0, 0.25, 0, 0])
    assert after.targets[2] == pytest.approx([0, 0, 1, 0, 0])
    np.testing.assert_array_equal(after.targets[8:], LESSON.targets[8:])
    assert after.fingerprint != LESSON.fingerprint
