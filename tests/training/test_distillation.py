"""Targets become part grade and part prediction, which never comes from a teacher that saw the photograph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retigrade.arrays import Floats, Integers
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.distillation import cross_fitted_targets
from retigrade.training.recipe import BEST, Recipe

GRADES = np.arange(12) % 5
DATA = TrainingData(
    photos=np.zeros((12, 8, 8, 3), np.uint8),
    grades=GRADES,
    targets=soft_targets(GRADES, (), label_smoothing=0.0),
    subsets=np.zeros(12, np.int64),
    rejected=np.zeros(12, bool),
    train=np.arange(8),
    validation=np.arange(8, 10),
    fingerprint="drawn",
)
SHARES = {"first": np.arange(0, 4), "second": np.arange(4, 8)}
RECIPE = replace(BEST, epochs=10, teacher_weight=0.25, teacher_epochs=0.5)


def test_targets_come_from_teachers_that_did_not_see_the_photographs() -> None:
    taught: dict[str, tuple[list[int], int]] = {}

    def teach(name: str, data: TrainingData, recipe: Recipe, unseen: Integers) -> Floats:
        taught[name] = data.train.tolist(), recipe.epochs
        assert name in data.fingerprint
        return np.tile(np.float32([0, 0, 30, 0, 0]), (len(unseen), 1))

    after = cross_fitted_targets(DATA, RECIPE, shares=SHARES, teach=teach)
    assert taught == {"first": ([4, 5, 6, 7], 5), "second": ([0, 1, 2, 3], 5)}
    assert after.targets.dtype == np.float32
    assert after.targets.sum(axis=1) == pytest.approx(1)
    assert after.targets[0] == pytest.approx([0.75, 0, 0.25, 0, 0])
    assert after.targets[2] == pytest.approx([0, 0, 1, 0, 0])
    np.testing.assert_array_equal(after.targets[8:], DATA.targets[8:])
    assert after.fingerprint != DATA.fingerprint
