from __future__ import annotations

import numpy as np
import pytest

from retigrade.evaluation.retest import FEWEST_PAIRS, noise_of, photograph_again
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye


def test_two_percent_of_the_pairs_differ_by_more_than_the_noise() -> None:
    rng = np.random.default_rng(0)
    pairs = [(1.0, 1.0 + float(delta), bool(abs(delta) < 0.5)) for delta in rng.normal(0, 0.3, 1000)]
    noise = noise_of(pairs)
    assert noise is not None
    beyond = np.mean([abs(first - second) > noise.expected_grade for first, second, _ in pairs])
    assert 0.01 <= beyond <= 0.02
    assert noise.same_grade.value == pytest.approx(np.mean([same for *_, same in pairs]))


def test_too_few_pairs_give_no_noise() -> None:
    assert noise_of([(0.0, 0.1, True)] * (FEWEST_PAIRS - 1)) is None


def test_a_second_photograph_is_another_picture_of_the_same_eye() -> None:
    eye = draw_eye(grade=Grade.MODERATE, rng=np.random.default_rng(1), size=240).pixels
    again = photograph_again(eye, np.random.default_rng(2))
    assert again.dtype == np.uint8
    assert again.shape != eye.shape or not np.array_equal(again, eye)
    assert 0.7 < again.mean() / eye.mean() < 1.4
    assert np.array_equal(again, photograph_again(eye, np.random.default_rng(2)))
