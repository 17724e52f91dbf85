from __future__ import annotations

import numpy as np
import pytest

from retigrade.metrics.decision import PLAIN_CUTS, Decision
from retigrade.training.calibrate import SENSITIVITY, SPECIFICITY, operating_points


def at(score: float) -> list[float]:
    """A photograph that is referable with this probability."""
    return [1 - score, 0.0, score, 0.0, 0.0]


def photographs(score: np.ndarray, referable: np.ndarray) -> tuple[np.ndarray, Decision, np.ndarray]:
    """Photographs of which the threshold alone decides."""
    never = Decision(rule="mean", cuts=(0.5, 2.5, 3.0, 3.5))
    return np.array([at(value) for value in score]), never, np.where(referable, 2, 0)


def test_screening_keeps_away_from_both_of_its_limits() -> None:
    # Referable photographs from 0.5 up, others up to 0.3: every threshold between catches and spares all.
    score = np.concatenate([np.linspace(0.5, 0.9, 100), np.linspace(0.0, 0.3, 100)])
    points = operating_points(*photographs(score, np.arange(200) < 100))
    assert points["screening"].threshold == pytest.approx(0.5)
    assert points["screening"].sensitivity.value == points["screening"].specificity.value == 1.0
    assert points["screening"].sensitivity.low < 1.0


def test_screening_gives_away_spare_specificity_for_sensitivity() -> None:
    rng = np.random.default_rng(0)
    referable = np.arange(4000) < 2000
    score = 1 / (1 + np.exp(-rng.normal(np.where(referable, 2.2, -2.2), 1)))
    points = operating_points(*photographs(score, referable))
    screening = points["screening"]
    assert screening.sensitivity.value > SENSITIVITY + 0.02
    assert screening.specificity.value > SPECIFICITY + 0.02
    assert screening.threshold < points["specific"].threshold or points["specific"].specificity.value >= 0.95
    youden = points["balanced"].sensitivity.value + points["balanced"].specificity.value
    assert all(point.sensitivity.value + point.specificity.value <= youden for point in points.values())


def test_screening_reaches_its_sensitivity_where_it_cannot_have_both() -> None:
    rng = np.random.default_rng(0)
    referable = np.arange(1000) < 300
    score = 1 / (1 + np.exp(-rng.normal(np.where(referable, 1.0, -0.2), 1)))
    points = operating_points(*photographs(score, referable))
    assert points["screening"].sensitivity.value >= SENSITIVITY
    assert points["screening"].sensitivity.value < SENSITIVITY + 0.01
    assert points["screening"].specificity.value < SPECIFICITY
    assert points["specific"].specificity.value >= 0.95


@pytest.mark.parametrize("referable", [True, False])
def test_photographs_of_one_class_give_no_points(referable: bool) -> None:
    assert operating_points(*photographs(np.linspace(0, 1, 20), np.full(20, referable))) == {}


def test_a_referable_stage_is_referred_at_every_point() -> None:
    rng = np.random.default_rng(0)
    referable = np.arange(1000) < 300
    score = 1 / (1 + np.exp(-rng.normal(np.where(referable, 1.0, -0.2), 1)))
    probabilities, _, grades = photographs(score, referable)
    median = Decision(rule="median", cuts=PLAIN_CUTS)
    specific = operating_points(probabilities, median, grades)["specific"]
    by_stage = median.decide_all(probabilities) >= 2
    assert specific.specificity.value == pytest.approx(np.mean(~by_stage[~referable]))
    assert specific.sensitivity.value == pytest.approx(np.mean(by_stage[referable]))
