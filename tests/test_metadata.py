import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from retigrade.errors import BundleError, UsageError
from retigrade.fundus.quality import QualityLimits
from retigrade.icdr import Grade
from retigrade.metadata import Metadata, OutOfDistributionDetector, QualityHead, Training, direction
from retigrade.metrics.conformal import Conformal
from retigrade.metrics.decision import Decision, OperatingPoint
from retigrade.metrics.estimate import Estimate
from tiny_bundle import tiny_card

EVEN = (0.5, 1.5, 2.5, 3.5)
distributions = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any).map(lambda w: np.array(w) / sum(w))


@pytest.mark.parametrize(
    ("rule", "cuts", "probabilities", "grade"),
    [
        ("argmax", EVEN, [0.4, 0.0, 0.3, 0.3, 0.0], 0),
        ("argmax", EVEN, [0.1, 0.4, 0.1, 0.4, 0.0], 1),
        ("median", EVEN, [0.4, 0.0, 0.3, 0.3, 0.0], 2),
        ("median", EVEN, [0.5, 0.0, 0.0, 0.0, 0.5], 0),
        ("mean", EVEN, [0.4, 0.0, 0.3, 0.3, 0.0], 2),
        ("mean", EVEN, [0.5, 0.5, 0.0, 0.0, 0.0], 1),
        ("mean", (0.2, 0.4, 0.6, 0.8), [0.5, 0.5, 0.0, 0.0, 0.0], 2),
        ("mean", EVEN, [0.0, 0.0, 0.0, 0.0, 1.0], 4),
    ],
)
def test_the_rules(rule: str, cuts: tuple[float, ...], probabilities: list[float], grade: int) -> None:
    predicted = Decision(rule=rule, cuts=cuts).decide(np.array(probabilities))  # type: ignore[arg-type]
    assert predicted is Grade(grade)


@given(probabilities=distributions, tilt=st.floats(0.01, 5), rule=st.sampled_from(["argmax", "median", "mean"]))
def test_worse_evidence_never_gives_a_milder_grade(probabilities: np.ndarray, tilt: float, rule: str) -> None:
    worse = probabilities * np.exp(tilt * np.arange(5))
    worse /= worse.sum()
    decision = Decision(rule=rule, cuts=EVEN)  # type: ignore[arg-type]
    assert decision.decide(worse) >= decision.decide(probabilities)


@given(st.integers(0, 4), st.sampled_from(["argmax", "median", "mean"]))
def test_certainty_decides_whatever_the_rule(grade: int, rule: str) -> None:
    assert Decision(rule=rule, cuts=EVEN).decide(np.eye(5)[grade]) == grade  # type: ignore[arg-type]


@given(st.lists(st.floats(-50, 50, width=32), min_size=5, max_size=5))
def test_probabilities_are_the_softmax_of_the_divided_logits(logits: list[float]) -> None:
    found = tiny_card(temperature=2.0).probabilities(np.array([logits], np.float32))[0]
    raised = np.exp(np.array(logits) / 2.0)
    np.testing.assert_allclose(found, raised / raised.sum(), rtol=1e-9)
    assert found.dtype == np.float64


def test_probabilities_survive_huge_logits() -> None:
    found = tiny_card().probabilities(np.array([[3e38, -3e38, 0, 0, 0]], np.float32))
    np.testing.assert_array_equal(found, [[1, 0, 0, 0, 0]])


def test_referable_counts_moderate_and_worse_from_the_threshold_on() -> None:
    metadata = tiny_card(referable_threshold=0.5)
    assert metadata.decide(np.array([0.25, 0.25, 0.25, 0.125, 0.125])).referable
    verdict = metadata.decide(np.array([0.25, 0.5, 0.0, 0.125, 0.125]))
    assert (verdict.p_referable, verdict.referable, verdict.reasons) == (0.25, False, ())


