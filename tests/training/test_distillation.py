"""Targets become part grade and part prediction: of teachers that never saw the photograph, or of bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retigrade.arrays import Floats, Integers
from retigrade.bundle import Bundle
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.distillation import cross_fitted_targets, distilled_targets, mean_logits, mean_prediction
from retigrade.training.recipe import BEST, Recipe
from tiny_bundle import write_tiny_bundle

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


def test_targets_take_what_bundles_predict() -> None:
    predicted = np.tile(np.float64([0, 0, 1, 0, 0]), (12, 1))
    after = distilled_targets(DATA, RECIPE, predicted)
    assert after.targets[0] == pytest.approx([0.75, 0, 0.25, 0, 0])
    assert after.targets.dtype == np.float32
    assert after.fingerprint != DATA.fingerprint


def test_bundles_see_photographs_at_their_own_size_and_answer_with_their_mean(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny.onnx"))
    size = bundle.metadata.input_size
    photos = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    expected = bundle.run(photos).logits
    np.testing.assert_allclose(mean_logits([bundle, bundle], photos, batch=2), expected, atol=1e-5)
    large = photos.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(mean_logits([bundle], large), expected, atol=1e-5)


def test_the_mean_prediction_counts_each_so_many_times() -> None:
    one, other = np.array([[0.8, 0.2, 1e-9, 1e-9, 1e-9]]), np.array([[0.2, 0.8, 1e-9, 1e-9, 1e-9]])
    mean = mean_prediction([(one, 2), (other, 1)])
    assert mean[0, 0] / mean[0, 1] == pytest.approx((4 * 4 / 4) ** (1 / 3))
    assert mean.sum() == pytest.approx(1)
    np.testing.assert_allclose(mean_prediction([(one, 3)]), one, atol=1e-8)
