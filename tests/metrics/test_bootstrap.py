import json
import math
import time

import numpy as np
import pytest

from retigrade.metrics import classification as metrics
from retigrade.metrics.bootstrap import interval, intervals, summary
from retigrade.metrics.decision import softmax
from retigrade.metrics.estimate import Estimate


def photos(n, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.25, 0.06, 0.09])
    probabilities = softmax(rng.normal(size=(n, 5)) - sharpness * np.abs(np.arange(5) - target[:, None]))
    return probabilities, probabilities.argmax(axis=1), target


def test_interval_of_a_mean_matches_theory():
    values = np.random.default_rng(1).normal(size=1000)
    found = interval(lambda x: float(x.mean()), values, rng=np.random.default_rng(2))
    half = 1.96 * values.std() / math.sqrt(1000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=half / 8)


def test_interval_widens_when_photographs_come_in_groups():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(100), 4)
    values = rng.normal(size=100)[patients]
    alone = interval(lambda x: float(x.mean()), values, rng=rng)
    grouped = interval(lambda x: float(x.mean()), values, groups=patients.astype(str), rng=rng)
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.15)


def test_whole_groups_are_drawn():
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(30), [1, 2, 3] * 10))

    def check(drawn):
        members, counts = np.unique(drawn, return_counts=True)
        sizes = np.array([1, 2, 3] * 10)[members]
        assert np.all(counts % sizes == 0)
        assert (counts // sizes).sum() == 30
        return float(len(drawn))

    found = interval(check, groups, groups=groups, rng=np.random.default_rng(0), rounds=50)
    assert found.low < found.high


def test_same_generator_same_interval_and_arrays_stay_together():
    _, predicted, target = photos(200)
    first, second = (
        interval(metrics.accuracy, target, predicted, rng=np.random.default_rng(7), rounds=200) for _ in range(2)
    )
    assert first == second
    assert first.low < first.value < first.high
    same = interval(metrics.accuracy, target, target.copy(), rng=np.random.default_rng(7), rounds=20)
    assert same.value == 1.0
    assert same.low is None


def test_coverage_is_near_95_percent():
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(200):
        target = rng.integers(0, 2, 150)
        predicted = np.where(rng.uniform(size=150) < 0.8, target, 1 - target)
        found = interval(metrics.accuracy, target, predicted, rng=rng, rounds=200)
        held += found.low <= 0.8 <= found.high
    assert held >= 180


@pytest.mark.parametrize("n", [1, 2, 9])
def test_too_few_photographs_give_a_value_without_interval(n):
    _, predicted, target = photos(n)
    found = interval(metrics.accuracy, target, predicted, rng=np.random.default_rng(0))
    assert 0 <= found.value <= 1
    assert found.low is found.high is None


def test_resamples_that_lack_a_grade_are_left_out():
    score = np.linspace(0, 1, 40)
    rare = np.isin(np.arange(40), [5, 37])
    found = interval(metrics.auroc, score, rare, rng=np.random.default_rng(0), rounds=400)
    assert found.low < found.value < found.high
    never = interval(metrics.auroc, score, np.zeros(40, bool), rng=np.random.default_rng(0), rounds=20)
    assert never == Estimate.of(math.nan)


def test_several_figures_share_resamples():
    values = np.random.default_rng(1).normal(size=50)
    mean, shifted = intervals(
        lambda x: np.array([x.mean(), x.mean() + 1]), values, rng=np.random.default_rng(0), rounds=100
    )
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((mean.value + 1, mean.low + 1, mean.high + 1))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        interval(metrics.accuracy, np.zeros(3, int), np.zeros(4, int), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="one length"):
        interval(metrics.accuracy, np.zeros(3, int), groups=np.zeros(2), rng=np.random.default_rng(0))


def test_estimate_reads_well():
    assert str(Estimate.of(0.9123, 0.8871, 0.9339)) == "0.912 (0.887-0.934)"
    assert str(Estimate.of(0.5, math.nan, math.nan)) == "0.500"
    assert str(Estimate.of(math.nan, math.nan, math.nan)) == "not defined"


def test_summary_holds_each_figure_in_its_place():
    probabilities, predicted, target = photos(400)
    found = summary(probabilities, predicted, target, threshold=0.4, rng=np.random.default_rng(0), rounds=100)
    referable = metrics.is_referable(target)
    point = metrics.at_threshold(metrics.p_referable(probabilities), referable, 0.4)
    rates = metrics.rates(metrics.confusion(target, predicted))
    assert found.accuracy.value == metrics.accuracy(target, predicted)
    assert found.quadratic_kappa.value == metrics.quadratic_kappa(target, predicted)
    assert found.balanced_accuracy.value == metrics.balanced_accuracy(target, predicted)
    assert found.macro_f1.value == metrics.macro_f1(target, predicted)
    assert found.macro_precision.value == rates.macro()["precision"]
    assert found.macro_specificity.value == rates.macro()["specificity"]
    assert (found.precision.value, found.recall.value, found.f1.value) == tuple(
        rates.weighted()[name] for name in ("precision", "sensitivity", "f1")
    )
    assert found.off_by_two.value == metrics.off_by_two(target, predicted)
    assert found.referable_auroc.value == metrics.auroc(metrics.p_referable(probabilities), referable)
    assert found.referable_sensitivity.value == point.sensitivity
    assert found.referable_specificity.value == point.specificity
    assert found.any_auroc.value == metrics.auroc(1 - probabilities[:, 0], target > 0)
    assert [estimate.value for estimate in found.recall_per_grade] == list(rates.sensitivity)
    aurocs = metrics.auroc_per_grade(probabilities, target)
    assert [estimate.value for estimate in found.auroc_per_grade] == list(aurocs)
    assert found.macro_auroc.value == pytest.approx(aurocs.mean())
    assert sum(found.support) == found.photos == found.groups == 400
    assert found.ece.low <= found.ece.value <= found.ece.high
    for estimate in (found.accuracy, found.quadratic_kappa, found.nll, found.brier, *found.auroc_per_grade):
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("n", [1, 5, 12])
@pytest.mark.parametrize("grade", [0, 4])
def test_summary_of_a_single_grade_says_what_it_can(n, grade):
    probabilities = np.full((n, 5), 0.2)
    target = np.full(n, grade)
    found = summary(probabilities, np.zeros(n, int), target, rng=np.random.default_rng(0), rounds=20)
    assert found.accuracy.value == float(grade == 0)
    assert found.referable_auroc.value is None
    text = json.dumps(found.as_json(), allow_nan=False)
    assert json.loads(text)["referable_auroc"] == {"value": None, "low": None, "high": None}
    assert json.loads(text)["support"][grade] == n


def test_summary_refuses_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one"):
        summary(np.empty((0, 5)), np.empty(0, int), np.empty(0, int), rng=np.random.default_rng(0))
    probabilities, predicted, target = photos(20)
    with pytest.raises(ValueError, match="need probabilities"):
        summary(probabilities[:10], predicted, target, rng=np.random.default_rng(0))


def test_a_thousand_rounds_on_seven_hundred_photographs_are_quick():
    probabilities, predicted, target = photos(700)
    started = time.process_time()
    summary(probabilities, predicted, target, groups=np.arange(700) // 2, rng=np.random.default_rng(0))
    assert time.process_time() - started < 8  # about 1.2 s on one idle core; the slack is for a busy machine
