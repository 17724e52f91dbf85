from __future__ import annotations

import numpy as np
import pytest

from retigrade.metrics.classification import at_threshold, quadratic_kappa
from retigrade.metrics.conformal import conformal_quantile
from retigrade.metrics.decision import PLAIN_CUTS, Decision, softmax
from retigrade.metrics.fitting import fit_decision, fit_prior, fit_temperature
from retigrade.training.calibrate import SENSITIVITY, SPECIFICITY, equal_sources, operating_points


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


def test_balanced_gives_away_neither_sensitivity_nor_specificity() -> None:
    # A third of the referable photographs look like the others but for a few; the highest sum would not catch them.
    rng = np.random.default_rng(0)
    referable = np.arange(3000) < 1000
    score = 1 / (1 + np.exp(-rng.normal(np.where(referable, np.where(np.arange(3000) < 330, -0.5, 3.0), -2.0), 0.8)))
    probabilities, never, grades = photographs(score, referable)
    balanced = operating_points(probabilities, never, grades)["balanced"]
    rates = [at_threshold(score, referable, float(threshold)) for threshold in np.unique(score)]
    youden = max(rates, key=lambda point: point.sensitivity + point.specificity)
    assert balanced.sensitivity.value > youden.sensitivity
    standard_errors = [
        (rate.value - 0.85) * np.sqrt(count)
        for rate, count in ((balanced.sensitivity, 1000), (balanced.specificity, 2000))
    ]
    assert standard_errors[0] == pytest.approx(standard_errors[1], abs=0.2)


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


def test_every_source_weighs_the_same() -> None:
    sources = np.array(["large"] * 90 + ["small"] * 10)
    weights = equal_sources(sources)
    assert weights.sum() == pytest.approx(100)
    assert weights[sources == "large"].sum() == pytest.approx(weights[sources == "small"].sum())


def test_a_photograph_that_weighs_three_counts_as_three() -> None:
    rng = np.random.default_rng(3)
    grades = rng.choice(5, size=120, p=[0.4, 0.15, 0.25, 0.1, 0.1])
    logits = -((np.arange(5) - grades[:, None] - rng.normal(scale=0.9, size=(120, 1))) ** 2)
    times = np.where(np.arange(120) < 30, 3, 1)
    weights, tripled = times.astype(float), np.repeat(np.arange(120), times)
    assert fit_temperature(logits, grades, weights=weights) == pytest.approx(
        fit_temperature(logits[tripled], grades[tripled]), rel=1e-4
    )
    np.testing.assert_allclose(
        fit_prior(logits, grades, weights=weights), fit_prior(logits[tripled], grades[tripled]), atol=1e-6
    )
    probabilities, predicted = softmax(logits), logits.argmax(axis=1)
    assert quadratic_kappa(grades, predicted, weights=weights) == pytest.approx(
        quadratic_kappa(grades[tripled], predicted[tripled])
    )
    score, referable = probabilities[:, 2:].sum(axis=1), grades >= 2
    point, expected = (
        at_threshold(score, referable, 0.5, weights=weights),
        at_threshold(score[tripled], referable[tripled], 0.5),
    )
    assert (point.sensitivity, point.specificity) == pytest.approx((expected.sensitivity, expected.specificity))
    assert conformal_quantile(probabilities, grades, 0.9, weights=weights) == pytest.approx(
        conformal_quantile(probabilities[tripled], grades[tripled], 0.9), abs=0.05
    )


def test_the_decision_serves_the_source_that_weighs_more() -> None:
    rng = np.random.default_rng(4)
    grades = np.concatenate([rng.choice(5, 300), rng.choice(5, 60)])
    seen = grades + np.concatenate([np.zeros(300), np.full(60, 0.7)]) + rng.normal(scale=0.3, size=360)
    probabilities = softmax(-((np.arange(5) - seen[:, None]) ** 2) * 2)
    small = np.arange(360) >= 300
    weights = equal_sources(small.astype(np.int64))

    def kappa_of_the_small(weights: np.ndarray | None) -> float:
        predicted = fit_decision(probabilities, grades, weights=weights).decide_all(probabilities[small])
        return quadratic_kappa(grades[small], predicted)

    assert kappa_of_the_small(weights) > kappa_of_the_small(None)


def test_photographs_of_one_patient_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(0)
    referable = np.repeat(np.arange(100) < 50, 2)
    score = np.repeat(np.clip(rng.normal(np.where(np.arange(100) < 50, 0.7, 0.3), 0.2), 0, 1), 2)
    once = operating_points(*photographs(score[::2], referable[::2]))["balanced"]
    apart = operating_points(*photographs(score, referable))["balanced"]
    together = operating_points(*photographs(score, referable), groups=np.arange(200) // 2)["balanced"]
    assert together == once
    assert together.sensitivity.low < apart.sensitivity.low


def test_balanced_serves_the_source_whose_eyes_are_hard_to_tell() -> None:
    # Most referable photographs come from the easy source, where every threshold between finds them.
    rng = np.random.default_rng(5)
    sources = np.repeat(["easy", "easy", "hard", "hard"], (300, 60, 60, 300))
    referable = np.repeat([True, False, True, False], (300, 60, 60, 300))
    middle = np.repeat([3.0, -3.5, -0.6, -2.2], (300, 60, 60, 300))
    score = 1 / (1 + np.exp(-rng.normal(middle, 1)))
    together = operating_points(*photographs(score, referable))["balanced"]
    each = operating_points(*photographs(score, referable), sources=sources)["balanced"]
    hard = sources == "hard"

    def least(threshold: float) -> float:
        rates = at_threshold(score[hard], referable[hard], threshold)
        return min((rates.sensitivity - 0.85) * np.sqrt(60), (rates.specificity - 0.85) * np.sqrt(300))

    assert least(each.threshold) == max(map(least, np.unique(score))) > least(together.threshold)


def test_one_source_is_all_photographs() -> None:
    rng = np.random.default_rng(6)
    referable = np.arange(300) < 100
    score = 1 / (1 + np.exp(-rng.normal(np.where(referable, 1.5, -1.5), 1)))
    alone = operating_points(*photographs(score, referable), sources=np.full(300, "only"))
    assert alone == operating_points(*photographs(score, referable))


def test_a_source_of_healthy_eyes_alone_counts_for_specificity() -> None:
    rng = np.random.default_rng(7)
    referable = np.arange(600) < 100
    healthy_alone = np.arange(600) >= 300
    score = 1 / (1 + np.exp(-rng.normal(np.where(referable, 2.0, np.where(healthy_alone, 0.5, -2.0)), 0.7)))
    sources = np.where(healthy_alone, "clinic", "hospital")
    point = operating_points(*photographs(score, referable), sources=sources)["balanced"]
    assert np.mean(score[healthy_alone] < point.threshold) > 0.7


def test_screening_never_refers_fewer_than_balanced() -> None:
    rng = np.random.default_rng(8)
    referable = np.tile(np.arange(200) < 100, 3)
    hopeless = np.arange(600) >= 400
    score = 1 / (1 + np.exp(-rng.normal(np.where(hopeless, -3.5, np.where(referable, 3.0, -1.5)), 0.8)))
    weights = np.where(hopeless, 0.01, 1.0)
    apart = operating_points(*photographs(score, referable), weights=weights, sources=hopeless)
    together = operating_points(*photographs(score, referable), weights=weights)
    assert apart["screening"].threshold <= apart["balanced"].threshold < together["screening"].threshold