def test_a_typical_photo_is_near_and_a_strange_one_far() -> None:
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    typical = np.array([[9, 4, 1, 0, 1, 16]], np.float32)
    mean = direction(typical)[0]
    np.testing.assert_allclose(mean, np.array([3, 2, 1, 0, 1, 4]) / np.sqrt(31), atol=1e-6)
    detector = OutOfDistributionDetector.pack(mean=mean, scale=[0.5, 0.25, 0.1], components=components, limit=1.0)
    assert detector.channels == 6
    assert detector.distance(typical)[0] == pytest.approx(0, abs=0.02)
    assert detector.distance(7 * typical)[0] == pytest.approx(0, abs=0.02)  # how strong they are says nothing
    strange = np.array([[0, 1, 9, 9, 0, 0]], np.float32)
    away = direction(strange)[0] - mean
    along = components @ away
    expected = np.sqrt(((along / [0.5, 0.25]) ** 2).sum() + (away @ away - along @ along) / 0.1**2)
    assert detector.distance(strange)[0] == pytest.approx(expected, rel=0.01)


def test_a_quality_head_weighs_what_the_features_point_to() -> None:
    features = np.array([[9, 4, 1, 0, 1, 16]], np.float32)
    weights = np.array([1, -2, 0.5, 0, 4, 1])
    head = QualityHead.pack(weights=weights, gate=0.5, offset=-0.25, limit=0.5)
    expected = np.array([3, 2, 1, 0, 1, 4]) / np.sqrt(31) @ weights + 0.5 * 3 - 0.25
    gate = np.array([3.0])
    assert head.score(features, gate)[0] == pytest.approx(expected, rel=1e-3)
    assert head.score(7 * features, gate)[0] == pytest.approx(expected, rel=1e-3)  # how strong they are says nothing
    assert head.beyond(features, 3.0) == pytest.approx(expected - 0.5, rel=1e-3)


@pytest.mark.parametrize("weights", [[], [np.nan, 1.0]])
def test_a_quality_head_needs_a_finite_weight_for_each_feature(weights: list[float]) -> None:
    with pytest.raises(ValidationError):
        QualityHead.pack(weights=np.array(weights), gate=0, offset=0, limit=0)


def test_somebody_must_ask_whether_a_photo_can_be_read() -> None:
    with pytest.raises(ValidationError, match="without a quality head the gate needs a reject_limit"):
        tiny_card(quality=QualityLimits(reject_limit=None))


def test_a_typical_photo_needs_no_components() -> None:
    detector = OutOfDistributionDetector.pack(
        mean=np.array([1.0, 0, 0]), scale=np.ones(1), components=np.zeros((0, 3)), limit=1.0
    )
    np.testing.assert_allclose(detector.distance(np.array([[0, 5, 0]], np.float32)), [np.sqrt(2)], rtol=1e-3)


