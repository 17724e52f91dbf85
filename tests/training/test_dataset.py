"""Soft targets and the sampling of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retigrade.training.dataset import sample_epoch, soft_targets


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
