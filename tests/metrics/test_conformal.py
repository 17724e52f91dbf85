import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retigrade.metrics.conformal import conformal_quantile, nonconformity_scores, prediction_sets
from retigrade.metrics.decision import softmax


def photos(n, seed):
    rng = np.random.default_rng(seed)
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.25, 0.06, 0.09])
    seen = target + rng.normal(scale=0.8, size=n)
    return softmax(-((np.arange(5) - seen[:, None]) ** 2)), target


def test_scores_by_hand():
    row = np.array([[0.3, 0.05, 0.4, 0.15, 0.1]])
    np.testing.assert_allclose(nonconformity_scores(row), [[0.7, 0.65, 0.0, 0.4, 0.55]])
    np.testing.assert_array_equal(prediction_sets(row, 0.5), [[False, False, True, True, False]])
    np.testing.assert_array_equal(prediction_sets(row, 0.0), [[False, False, True, False, False]])
    np.testing.assert_array_equal(prediction_sets(row, 1.0), [[True] * 5])


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_holds_on_fresh_photographs(coverage):
    held, sizes = [], []
    for seed in range(20):
        threshold = conformal_quantile(*photos(500, seed), coverage)
        fresh, target = photos(1000, 1000 + seed)
        prediction_set = prediction_sets(fresh, threshold)
        held.append(prediction_set[np.arange(1000), target].mean())
        sizes.append(prediction_set.sum(axis=1).mean())
    assert np.mean(held) >= coverage - 0.01
    assert np.mean(sizes) < 4


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=5, max_size=5), st.floats(0, 1))
def test_sets_are_runs_around_the_most_probable_grade(weights, threshold):
    row = (np.array(weights) / sum(weights))[None]
    (prediction_set,) = prediction_sets(row, threshold)
    places = np.flatnonzero(prediction_set)
    assert prediction_set[row[0].argmax()]
    np.testing.assert_array_equal(places, np.arange(places[0], places[-1] + 1))


def test_too_few_photographs_make_every_grade_possible():
    probabilities, target = photos(8, 0)
    assert conformal_quantile(probabilities, target, 0.9) == 1.0
    assert conformal_quantile(np.empty((0, 5)), np.empty(0, int), 0.9) == 1.0
    assert prediction_sets(probabilities, 1.0).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 90])
def test_coverage_must_be_a_share(coverage):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_quantile(*photos(20, 0), coverage)
