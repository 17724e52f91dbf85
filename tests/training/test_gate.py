"""The fit that tells retina from the rest and readable from not, and the pictures that it is shown as the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the fit needs the train extra")

from retigrade.arrays import Pixels
from retigrade.fundus.crop import circle
from retigrade.fundus.measures import MEASURES, SHAPE, Measures, measure
from retigrade.fundus.quality import QualityLimits, Score
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.training import gate, gate_sample, negatives
from retigrade.training.gate import Gate, GateScores, fit, fit_trees, main, out_of_fold
from retigrade.training.gate_sample import GateSample

COUNT = len(MEASURES)


def clouds(*, apart: float, n: int = 200) -> tuple[Measures, np.ndarray]:
    """Measures of two kinds whose means lie so many deviations apart in every measure, and which are of the first."""
    rng = np.random.default_rng(0)
    centre, spread = rng.uniform(-3, 3, COUNT), rng.uniform(0.01, 2, COUNT)
    first, second = rng.standard_normal((2, n, COUNT))
    return np.concatenate([centre + spread * first, centre + spread * (second + apart)]), np.repeat([True, False], n)


def sample_of(measures: Measures, wanted: np.ndarray, picture: np.ndarray) -> GateSample:
    kind = np.where(wanted, "eye", "other")
    nothing, grade = np.full(len(wanted), ""), np.full(len(wanted), -1)
    return GateSample(measures, kind, picture, np.where(wanted, "drawn", ""), nothing, grade)


@pytest.fixture
def scene() -> Pixels:
    """An everyday picture, as far as colours go: 90 x 120, noise at several scales."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (120, 90), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.addWeighted(coarse, 0.7, rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), 0.3, 0))


@pytest.fixture
def eyes() -> Pixels:
    """Two eyes as canonical squares."""
    drawn = (draw_eye(grade=Grade.NONE, size=224, rng=np.random.default_rng(seed)).pixels for seed in range(2))
    return np.stack([np.where(circle(224)[..., None], pixels, 0) for pixels in drawn]).astype(np.uint8)


class TestNegatives:
    def test_are_discs_on_black_and_repeat(self, scene: Pixels, eyes: Pixels) -> None:
        views, again = (list(negatives.round_views(scene, eyes, np.random.default_rng(0), views=12)) for _ in range(2))
        assert len({view.tobytes() for view in views}) == len(views) == 12
        for view, same in zip(views, again, strict=True):
            assert (view.shape, view.dtype) == ((224, 224, 3), np.uint8)
            assert not view[~circle(224)].any()
            assert measure(view) is not None
            np.testing.assert_array_equal(view, same)

    @pytest.mark.parametrize("shape", [(40, 40), (20, 300), (300, 20)])
    def test_of_small_and_narrow_pictures(self, eyes: Pixels, shape: tuple[int, int]) -> None:
        flat = np.full((*shape, 3), 90, np.uint8)
        assert len(list(negatives.round_views(flat, eyes, np.random.default_rng(0), views=6))) == 6

    @pytest.mark.parametrize("matched", [False, True])
    def test_take_the_colours_of_an_eye(self, scene: Pixels, eyes: Pixels, matched: bool) -> None:
        disc = cv2.resize(scene, (224, 224)).astype(np.float32)
        changed = negatives.in_colours_of(disc, eyes[0], matched=matched)
        lit = eyes[0].max(axis=2) > 20
        np.testing.assert_allclose(changed[circle(224)].mean(axis=0), eyes[0][lit].mean(axis=0), atol=3)
        toned = negatives.toned(disc, eyes[0])
        assert toned.shape == disc.shape
        assert (toned[..., 0] >= toned[..., 2] - 5).mean() > 0.95  # an eye is red at every level of light

    def test_a_turned_hue_keeps_the_light(self, eyes: Pixels) -> None:
        turned = negatives.hue_turned(eyes[0], np.random.default_rng(0))
        np.testing.assert_allclose(turned.max(axis=2), eyes[0].max(axis=2), atol=1)
        assert np.abs(turned.astype(int) - eyes[0]).mean() > 10

    @pytest.mark.parametrize("draw", [negatives.orange, negatives.tree])
    def test_drawn_ones_are_not_taken_for_eyes(self, draw: object) -> None:
        limits = QualityLimits()
        scores = []
        for seed in range(1000, 1020):
            found = measure(draw(np.random.default_rng(seed)))  # type: ignore[operator]
            assert found is not None
            scores.append(float(limits.eye_score(found)))
        assert np.mean(np.array(scores) >= limits.eye_needed) <= 0.05


def test_limits_are_chosen_on_other_photographs_than_those_that_they_judge() -> None:
    score, fold = np.repeat([0.0, 10.0], 50), np.repeat([0, 1], 50)
    every = np.ones(100, bool)
    scores = GateScores(eye=score, anatomy=score, reject=-score, photographs=every, readable=every, rejected=every)
    graded, anatomy = scores.verdicts(fold)
    np.testing.assert_array_equal(graded, fold == 1)  # by the first fold's limits the second passes, not the reverse
    np.testing.assert_array_equal(anatomy, fold == 1)


