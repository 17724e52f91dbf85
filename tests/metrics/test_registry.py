import numpy as np
import pytest
from sklearn import metrics as sk

from retigrade.metrics import classification
from retigrade.metrics.bootstrap import Bootstrap
from retigrade.metrics.decision import softmax
from retigrade.metrics.registry import METRICS, Sample, at_operating_point, measure


def sample_of(n, seed=0, sharpness=0.7):
    rng = np.random.default_rng(seed)
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.25, 0.06, 0.09])
    probabilities = softmax(rng.normal(size=(n, 5)) - sharpness * np.abs(np.arange(5) - target[:, None]))
    predicted = probabilities.argmax(axis=1)
    sets = probabilities > 0.2
    return Sample(
        probabilities=probabilities, predicted=predicted, target=target, referred=predicted >= 2, prediction_set=sets
    )


def test_every_metric_has_its_key_title_and_short_title():
    assert all(key == metric.key for key, metric in METRICS.items())
    titles = [metric.title for metric in METRICS.values()]
    shorts = [metric.short for metric in METRICS.values()]
    assert len(set(titles)) == len(set(shorts)) == len(METRICS)


def test_values_equal_scikit_learn():
    sample = sample_of(400)
    target, predicted, probabilities = sample.target, sample.predicted, sample.probabilities
    expected = {
        "accuracy": sk.accuracy_score(target, predicted),
        "quadratic_kappa": sk.cohen_kappa_score(target, predicted, weights="quadratic"),
        "balanced_accuracy": sk.balanced_accuracy_score(target, predicted),
        "macro_f1": sk.f1_score(target, predicted, average="macro"),
        "weighted_f1": sk.f1_score(target, predicted, average="weighted"),
        "off_by_two": np.mean(np.abs(target - predicted) >= 2),
        "referable_auroc": sk.roc_auc_score(target >= 2, probabilities[:, 2:].sum(axis=1)),
        "any_auroc": sk.roc_auc_score(target > 0, 1 - probabilities[:, 0]),
        "referable_sensitivity": sk.recall_score(target >= 2, sample.referred),
        "referable_specificity": sk.recall_score(target < 2, ~sample.referred),
        "referable_precision": sk.precision_score(target >= 2, sample.referred),
        "brier": ((probabilities - np.eye(5)[target]) ** 2).sum(axis=1).mean(),
        "nll": sk.log_loss(target, probabilities, labels=range(5)),
        "coverage": sample.prediction_set[np.arange(400), target].mean(),
        "set_size": sample.prediction_set.sum(axis=1).mean(),
    }
    for key, value in expected.items():
        assert METRICS[key].function(sample) == pytest.approx(value), key
    assert set(METRICS) == {*expected, "ece"}


def test_all_have_intervals_from_the_same_resamples():
    sample = sample_of(300)
    groups = np.arange(300) // 2
    together = measure(sample, METRICS, groups=groups, bootstrap=Bootstrap(rounds=50))
    assert list(together) == list(METRICS)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in together.values())
    alone = measure(sample, ["accuracy"], groups=groups, bootstrap=Bootstrap(rounds=50))
    assert alone["accuracy"] == together["accuracy"]


@pytest.mark.parametrize("n", [0, 1, 5, 12])
@pytest.mark.parametrize("grade", [0, 4])
def test_a_single_grade_says_what_it_can(n, grade):
    sample = Sample(
        probabilities=np.full((n, 5), 0.2),
        predicted=np.zeros(n, int),
        target=np.full(n, grade),
        referred=np.zeros(n, bool),
    )
    found = measure(sample, METRICS, groups=np.arange(n), bootstrap=Bootstrap(rounds=20))
    assert found["accuracy"].value == (None if n == 0 else float(grade == 0))
    assert found["referable_auroc"].value is None
    assert found["coverage"].value is None
    assert (found["accuracy"].low is None) == (n < 10)  # Wilson's, as every resample agrees


def test_another_operating_point_refers_from_another_threshold_but_always_a_referable_stage():
    sample = sample_of(200)
    all_referred, by_stage = at_operating_point(sample, 0.0), at_operating_point(sample, 1.0)
    assert all_referred.referred.all()
    np.testing.assert_array_equal(by_stage.referred, sample.predicted >= 2)
    score = classification.p_referable(sample.probabilities)
    np.testing.assert_array_equal(at_operating_point(sample, 0.4).referred, (score >= 0.4) | (sample.predicted >= 2))


def test_a_taken_sample_is_of_those_rows():
    sample = sample_of(20)
    rows = np.array([3, 3, 7])
    taken = sample.take(rows)
    np.testing.assert_array_equal(taken.target, sample.target[rows])
    np.testing.assert_array_equal(taken.prediction_set, sample.prediction_set[rows])
    assert len(sample.take(sample.correct)) == sample.correct.sum()