@pytest.mark.parametrize(
    ("scale", "components"),
    [
        (np.ones(3), np.zeros((1, 3))),
        (np.zeros(2), np.zeros((1, 3))),
        (np.ones(2), np.zeros(4)),
        (np.ones(2), [np.inf, 0, 0]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(scale: np.ndarray, components: np.ndarray) -> None:
    with pytest.raises(ValidationError):
        OutOfDistributionDetector.pack(mean=np.zeros(3), scale=scale, components=components, limit=1.0)


def test_an_interval_holds_its_value() -> None:
    with pytest.raises(ValidationError, match="outside its interval"):
        Estimate(value=0.5, low=0.6, high=0.7)


def test_training_counts_add_up() -> None:
    kept = tiny_card().training.model_dump()
    with pytest.raises(ValidationError, match="11 photos"):
        Training(**{**kept, "photos": 11})


def test_a_card_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny_card().temperature = 2.0


def test_an_operating_point_says_from_where_a_photo_is_referable() -> None:
    metadata = tiny_card(referable_threshold=0.5)
    probabilities = np.array([0.7, 0.0, 0.3, 0.0, 0.0])
    assert metadata.threshold() == 0.5
    assert metadata.threshold("screening") == 0.2
    assert metadata.decide(probabilities) == (Grade.NONE, 0.3, False, ())
    assert metadata.decide(probabilities, operating_point="screening") == (
        Grade.NONE,
        0.3,
        True,
        ("refer: moderate or worse is possible at 0.30",),
    )


def test_a_stage_that_is_not_the_most_probable_says_why() -> None:
    probabilities = np.array([0, 0, 0.06, 0.44, 0.5])
    mean = tiny_card(decision=Decision(rule="mean", cuts=EVEN)).decide(probabilities)
    assert mean.grade is Grade.SEVERE
    assert mean.reasons == ("stage severe, as the mean grade is 3.44; the most probable is proliferative at 0.50",)
    median = tiny_card(decision=Decision(rule="median", cuts=EVEN)).decide(probabilities)
    assert median.reasons == (
        "stage severe, as half of the probability lies at it or below; the most probable is proliferative at 0.50",
    )


@pytest.mark.parametrize("each", [200, pytest.param(2500, marks=pytest.mark.slow)])
def test_stage_and_referral_never_contradict_each_other(each: int) -> None:
    rng = np.random.default_rng(0)
    point = Estimate(value=0.5, low=0.0, high=1.0)
    rules = ("argmax", "median", "mean")
    contradictions = 0
    for number in range(40):
        thresholds = {name: float(rng.beta(1, 1.5)) for name in ("a", "b")}
        metadata = tiny_card(
            decision=Decision(rule=rules[number % 3], cuts=tuple(np.sort(rng.uniform(0, 4, 4)).tolist())),  # type: ignore[arg-type]
            referable_threshold=thresholds["a"],
            operating_points={
                name: OperatingPoint(threshold=threshold, sensitivity=point, specificity=point)
                for name, threshold in thresholds.items()
            },
        )
        for probabilities in rng.dirichlet(np.full(5, 0.5), each):
            for name in thresholds:
                grade, _, referable, reasons = metadata.decide(probabilities, operating_point=name)
                said = any(reason.startswith("refer: moderate or worse is possible at ") for reason in reasons)
                contradictions += grade >= Grade.MODERATE and not referable
                contradictions += grade < Grade.MODERATE and referable != said
                contradictions += (probabilities[grade] < probabilities.max()) != any(
                    reason.startswith("stage ") for reason in reasons
                )
    assert contradictions == 0


def test_an_unknown_operating_point_lists_those_there_are() -> None:
    point = tiny_card().operating_points["screening"]
    metadata = tiny_card(operating_points={"screening": point, "balanced": OperatingPoint(**point.model_dump())})
    with pytest.raises(UsageError, match=r"no operating point 'specific' .* there are: screening, balanced"):
        metadata.threshold("specific")
    with pytest.raises(UsageError, match="there are: none"):
        tiny_card(operating_points={}).threshold("screening")


def test_possible_grades_are_a_run_that_holds_the_decided_one() -> None:
    conformal = Conformal(coverage=0.9, quantile=0.5)
    probabilities = np.array([0.3, 0.05, 0.4, 0.15, 0.1])
    assert conformal.prediction_set(probabilities, Grade.MODERATE) == (Grade.MODERATE, Grade.SEVERE)
    assert conformal.prediction_set(probabilities, Grade.NONE) == (Grade.NONE, Grade.MILD, Grade.MODERATE, Grade.SEVERE)


@pytest.mark.parametrize("changes", [{"coverage": 1.0}, {"coverage": 0.0}, {"threshold": 1.5}])
def test_conformal_numbers_are_shares(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Conformal(**{"coverage": 0.9, "quantile": 0.5, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("conformal", [None, Conformal(coverage=0.9, quantile=0.3)])
def test_conformal_may_be_absent_but_not_left_out(conformal: Conformal | None) -> None:
    metadata = tiny_card(conformal=conformal)
    text = metadata.model_dump_json()
    assert Metadata.read(text.encode()).conformal == conformal
    said = f'"conformal":{"null" if conformal is None else conformal.model_dump_json()},'
    assert said in text
    with pytest.raises(BundleError, match="conformal: Field required"):
        Metadata.read(text.replace(said, "").encode())
