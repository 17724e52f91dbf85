import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_cohen_kappa

from retigrade.metrics import classification as metrics
from retigrade.metrics.calibration import (
    brier,
    calibration_error_by_chance,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from retigrade.metrics.decision import softmax
from retigrade.metrics.estimate import wilson
from retigrade.metrics.fitting import fit_temperature

GRADES = range(5)


def photos(seed, n=300, sharpness=2.0):
    rng = np.random.default_rng(seed)
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.25, 0.06, 0.09])
    logits = rng.normal(size=(n, 5)) - sharpness * np.abs(np.arange(5) - target[:, None])
    probabilities = softmax(logits)
    return logits, probabilities, probabilities.argmax(axis=1), target


@pytest.fixture(params=range(3), ids=lambda seed: f"seed{seed}")
def case(request):
    return photos(request.param, n=[40, 300, 2000][request.param])


def test_confusion_and_every_rate_equal_scikit_learn(case):
    _, _, predicted, target = case
    counts = metrics.confusion(target, predicted)
    np.testing.assert_array_equal(counts, sk.confusion_matrix(target, predicted, labels=list(GRADES)))
    rates = metrics.rates(counts)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        target, predicted, labels=list(GRADES), zero_division=np.nan
    )
    np.testing.assert_array_equal(rates.support, support)
    np.testing.assert_allclose(rates.sensitivity, recall)
    np.testing.assert_allclose(rates.precision, precision)
    np.testing.assert_allclose(rates.f1, f1)
    for grade in GRADES:
        own, called = target == grade, predicted == grade
        assert rates.accuracy[grade] == pytest.approx(sk.accuracy_score(own, called))
        assert rates.specificity[grade] == pytest.approx(sk.recall_score(~own, ~called))


def test_averages_equal_scikit_learn(case):
    _, _, predicted, target = case
    rates = metrics.rates(metrics.confusion(target, predicted))
    for average, ours in (("macro", rates.macro()), ("weighted", rates.weighted())):
        precision, recall, f1, _ = sk.precision_recall_fscore_support(target, predicted, average=average)
        assert (ours["precision"], ours["sensitivity"], ours["f1"]) == pytest.approx((precision, recall, f1))
    assert metrics.accuracy(target, predicted) == pytest.approx(sk.accuracy_score(target, predicted))
    assert rates.weighted()["sensitivity"] == pytest.approx(metrics.accuracy(target, predicted))
    assert metrics.balanced_accuracy(target, predicted) == pytest.approx(sk.balanced_accuracy_score(target, predicted))
    assert metrics.macro_f1(target, predicted) == pytest.approx(sk.f1_score(target, predicted, average="macro"))


