from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradings import graded, refused
from predictions_by_hand import entry
from retigrade.bundle import read_metadata
from retigrade.errors import DataError
from retigrade.evaluation.predictions import LabelledSet, Predictions
from retigrade.evaluation.result import STORED, EvaluationResult, Photographs, Slice
from retigrade.evaluation.retest import (
    FEWEST_PAIRS,
    PairOfGradings,
    noise_of,
    photograph_again,
    real_pairs,
)
from retigrade.evaluation.store_figures import completed, with_figures
from retigrade.grading import Eye
from retigrade.icdr import Grade
from retigrade.metrics.estimate import Estimate
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle


def pairs(count: int, *, spread: float = 0.3, seed: int = 0) -> list[PairOfGradings]:
    deltas = np.random.default_rng(seed).normal(0, spread, count).tolist()
    return [PairOfGradings(1.0, 1.0 + delta, abs(delta) < 0.5) for delta in deltas]


def test_two_percent_of_the_pairs_differ_by_more_than_the_noise() -> None:
    drawn = pairs(1000)
    noise = noise_of(drawn)
    assert noise is not None
    beyond = np.mean([abs(pair.first - pair.second) > noise.expected_grade for pair in drawn])
    assert 0.01 <= beyond <= 0.02
    assert noise.same_grade.value == pytest.approx(np.mean([pair.same_grade for pair in drawn]))


def test_the_noise_of_one_half_is_measured_on_the_other() -> None:
    found = [noise_of(pairs(400, seed=seed)) for seed in range(40)]
    beyond = [noise.beyond.number for noise in found if noise is not None]
    assert 0.012 < np.mean(beyond) < 0.023
    assert max(beyond) > min(beyond)


def test_what_a_bundle_claims_is_measured_on_all_pairs() -> None:
    drawn = pairs(200)
    noise = noise_of(drawn, claimed=0.3)
    assert noise is not None
    assert noise.claimed == 0.3
    assert noise.beyond_claimed.value == np.mean([abs(pair.first - pair.second) > 0.3 for pair in drawn])
    nothing = noise_of(drawn)
    assert nothing is not None
    assert nothing.beyond_claimed.value is None


def test_real_pairs_are_measured_against_the_noise_of_the_made_ones() -> None:
    real = [PairOfGradings(1.0, 1.1, True), PairOfGradings(1.0, 3.9, False)]
    noise = noise_of(pairs(200), real=real)
    assert noise is not None
    assert (noise.real_pairs, noise.real_beyond.value) == (2, 0.5)


def test_too_few_pairs_give_no_noise() -> None:
    assert noise_of(pairs(FEWEST_PAIRS - 1)) is None
    assert noise_of(pairs(FEWEST_PAIRS)) is not None


def test_real_pairs_are_those_of_one_eye_on_one_day_and_of_one_view() -> None:
    whose = [("P1", Eye.RIGHT), ("P1", Eye.RIGHT), ("P1", Eye.LEFT), (None, None), (None, None), (None, None)]
    entries, gradings = [], []
    for place, (patient, eye) in enumerate(whose):
        plain = entry(place, 2)
        entries.append(replace(plain, patient=patient or plain.name, eye=eye))
        p = np.array([0.05, 0.1, 0.6 - 0.01 * place, 0.2 + 0.01 * place, 0.05])
        gradings.append(graded(sha256=f"{place:064d}", probabilities=p) if place < 5 else refused())
    groups = np.array([0, 0, 0, 1, 1, 1])
    predictions = Predictions(LabelledSet(tuple(entries), groups), tuple(gradings))
    found = [(round(pair.first, 2), round(pair.second, 2)) for pair in real_pairs(predictions)]
    assert found == [(2.1, 2.11), (2.13, 2.14)]


def test_figures_and_noise_are_stored_in_the_bundle_that_they_are_of(tmp_path: Path) -> None:
    data, noise = write_tiny_bundle(tmp_path / "tiny.onnx").read_bytes(), noise_of(pairs(200))
    assert noise is not None
    half = Estimate(value=0.5, low=0.4, high=0.6)
    drawn = Slice.model_construct(name="drawn", photos=9, graded=8, figures=dict.fromkeys(STORED, half))
    tested = Photographs.model_construct(part="test")
    result = EvaluationResult.model_construct(bundle="tiny@0", retest=noise, sources=(drawn,), photographs=tested)
    stored = read_metadata(with_figures(data, result, identity="tiny@0"))
    assert stored.retest_noise == noise.expected_grade
    assert {(figure.set, figure.metric, figure.estimate) for figure in stored.figures} == {
        ("drawn, test", key, half) for key in STORED
    }
    with pytest.raises(DataError, match="the evaluation is of tiny@0 and the bundle is tiny@1"):
        with_figures(data, result, identity="tiny@1")
    with pytest.raises(DataError, match="measured no noise"):
        with_figures(data, EvaluationResult.model_construct(bundle="tiny@0", retest=None), identity="tiny@0")


def test_what_one_network_alone_can_be_asked_is_taken_from_a_folds() -> None:
    noise = noise_of(pairs(200))
    whole = EvaluationResult.model_construct(bundle="tiny@0", retest=None, remarks=())
    unseen, seen = (Photographs.model_construct(learned_from=names) for names in ((), ("a",)))
    measured = {"robustness": None, "faithfulness": None, "retest": noise}
    fold = EvaluationResult.model_construct(bundle="tiny-fold1@5", photographs=unseen, **measured)
    found = completed(whole, fold)
    assert found.retest == noise
    assert "tiny-fold1" in found.remarks[0]
    with pytest.raises(DataError, match="no network of a fold"):
        completed(whole, fold.model_copy(update={"bundle": "other-fold1@5"}))
    with pytest.raises(DataError, match="evaluate it on its own fold"):
        completed(whole, fold.model_copy(update={"photographs": seen}))


def test_a_second_photograph_is_another_picture_of_the_same_eye() -> None:
    eye = draw_eye(grade=Grade.MODERATE, rng=np.random.default_rng(1), size=240).pixels
    again = photograph_again(eye, np.random.default_rng(2))
    assert again.dtype == np.uint8
    assert again.shape != eye.shape or not np.array_equal(again, eye)
    assert 0.7 < again.mean() / eye.mean() < 1.4
    assert np.array_equal(again, photograph_again(eye, np.random.default_rng(2)))