class TestFit:
    def test_scores_its_own_above_the_rest(self) -> None:
        measures, wanted = clouds(apart=3)
        for fitted in (fit(measures, wanted, np.ones(400)), fit_trees(measures, wanted, np.ones(400))):
            assert ((fitted.of(measures) > 0) == wanted).mean() > 0.99

    def test_a_quadratic_term_tells_a_shell_from_its_middle(self) -> None:
        rng = np.random.default_rng(0)
        inner = rng.standard_normal((300, COUNT)) * 0.5
        shell = inner.copy()
        shell[:, 0] = np.sign(inner[:, 0]) * rng.uniform(2, 4, 300)
        score = fit(np.concatenate([inner, shell]), np.repeat([True, False], 300), np.ones(600))
        assert (score.of(shell) < 0).mean() > 0.95

    def test_trees_give_what_their_library_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        kept: list[HistGradientBoostingClassifier] = []

        class Watched(HistGradientBoostingClassifier):  # type: ignore[misc]
            def fit(self, *given: object, **named: object) -> Watched:
                kept.append(self)
                return super().fit(*given, **named)  # type: ignore[no-any-return]

        monkeypatch.setattr("sklearn.ensemble.HistGradientBoostingClassifier", Watched)
        measures, wanted = clouds(apart=0.3)
        trees = fit_trees(measures, wanted, np.ones(400))
        np.testing.assert_allclose(trees.of(measures), kept[0].decision_function(measures), atol=1e-3)

    def test_only_the_named_measures_count(self) -> None:
        measures, wanted = clouds(apart=1)
        score = fit(measures, wanted, np.ones(400), names=SHAPE)
        measures[:, MEASURES.index("red")] = 99
        assert score.measures == SHAPE
        np.testing.assert_array_equal(score.of(measures), fit(measures, wanted, np.ones(400), names=SHAPE).of(measures))

    def test_a_measure_that_never_changes_is_no_trouble(self) -> None:
        measures, wanted = clouds(apart=3)
        measures[:, 4] = 0
        assert np.isfinite(fit(measures, wanted, np.ones(400)).of(measures)).all()


def test_out_of_fold_sees_neither_the_photograph_nor_another_view_of_it() -> None:
    measures, wanted = clouds(apart=3, n=60)
    measures[:, 0] = np.arange(120)
    picture = np.arange(120) // 6
    seen: list[set[int]] = []

    class Watched(Score):
        def of(self, measures: Measures) -> Measures:
            asked = set(measures[:, 0].astype(int) // 6)
            assert not asked & seen[-1]
            scored.update(asked)
            return super().of(measures)

    def watched(measures: Measures, wanted: np.ndarray, weight: np.ndarray) -> Score:
        seen.append(set(measures[:, 0].astype(int) // 6))
        return Watched(**fit(measures, wanted, weight).model_dump())

    scored: set[int] = set()
    scores = out_of_fold(sample_of(measures, wanted, picture), wanted, np.ones(120), [watched])
    assert ((scores > 0) == wanted).mean() > 0.9
    assert len(seen) == 5
    assert scored == set(range(20))


@pytest.mark.slow
def test_the_command_writes_limits_that_keep_eyes_and_refuse_the_rest(
    tmp_path: Path, scene: Pixels, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_sample, "_DRAWN", 10)
    monkeypatch.setitem(gate._TREES, "max_iter", 10)
    monkeypatch.setitem(gate._TREES_REJECT, "max_iter", 10)
    eyes, others = tmp_path / "eyes", tmp_path / "others"
    lines = ["image,quality"]
    for number in range(15):
        folder = eyes / ("No_DR", "Severe")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        grade = (Grade.NONE, Grade.SEVERE)[number % 2]
        phantom = draw_eye(
            grade=grade, size=224, aspect=1.2, blur=0.05 * (number % 3 == 0), rng=np.random.default_rng(number)
        )
        cv2.imwrite(str(folder / f"{number}.png"), phantom.pixels[..., ::-1])
        lines.append(f"{number},{2 if number % 3 == 0 else 0}")
    (tmp_path / "quality.csv").write_text("\n".join(lines))
    others.mkdir()
    for turn in range(4):
        cv2.imwrite(str(others / f"{turn}.png"), np.rot90(scene, turn))
    (others / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    output, kept = tmp_path / "gate.json", tmp_path / "measures.npz"
    arguments = Gate(fundus=(eyes,), not_fundus=others, readable=tmp_path / "quality.csv", measures=kept, output=output)
    with caplog.at_level("INFO", logger="retigrade"):
        main(arguments)
    first = output.read_bytes()
    main(replace(arguments, fundus=(), not_fundus=tmp_path / "nowhere"))  # from what was measured
    assert output.read_bytes() == first
    assert "broken.png" in caplog.text
    assert "labelled reject" in caplog.text
    fitted = json.loads(output.read_text("utf-8"))
    assert set(fitted) == set(QualityLimits.model_fields) - {"retina", "dark", "bright", "white", "blurred", "grey"}
    limits = QualityLimits.model_validate_json(output.read_text("utf-8"))
    (view, *_) = negatives.round_views(scene, np.zeros((1, 224, 224, 3), np.uint8) + 90, np.random.default_rng(9))
    found = measure(view)
    assert found is not None
    assert limits.eye_score(found) < limits.eye_needed
