from __future__ import annotations

import numpy as np
import pytest

from gradings import refused
from predictions_by_hand import answer, predictions_on
from retigrade.errors import DataError, UsageError
from retigrade.evaluation.tuning import FEWEST, choose_threshold
from retigrade.metadata import Figure
from retigrade.metrics.estimate import Estimate
from tiny_bundle import tiny_card


def verdicts(referable: list[float], healthy: list[float], *, refuse: int = 0):
    """Photographs of moderate and of healthy eyes with these probabilities of a referable stage."""
    scores = [*referable, *healthy]
    target = [2] * len(referable) + [0] * len(healthy)
    gradings = [answer([1 - score, 0, score, 0, 0]) for score in scores]
    return predictions_on(target + [0] * refuse, gradings + [refused()] * refuse)


def test_the_threshold_reaches_the_wish_and_is_the_highest_that_does() -> None:
    positives = [0.49, 0.48, 0.45, 0.44, 0.42, 0.4, 0.35, 0.3, 0.2, 0.15] * 2
    tuned = choose_threshold(verdicts(positives, [0.1, 0.36, 0.41, 0.05] * 5), sensitivity=0.8, prevalence=0.1)
    assert tuned.point.threshold == pytest.approx(0.3, abs=2e-6)
    assert tuned.point.threshold <= 0.3
    assert tuned.point.sensitivity.value == pytest.approx(0.8)
    assert tuned.point.specificity.value == pytest.approx(0.5)


def test_it_says_what_a_thousand_people_may_expect() -> None:
    tuned = choose_threshold(
        verdicts([0.9] * 18 + [0.1] * 2, [0.05] * 16 + [0.95] * 4, refuse=10), sensitivity=0.9, prevalence=0.2
    )
    assert tuned.missed.value == pytest.approx(1000 * 0.2 * 0.1)
    assert tuned.over_referred.value == pytest.approx(1000 * 0.8 * 0.2)
    assert tuned.missed.low < tuned.missed.value < tuned.missed.high
    assert tuned.refused == pytest.approx(0.2)
    assert (tuned.referable, tuned.others) == (20, 20)


def test_a_perfect_split_still_has_intervals() -> None:
    tuned = choose_threshold(verdicts([0.9] * 20, [0.1] * 20), sensitivity=1.0, prevalence=0.1)
    assert tuned.point.sensitivity.value == 1.0
    assert tuned.point.sensitivity.low < 0.9
    assert tuned.missed.value == 0.0
    assert tuned.missed.high > 0


def test_photographs_of_one_patient_count_once() -> None:
    gradings = [answer([0.1, 0, 0.9, 0, 0])] * 80 + [answer([0.9, 0, 0.1, 0, 0])] * 80
    target = [2] * 80 + [0] * 80
    alone = choose_threshold(predictions_on(target, gradings), sensitivity=1.0, prevalence=0.1)
    grouped = choose_threshold(
        predictions_on(target, gradings, groups=np.arange(160) // 4), sensitivity=1.0, prevalence=0.1
    )
    assert grouped.point.sensitivity.low < alone.point.sensitivity.low


def test_the_card_takes_the_point_as_its_default() -> None:
    tuned = choose_threshold(verdicts([0.9] * 20, [0.1] * 20), sensitivity=1.0, prevalence=0.1)
    metadata = tuned.metadata(tiny_card())
    assert set(metadata.operating_points) == {"screening", "tuned"}
    assert metadata.threshold() == metadata.threshold("tuned") == tuned.point.threshold
    assert metadata.decide(np.array([0.1, 0, 0.9, 0, 0])).referable


@pytest.mark.parametrize("sensitivity", [0.0, -1.0, 1.01, float("nan")])
def test_a_sensitivity_out_of_range(sensitivity: float) -> None:
    with pytest.raises(UsageError, match="--sensitivity must lie above 0"):
        choose_threshold(verdicts([0.9], [0.1]), sensitivity=sensitivity, prevalence=0.1)


@pytest.mark.parametrize("prevalence", [-0.1, 1.5, float("nan")])
def test_a_prevalence_out_of_range(prevalence: float) -> None:
    with pytest.raises(UsageError, match="--prevalence"):
        choose_threshold(verdicts([0.9], [0.1]), sensitivity=0.9, prevalence=prevalence)


def test_a_wish_that_refers_everybody_cannot_be_met() -> None:
    with pytest.raises(UsageError, match="cannot be met: only by referring all 40"):
        choose_threshold(verdicts([0.9, 0.1] * 10, [0.3, 0.2] * 10), sensitivity=1.0, prevalence=0.1)


@pytest.mark.parametrize(("referable", "others"), [(0, 30), (30, 0), (FEWEST - 1, 30), (30, FEWEST - 1)])
def test_too_few_photographs_choose_no_threshold(referable: int, others: int) -> None:
    with pytest.raises(DataError, match=f"independent eyes or patients; {FEWEST} are needed"):
        choose_threshold(verdicts([0.9] * referable, [0.1] * others, refuse=2), sensitivity=0.9, prevalence=0.1)


def test_few_photographs_are_said_to_be_few() -> None:
    tuned = choose_threshold(verdicts([0.9] * 30, [0.1] * 120), sensitivity=0.9, prevalence=0.1)
    assert tuned.remarks == ("Only 30 independent referable eyes chose the threshold: see how wide the interval is.",)


def test_photographs_that_the_bundle_learned_from_are_said() -> None:
    tuned = choose_threshold(verdicts([0.9] * 120, [0.1] * 120), sensitivity=0.9, prevalence=0.1, known=("a.png",))
    assert tuned.remarks[0].startswith("The bundle learned from 1 of these 240 photographs (a.png)")


def test_a_referable_stage_is_referred_at_every_threshold() -> None:
    tuned = choose_threshold(verdicts([0.9] * 20, [0.1] * 20), sensitivity=1.0, prevalence=0.1)
    assert tuned.point.threshold == 1.0
    assert tuned.point.sensitivity.value == 1.0
    assert tuned.point.specificity.value == 1.0


def test_figures_at_the_former_point_are_not_those_of_the_new_one() -> None:
    estimate = Estimate.of(0.5, 0.4, 0.6)
    kept, gone = (
        Figure(set="drawn", photos=40, graded=40, metric=metric, estimate=estimate)
        for metric in ("referable_auroc", "referable_sensitivity")
    )
    tuned = choose_threshold(verdicts([0.9] * 20, [0.1] * 20), sensitivity=1.0, prevalence=0.1)
    assert tuned.metadata(tiny_card().model_copy(update={"figures": (kept, gone)})).figures == (kept,)
