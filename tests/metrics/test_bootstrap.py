import math

import numpy as np
import pytest

from retigrade.metrics import classification as metrics
from retigrade.metrics.bootstrap import Bootstrap, settled
from retigrade.metrics.decision import softmax
from retigrade.metrics.estimate import Estimate


def photos(n, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.25, 0.06, 0.09])
    probabilities = softmax(rng.normal(size=(n, 5)) - sharpness * np.abs(np.arange(5) - target[:, None]))
    return probabilities, probabilities.argmax(axis=1), target


def test_interval_of_a_mean_matches_theory():
    values = np.random.default_rng(1).normal(size=1000)
    found = Bootstrap(seed=2).estimate(lambda x: float(x.mean()), values)
    half = 1.96 * values.std() / math.sqrt(1000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=half / 8)


def test_interval_widens_when_photographs_come_in_groups():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(100), 4)
    values = rng.normal(size=100)[patients]
    alone = Bootstrap().estimate(lambda x: float(x.mean()), values)
    grouped = Bootstrap().estimate(lambda x: float(x.mean()), values, groups=patients.astype(str))
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.15)


def test_whole_groups_are_drawn():
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(30), [1, 2, 3] * 10))

    def check(drawn):
        members, counts = np.unique(drawn, return_counts=True)
        sizes = np.array([1, 2, 3] * 10)[members]
        assert np.all(counts % sizes == 0)
        assert (counts // sizes).sum() == 30
        return float(len(drawn))

    found = Bootstrap(rounds=50).estimate(check, groups, groups=groups)
    assert found.low < found.high


def test_same_seed_same_interval_and_arrays_stay_together():
    _, predicted, target = photos(200)
    first, second = (Bootstrap(rounds=200, seed=7).estimate(metrics.accuracy, target, predicted) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high
    same = Bootstrap(rounds=20, seed=7).estimate(metrics.accuracy, target, target.copy())
    assert same.value == 1.0
    assert same.low is None


def test_coverage_is_near_95_percent():
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(200):
        target = rng.integers(0, 2, 150)
        predicted = np.where(rng.uniform(size=150) < 0.8, target, 1 - target)
        found = Bootstrap(rounds=200, seed=seed).estimate(metrics.accuracy, target, predicted)
        held += found.low <= 0.8 <= found.high
    assert held >= 180


@pytest.mark.parametrize("n", [1, 2, 9])
def test_too_few_photographs_give_a_value_without_interval(n):
    _, predicted, target = photos(n)
    found = Bootstrap().estimate(metrics.accuracy, target, predicted)
    assert 0 <= found.value <= 1
    assert found.low is found.high is None


def test_resamples_that_lack_a_grade_are_left_out():
    score = np.linspace(0, 1, 40)
    rare = np.isin(np.arange(40), [5, 37])
    found = Bootstrap(rounds=400).estimate(metrics.auroc, score, rare)
    assert found.low < found.value < found.high
    never = Bootstrap(rounds=20).estimate(metrics.auroc, score, np.zeros(40, bool))
    assert never == Estimate.of(math.nan)


def test_several_figures_share_resamples():
    values = np.random.default_rng(1).normal(size=50)
    mean, shifted = Bootstrap(rounds=100).estimates(lambda x: np.array([x.mean(), x.mean() + 1]), values)
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((mean.value + 1, mean.low + 1, mean.high + 1))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        Bootstrap().estimate(metrics.accuracy, np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(ValueError, match="one length"):
        Bootstrap().estimate(metrics.accuracy, np.zeros(3, int), groups=np.zeros(2))


def test_a_share_that_no_resample_changes_has_wilsons_interval():
    groups = np.arange(20)
    always = Bootstrap(rounds=20).share(np.ones(20, bool), groups=groups)
    assert always == Estimate.proportion(1.0, 20)
    among = Bootstrap(rounds=20).share(np.arange(20) < 10, among=np.arange(20) < 10, groups=groups)
    assert among == Estimate.proportion(1.0, 10)
    assert Bootstrap(rounds=20).share(np.ones(20, bool), groups=groups // 4).low is None  # five groups are too few
    sometimes = Estimate.of(0.5, 0.4, 0.6)
    assert settled(sometimes, groups=groups) == sometimes


def test_a_pivotal_interval_is_reflected_and_never_negative():
    values = np.random.default_rng(0).normal(0.1, 1, size=200) ** 2
    plain = Bootstrap(rounds=200).estimate(lambda x: float(x.mean()), values)
    reflected = Bootstrap(rounds=200).estimate(lambda x: float(x.mean()), values, pivotal=True)
    assert reflected.low == pytest.approx(2 * plain.value - plain.high)
    small = Bootstrap(rounds=200).estimate(lambda x: float(abs(x.mean())), values - values.mean(), pivotal=True)
    assert small.low == 0.0