def test_quadratic_kappa_equals_scikit_learn_and_torchmetrics(case):
    import torch

    _, _, predicted, target = case
    ours = metrics.quadratic_kappa(target, predicted)
    assert ours == pytest.approx(sk.cohen_kappa_score(target, predicted, weights="quadratic"))
    theirs = multiclass_cohen_kappa(
        torch.from_numpy(predicted), torch.from_numpy(target), num_classes=5, weights="quadratic"
    )
    assert ours == pytest.approx(float(theirs), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_figures_never_fail_and_stay_in_range(pairs):
    target, predicted = np.array(pairs).T
    rates = metrics.rates(metrics.confusion(target, predicted))
    for name in metrics.RATES:
        values = getattr(rates, name)
        assert np.all(np.isnan(values) | ((values >= 0) & (values <= 1)))
    assert rates.support.sum() == len(pairs)
    kappa = metrics.quadratic_kappa(target, predicted)
    assert np.isnan(kappa) or -1 - 1e-9 <= kappa <= 1
    assert metrics.off_by_two(target, predicted) <= 1 - metrics.accuracy(target, predicted) + 1e-12
    expected = [abs(a - b) >= 2 for a, b in pairs]
    assert metrics.off_by_two(target, predicted) == pytest.approx(np.mean(expected))


def test_undefined_rates_are_nan_and_a_never_decided_grade_has_no_precision():
    rates = metrics.rates(metrics.confusion(np.array([0, 0, 1]), np.array([0, 2, 0])))
    np.testing.assert_array_equal(np.isnan(rates.sensitivity), [False, False, True, True, True])
    np.testing.assert_array_equal(rates.precision[:3], [0.5, 0.0, 0.0])
    np.testing.assert_array_equal(np.isnan(rates.precision), [False, False, False, True, True])
    assert rates.macro()["sensitivity"] == pytest.approx(0.25)
    assert rates.weighted()["sensitivity"] == pytest.approx(1 / 3)


def test_kappa_by_hand():
    counts = np.zeros((5, 5), int)
    counts[0, 0], counts[0, 1], counts[2, 2] = 3, 1, 4
    # Observed 1; expected (4*3*0 + 4*1*1 + 4*4*4 + 4*3*4 + 4*1*1 + 0) / 8 = 15.
    assert metrics.quadratic_kappa_of(counts) == pytest.approx(1 - 1 / 15)
    assert np.isnan(metrics.quadratic_kappa(np.zeros(4, int), np.zeros(4, int)))


def test_auroc_equals_scikit_learn_with_ties(case):
    _, probabilities, _, target = case
    rounded = probabilities.round(1)
    for score in (metrics.p_referable(probabilities), metrics.p_referable(rounded)):
        positive = metrics.is_referable(target)
        assert metrics.auroc(score, positive) == pytest.approx(sk.roc_auc_score(positive, score))
    assert metrics.auroc(metrics.p_any(probabilities), target > 0) == pytest.approx(
        sk.roc_auc_score(target > 0, 1 - probabilities[:, 0])
    )
    per_grade = metrics.auroc_per_grade(probabilities, target)
    for grade in GRADES:
        assert per_grade[grade] == pytest.approx(sk.roc_auc_score(target == grade, probabilities[:, grade]))


def test_auroc_of_one_kind_is_nan():
    assert np.isnan(metrics.auroc(np.array([0.1, 0.2]), np.array([True, True])))
    assert np.isnan(metrics.auroc(np.empty(0), np.empty(0, bool)))


def test_operating_point_and_its_threshold(case):
    _, probabilities, _, target = case
    score, positive = metrics.p_referable(probabilities), metrics.is_referable(target)
    threshold = metrics.threshold_for_sensitivity(score, positive, 0.9)
    point = metrics.at_threshold(score, positive, threshold)
    assert point.sensitivity >= 0.9
    assert point.sensitivity == pytest.approx(sk.recall_score(positive, score >= threshold))
    assert point.specificity == pytest.approx(sk.recall_score(~positive, score < threshold))
    assert point.precision == pytest.approx(sk.precision_score(positive, score >= threshold))
    stricter = metrics.at_threshold(score, positive, np.nextafter(threshold, 2))
    assert stricter.sensitivity < 0.9


def test_a_sensitivity_without_positives_is_refused():
    with pytest.raises(ValueError, match="positive photograph"):
        metrics.threshold_for_sensitivity(np.array([0.5]), np.array([False]), 0.9)
    with pytest.raises(ValueError, match="sensitivity must lie"):
        metrics.threshold_for_sensitivity(np.array([0.5]), np.array([True]), 0.0)


@pytest.mark.parametrize(
    ("target", "predicted", "complaint"),
    [
        ([0, 5], [0, 1], "0..4"),
        ([0, 1], [-1, 1], "0..4"),
        ([0, 1], [0], "one length"),
        ([0.0, 1.0], [0, 1], "whole grades"),
        ([[0]], [[0]], "whole grades"),
    ],
)
def test_wrong_grades_are_refused(target, predicted, complaint):
    with pytest.raises(ValueError, match=complaint):
        metrics.confusion(np.array(target), np.array(predicted))


def test_wrong_probabilities_and_scores_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        metrics.auroc_per_grade(np.full((2, 5), 0.3), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        metrics.auroc_per_grade(np.full((2, 4), 0.25), np.array([0, 1]))
    with pytest.raises(ValueError, match="1 of 2 scores are nan"):
        metrics.auroc(np.array([0.1, np.nan]), np.array([True, False]))


def test_likelihood_and_brier_equal_scikit_learn(case):
    _, probabilities, _, target = case
    assert negative_log_likelihood(probabilities, target) == pytest.approx(
        sk.log_loss(target, probabilities, labels=list(GRADES))
    )
    one_hot = np.eye(5)[target]
    assert brier(probabilities, target) == pytest.approx(((probabilities - one_hot) ** 2).sum(axis=1).mean())


def test_equal_width_calibration_error_equals_torchmetrics(case):
    import torch

    _, probabilities, predicted, target = case
    ours = expected_calibration_error(probabilities.max(axis=1), predicted == target, bins=15, equal_mass=False)
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(target), num_classes=5, n_bins=15, norm="l1"
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_equal_mass_bins_hold_equal_numbers_and_ignore_order():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 600)
    correct = rng.uniform(size=600) < confidence
    diagram = reliability(confidence, correct, bins=15)
    np.testing.assert_array_equal(diagram.count, np.full(15, 40))
    assert np.all(np.diff(diagram.confidence) > 0)
    assert np.all((diagram.low <= diagram.accuracy) & (diagram.accuracy <= diagram.high))
    by_hand = np.mean(
        [abs(np.mean(correct[part]) - np.mean(confidence[part])) for part in np.array_split(np.argsort(confidence), 15)]
    )
    assert expected_calibration_error(confidence, correct) == pytest.approx(by_hand)
    tied = confidence.round(1)
    shuffle = rng.permutation(600)
    assert expected_calibration_error(tied, correct) == pytest.approx(
        expected_calibration_error(tied[shuffle], correct[shuffle])
    )


def test_calibration_error_of_few_or_no_photographs():
    assert np.isnan(expected_calibration_error(np.empty(0), np.empty(0, bool)))
    assert expected_calibration_error(np.array([1.0]), np.array([True])) == 0.0
    assert expected_calibration_error(np.array([0.9]), np.array([False]), equal_mass=False) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="at least one bin"):
        expected_calibration_error(np.array([0.9]), np.array([True]), bins=0)


