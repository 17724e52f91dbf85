"""Soft targets and the sampling of an epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retigrade.training.dataset import TrainingData, sample_epoch, sampling_weights, soft_targets
from retigrade.training.recipe import BEST


def test_targets_spread_to_the_grades_beside_and_average_conflicting_duplicates() -> None:
    targets = soft_targets(np.array([0, 2, 4]), ((1, 2),), label_smoothing=0.1)
    assert targets.dtype == np.float32
    assert targets.sum(axis=1) == pytest.approx(1)
    assert targets[0] == pytest.approx([0.9, 0.1, 0, 0, 0])
    assert targets[1] == pytest.approx([0, 0.05, 0.4, 0.1, 0.45])
    assert targets[1] == pytest.approx(targets[2])


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30), st.integers(1, 200), st.integers(0, 50))
def test_each_is_drawn_as_often_as_its_weight_says(relative: list[float], draws: int, seed: int) -> None:
    weights = np.array(relative) / np.sum(relative)
    drawn = sample_epoch(weights, draws=draws, rng=np.random.default_rng(seed))
    assert len(drawn) == draws
    times = np.bincount(drawn, minlength=len(weights))
    assert (np.abs(times - weights * draws) <= 1 + 1e-6).all()


def test_grades_are_balanced_within_each_source() -> None:
    grades, sources = np.array([0] * 6 + [1] * 2 + [0] + [1] * 3), np.array([0] * 8 + [1] * 4)
    data = TrainingData(
        photos=np.zeros((12, 4, 4, 3), np.uint8),
        grades=grades,
        targets=soft_targets(grades, (), label_smoothing=0.0),
        subsets=sources,
        rejected=np.zeros(12, bool),
        train=np.arange(12),
        validation=np.arange(1),
        fingerprint="drawn",
    )
    weights = sampling_weights(data, replace(BEST, class_balance=1.0, source_balance=0.0))
    assert weights.sum() == pytest.approx(1)
    for source, share in ((0, 8 / 12), (1, 4 / 12)):
        for grade in (0, 1):
            assert weights[(sources == source) & (grades == grade)].sum() == pytest.approx(share / 2)
    equal = sampling_weights(data, replace(BEST, class_balance=0.0, source_balance=1.0))
    assert equal[sources == 0].sum() == pytest.approx(0.5)
    rejected = replace(data, rejected=np.arange(12) == 3)
    weights = sampling_weights(rejected, replace(BEST, class_balance=0.0, source_balance=0.0, rejected_weight=0.0))
    np.testing.assert_allclose(weights, np.where(np.arange(12) == 3, 0, 1 / 11))
