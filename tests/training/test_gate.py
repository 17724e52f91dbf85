"""The fit that tells retina from the rest, and the pictures it is shown as the rest."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the fit needs the train extra")

from retigrade.fundus.crop import circle
from retigrade.fundus.quality import MEASURES, Measures, QualityLimits, measure
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.training import gate
from retigrade.training.gate import Gate, fit, main, out_of_fold, strange_views

COUNT = len(MEASURES)


def clouds(*, apart: float, n: int = 200) -> tuple[Measures, Measures]:
    """Measures of two kinds whose means lie so many deviations apart in every measure."""
    rng = np.random.default_rng(0)
    centre, spread = rng.uniform(-3, 3, COUNT), rng.uniform(0.01, 2, COUNT)
    own, strange = rng.standard_normal((2, n, COUNT))
    return centre + spread * own, centre + spread * (strange + apart)


@pytest.fixture
def scene() -> np.ndarray:
    """An everyday picture, as far as colours go: 90 x 120, noise at several scales."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (120, 90), interpolation=cv2.INTER_CUBIC)
    return cv2.addWeighted(coarse, 0.7, rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), 0.3, 0)


class TestStrangeViews:
    def test_are_discs_on_black(self, scene: np.ndarray) -> None:
        views = list(strange_views(scene, np.random.default_rng(0)))
        assert len(views) == 16
        for view in views:
            assert view.shape == (224, 224, 3)
            assert view.dtype == np.uint8
            assert not view[~circle(224)].any()
            assert measure(view) is not None

    def test_differ_and_repeat(self, scene: np.ndarray) -> None:
        once, again = (list(strange_views(scene, np.random.default_rng(5))) for _ in range(2))
        assert all(np.array_equal(one, other) for one, other in zip(once, again, strict=True))
        assert len({view.tobytes() for view in once}) == len(once)

    def test_some_are_cut_off_and_some_toned_like_a_retina(self, scene: np.ndarray) -> None:
        views = list(strange_views(scene, np.random.default_rng(0)))
        cut = [not view[:4, 112].any() and not view[-4:, 112].any() for view in views]
        assert 4 <= sum(cut) <= 8 + 1
        orange = [view[circle(224)].mean(axis=0) for view in views]
        assert sum(bool(red > 1.4 * green > 1.4 * blue) for red, green, blue in orange) >= 3

    @pytest.mark.parametrize("shape", [(40, 40), (20, 300), (300, 20)])
    def test_of_small_and_narrow_pictures(self, shape: tuple[int, int]) -> None:
        assert len(list(strange_views(np.full((*shape, 3), 90, np.uint8), np.random.default_rng(0)))) == 16


class TestFit:
    def test_scores_its_own_above_the_rest(self) -> None:
        own, strange = clouds(apart=3)
        limits = fit(own, strange)
        assert (limits.score(own) > 0).mean() > 0.99
        assert (limits.score(strange) < 0).mean() > 0.99

    def test_a_quadratic_term_tells_a_shell_from_its_middle(self) -> None:
        rng = np.random.default_rng(0)
        own = rng.standard_normal((300, COUNT)) * 0.5
        strange = own.copy()
        strange[:, 0] = np.sign(own[:, 0]) * rng.uniform(2, 4, 300)
        limits = fit(own, strange)
        assert (limits.score(strange) < 0).mean() > 0.95

    def test_numbers_are_short_and_finite(self) -> None:
        limits = fit(*clouds(apart=1))
        assert (len(limits.centre), len(limits.spread), len(limits.weights)) == (COUNT, COUNT, 2 * COUNT)
        assert all(value == float(f"{value:.6g}") for value in limits.weights)

    def test_a_measure_that_never_changes_is_no_trouble(self) -> None:
        own, strange = clouds(apart=3)
        own[:, 4] = strange[:, 4] = 0
        assert np.isfinite(fit(own, strange).score(own)).all()


def test_out_of_fold_sees_neither_the_photograph_nor_another_view_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own, strange = clouds(apart=3, n=60)
    own[:, 0], strange[:, 0] = np.arange(60), 1000 + np.arange(60)
    pictures = np.arange(60) // 6
    pairs: list[tuple[set[float], set[float]]] = []

    class Watched(QualityLimits):
        def score(self, measures: Measures) -> Measures:
            scored.update(measures[:, 0])
            return super().score(measures)

    def watched(own: Measures, strange: Measures) -> QualityLimits:
        nonlocal scored
        scored = set()
        pairs.append((set(own[:, 0]) | set(strange[:, 0]), scored))
        return Watched(**fit(own, strange).model_dump())

    scored: set[float] = set()
    monkeypatch.setattr(gate, "fit", watched)
    scores, strange_scores = out_of_fold(own, strange, pictures)
    assert (scores > 0).mean() > 0.9
    assert (strange_scores < 0).mean() > 0.9
    assert len(pairs) == 5
    picture = dict(zip(strange[:, 0], pictures, strict=True))
    for fitted, seen in pairs:
        assert not fitted & seen
        assert not {picture.get(key) for key in fitted} & {picture.get(key) for key in seen} - {None}
    assert set().union(*(seen for _, seen in pairs)) == {*own[:, 0], *strange[:, 0]}


def test_the_command_writes_limits_that_keep_eyes_and_refuse_the_rest(
    tmp_path: Path, scene: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    eyes, others = tmp_path / "eyes", tmp_path / "others"
    for number in range(12):
        folder = eyes / ("No_DR", "Severe")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        grade = (Grade.NONE, Grade.SEVERE)[number % 2]
        phantom = draw_eye(grade=grade, size=224, aspect=1.2, rng=np.random.default_rng(number))
        cv2.imwrite(str(folder / f"{number}.png"), phantom.pixels[..., ::-1])
    others.mkdir()
    for turn in range(4):
        cv2.imwrite(str(others / f"{turn}.png"), np.rot90(scene, turn))
    (others / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    output = tmp_path / "gate.json"
    with caplog.at_level("INFO", logger="retigrade"):
        main(Gate(fundus=(eyes,), not_fundus=others, output=output))
    assert "broken.png" in caplog.text
    assert "of 12 fundus photographs" in caplog.text
    assert "of 64 views of other pictures" in caplog.text
    fitted = json.loads(output.read_text("utf-8"))
    assert set(fitted) == {"centre", "spread", "weights", "offset"}
    limits = QualityLimits.model_validate(fitted)
    (view, *_) = strange_views(scene, np.random.default_rng(9))
    found = measure(view)
    assert found is not None
    assert limits.score(found) < 0
    assert not list(tmp_path.glob("*.tmp"))