def test_wilson_by_hand():
    low, high = wilson(np.array([8.0, 0.0]), np.array([10, 10]))
    np.testing.assert_allclose(low, [0.4902, 0.0], atol=1e-4)
    np.testing.assert_allclose(high, [0.9433, 0.2775], atol=1e-4)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_is_recovered_and_no_neighbour_is_better(factor):
    rng = np.random.default_rng(5)
    logits = rng.normal(scale=1.5, size=(20000, 5))
    target = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    temperature = fit_temperature(logits * factor, target)
    assert temperature == pytest.approx(factor, rel=0.05)
    best = negative_log_likelihood(softmax(logits * factor, temperature=temperature), target)
    for neighbour in (temperature * 0.98, temperature * 1.02):
        assert negative_log_likelihood(softmax(logits * factor, temperature=neighbour), target) > best


def test_temperature_stays_in_range_and_needs_photographs():
    target = np.array([0, 1, 2])
    assert fit_temperature(np.eye(5)[target], target) == pytest.approx(0.1, rel=1e-4)
    assert fit_temperature(-np.eye(5)[target], target) == pytest.approx(10, rel=1e-4)
    assert 0.1 <= fit_temperature(np.eye(5)[target] * 1e4, target) <= 10
    with pytest.raises(ValueError, match="at least one"):
        fit_temperature(np.empty((0, 5)), np.empty(0, int))


def test_softmax_does_not_overflow():
    np.testing.assert_allclose(softmax(np.array([[1e4, 0, 0, 0, -1e4]], np.float32)), [[1, 0, 0, 0, 0]])


def test_chance_alone_leaves_a_calibration_error_that_falls_with_the_number_of_photographs() -> None:
    rng = np.random.default_rng(0)
    confidence = np.full(15, 0.5)  # one photograph a bin is half a unit off, whichever way it falls
    assert calibration_error_by_chance(confidence + np.arange(15) * 1e-9, rng=rng) == pytest.approx(0.5)
    few, many = (calibration_error_by_chance(rng.uniform(0.5, 1, n), rng=rng) for n in (60, 6000))
    assert few > 5 * many > 0
    confidence = rng.uniform(0.5, 1, 2000)
    perfect = np.mean([expected_calibration_error(confidence, rng.random(2000) < confidence) for _ in range(50)])
    assert calibration_error_by_chance(confidence, rng=rng) == pytest.approx(perfect, rel=0.1)
