import numpy as np
import pytest

from retigrade.metrics.classification import quadratic_kappa
from retigrade.metrics.decision import PLAIN_CUTS, Decision, expected_grade, needs_second_reader, softmax, spread
from retigrade.metrics.fitting import REACH, calibration_caveat, fit_decision


def validation(n, seed=0, *, noise=1.0, bias=0.0):
    rng = np.random.default_rng(seed)
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.25, 0.06, 0.09])
    seen = target + rng.normal(scale=noise, size=n) + bias
    return softmax(-((np.arange(5) - seen[:, None]) ** 2)), target


@pytest.mark.parametrize("rule", ["argmax", "median", "mean"])
@pytest.mark.parametrize("cuts", [PLAIN_CUTS, (0.35, 1.6, 2.4, 3.7)])
def test_one_photo_and_many_are_decided_alike(rule, cuts):
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.5), size=500)
    decision = Decision(rule=rule, cuts=cuts)
    np.testing.assert_array_equal(decision.decide_all(probabilities), [decision.decide(row) for row in probabilities])


def test_rules_by_hand():
    row = np.array([[0.4, 0.05, 0.1, 0.1, 0.35]])
    assert Decision(rule="argmax", cuts=PLAIN_CUTS).decide_all(row) == [0]
    assert Decision(rule="median", cuts=PLAIN_CUTS).decide_all(row) == [2]
    assert expected_grade(row) == pytest.approx([1.95])
    assert Decision(rule="mean", cuts=PLAIN_CUTS).decide_all(row) == [2]
    assert Decision(rule="mean", cuts=(0.5, 1.5, 2.0, 3.5)).decide_all(row) == [2]
    assert Decision(rule="mean", cuts=(0.5, 2.0, 2.5, 3.5)).decide_all(row) == [1]
    with pytest.raises(ValueError, match="'argmax', 'median' or 'mean'"):
        Decision(rule="mode", cuts=PLAIN_CUTS).decide_all(row)


def test_a_simple_rule_wins_where_nothing_is_gained():
    target = np.arange(100) % 5
    assert fit_decision(np.eye(5)[target], target) == Decision(rule="argmax", cuts=PLAIN_CUTS)


def test_another_rule_wins_where_the_top_grade_misleads():
    # A photograph of grade 2 looks like 0 or 4, one of grade 0 surely like 0: the middle is the better answer.
    target = np.array([0, 2] * 30)
    probabilities = np.where(target[:, None] == 2, [[0.36, 0.02, 0.24, 0.03, 0.35]], [[0.9, 0.1, 0, 0, 0]])
    decision = fit_decision(probabilities, target)
    assert decision == Decision(rule="median", cuts=PLAIN_CUTS)
    assert quadratic_kappa(target, decision.decide_all(probabilities)) == 1.0


def test_cuts_are_tuned_for_a_biased_network_and_stay_near():
    probabilities, target = validation(1500, noise=0.3, bias=0.25)
    decision = fit_decision(probabilities, target)
    cuts = decision.cuts
    assert decision.rule == "mean"
    assert cuts != PLAIN_CUTS
    assert np.all(np.abs(np.array(cuts) - PLAIN_CUTS) <= REACH + 1e-9)
    assert np.all(np.diff(cuts) > 0)
    fresh, fresh_truth = validation(1500, seed=1, noise=0.3, bias=0.25)
    tuned, plain = (
        quadratic_kappa(fresh_truth, Decision(rule="mean", cuts=c).decide_all(fresh)) for c in (cuts, PLAIN_CUTS)
    )
    assert tuned > plain


def test_cuts_are_not_tuned_to_noise_or_few_photographs():
    for seed in range(5):
        probabilities, target = validation(60, seed, noise=0.6)
        shuffled = np.random.default_rng(seed).permutation(target)
        assert fit_decision(probabilities[:40], target[:40]).cuts == PLAIN_CUTS
        assert fit_decision(probabilities, shuffled).rule in ("argmax", "median", "mean")


def test_a_single_grade_is_decided_by_argmax():
    assert fit_decision(np.full((60, 5), 0.2), np.zeros(60, int)) == Decision(rule="argmax", cuts=PLAIN_CUTS)
    assert fit_decision(np.full((1, 5), 0.2), np.array([3])) == Decision(rule="argmax", cuts=PLAIN_CUTS)


def test_doubt_between_far_stages_needs_a_second_reader_and_between_neighbours_less() -> None:
    two_peaked, neighbours, sure = (
        np.array(row) for row in ([0.33, 0.03, 0.01, 0.01, 0.62], [0.0, 0.0, 0.1, 0.5, 0.4], [0.98, 0.02, 0, 0, 0])
    )
    assert spread(np.array([[0.5, 0, 0, 0, 0.5]])) == pytest.approx([4.0])
    assert spread(np.eye(5)) == pytest.approx(np.zeros(5))
    assert spread(np.array([[0.0, 0.5, 0.5, 0.0, 0.0]])) == pytest.approx([0.25])
    assert [needs_second_reader(row, limit=1.0) for row in (two_peaked, neighbours, sure)] == [True, False, False]
    assert not needs_second_reader(two_peaked, limit=4.0)


def test_calibration_on_few_photographs_is_said() -> None:
    enough = np.array([0, 2] * 100)
    assert calibration_caveat(enough) == ""
    assert "fitted on 60 photographs, 30 of them referable" in calibration_caveat(enough[:60])
    assert "fitted on 300 photographs, 10 of them referable" in calibration_caveat(np.array([0] * 290 + [3] * 10))
