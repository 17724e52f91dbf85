"""The gate lets eyes through, says in words what is wrong with a photograph, and lets nothing else through."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from retigrade.arrays import Pixels
from retigrade.errors import NotAFundus
from retigrade.fundus.crop import circle, crop, decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.field import Field, find_field
from retigrade.fundus.measures import MEASURES, measure
from retigrade.fundus.quality import NOT_AN_EYE, UNUSUAL, Quality, QualityLimits, Score, Trees, assess
from retigrade.icdr import GRADES, Grade, Status
from retigrade.synthetic import Phantom

SIZE = 224
ROUND = Field(cx=0.5, cy=0.5, rx=0.4, ry=0.4)
FILLED = Field(cx=0.5, cy=0.5, rx=0.5, ry=0.5, filled=True)
LIMITS = QualityLimits()


@pytest.fixture(scope="module")
def canonical(eyes: Mapping[Grade, Phantom]) -> Pixels:
    """A healthy eye as the network sees it; copy it before changing it."""
    phantom = eyes[Grade.NONE]
    pixels = crop(Photo(pixels=phantom.pixels, width=320, height=320, sha256="0"), phantom.field, size=SIZE)
    pixels.flags.writeable = False
    return pixels


def assess_photo(pixels: Pixels, limits: QualityLimits = LIMITS, *, disc: Field = ROUND) -> Quality:
    return assess(np.asarray(pixels).astype(np.uint8), disc, limits)


def measured(pixels: Pixels) -> dict[str, float]:
    found = measure(pixels)
    assert found is not None
    return dict(zip(MEASURES, found.tolist(), strict=True))


def without_score(**limits: float) -> QualityLimits:
    """Limits that let the score pass, so that one plain limit decides."""
    return QualityLimits(eye_needed=-1e9, eye_needed_rimless=-1e9, reject_limit=1e9, **limits)


def test_a_clear_eye_may_be_graded(canonical: Pixels) -> None:
    found = assess_photo(canonical)
    assert found.status is Status.GRADED
    assert found.reasons == ()
    assert 0.5 < found.score <= 1


@pytest.mark.parametrize("grade", GRADES)
def test_every_stage_may_be_graded(eyes: Mapping[Grade, Phantom], grade: Grade) -> None:
    photo = Photo(pixels=eyes[grade].pixels, width=320, height=320, sha256="0")
    assert assess_photo(crop(photo, eyes[grade].field, size=SIZE)).status is Status.GRADED


def test_without_a_limit_of_rejects_a_network_is_asked(canonical: Pixels) -> None:
    open_ended = QualityLimits(reject_limit=None)
    passed, found = assess_photo(canonical, open_ended), measure(canonical)
    assert passed.status is Status.GRADED
    assert found is not None
    assert passed.reject == float(LIMITS.reject_score(found))
    clear, poor = (passed.judged(odds) for odds in (-3.0, 3.0))
    assert (clear.status, poor.status) == (Status.GRADED, Status.UNGRADABLE)
    assert 0 < poor.score < clear.score < passed.score
    assert poor.reasons[0].startswith("poor quality, ")


class TestReasons:
    def test_nothing_lit(self) -> None:
        assert assess_photo(np.zeros((SIZE, SIZE, 3), np.uint8)) == Quality(
            0.0, Status.UNGRADABLE, ("too little retina is lit to be read",)
        )

    @pytest.mark.parametrize("size", [64, 224, 300])
    def test_too_dark(self, canonical: Pixels, size: int) -> None:
        found = assess_photo(cv2.resize(canonical, (size, size)) * 0.16, without_score())
        assert found.status is Status.UNGRADABLE
        assert found.reasons[0].startswith("too dark: mean light 0.0")

    def test_too_bright(self, canonical: Pixels) -> None:
        found = assess_photo(np.where(circle(SIZE)[..., None], np.maximum(canonical, 240), 0), without_score(grey=2))
        assert found.status is Status.UNGRADABLE
        assert "too bright: 100% of the retina is white" in found.reasons

    def test_blurred(self, canonical: Pixels) -> None:
        smooth = cv2.GaussianBlur(canonical, (0, 0), 25)
        smooth[~circle(SIZE)] = 0
        assert "blurred: no vessel can be told from its surroundings" in assess_photo(smooth, without_score()).reasons
        assert not assess_photo(canonical, without_score()).reasons

    def test_no_colour(self, canonical: Pixels) -> None:
        grey = canonical[..., 1:2].repeat(3, axis=2)
        assert "no colour: a colour photograph is needed" in assess_photo(grey, without_score()).reasons

    def test_too_little_retina(self, canonical: Pixels) -> None:
        slit = canonical.copy()
        slit[:, : SIZE // 2 - 20] = slit[:, SIZE // 2 + 20 :] = 0
        (reason,) = assess_photo(slit, without_score()).reasons
        assert reason == "too little retina: 18% of the picture, need 25%"

    def test_an_eye_in_false_colours_is_shown_to_a_person(self, canonical: Pixels) -> None:
        found = assess_photo(canonical[..., ::-1])
        assert found.status is Status.UNGRADABLE
        assert found.reasons == (UNUSUAL,)

    @pytest.mark.parametrize("turn", [30, 45, 60, 90, 120, 150])
    def test_a_turned_hue_is_not_graded(self, canonical: Pixels, turn: int) -> None:
        hsv = cv2.cvtColor(canonical, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
        found = assess_photo(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
        assert found.status is Status.UNGRADABLE

    def test_a_score_that_is_too_low(self, canonical: Pixels) -> None:
        found = assess_photo(canonical, QualityLimits(eye_needed=1e3, anatomy_needed=1e3))
        assert (found.score, found.status, found.reasons) == (0.0, Status.NOT_FUNDUS, (NOT_AN_EYE,))

    def test_what_has_the_anatomy_of_an_eye_is_never_called_something_else(self, canonical: Pixels) -> None:
        found = assess_photo(canonical, QualityLimits(eye_needed=1e3, anatomy_needed=-1e3))
        assert (found.status, found.reasons) == (Status.UNGRADABLE, (UNUSUAL,))

    def test_a_photograph_like_those_that_nobody_could_read(self, canonical: Pixels) -> None:
        found = assess_photo(canonical, QualityLimits(reject_limit=-1e3))
        assert found.status is Status.UNGRADABLE
        assert found.reasons[0].startswith("poor quality, ")
        assert found.reasons[0].endswith(": take it again")

    def test_more_is_asked_where_no_rim_was_seen(self, canonical: Pixels) -> None:
        limits = QualityLimits(eye_needed=-50, eye_needed_rimless=50, anatomy_needed=1e3)
        assert assess_photo(canonical, limits).status is Status.GRADED
        assert assess_photo(canonical, limits, disc=FILLED).status is Status.NOT_FUNDUS

    def test_where_no_rim_was_seen_the_grade_says_so(self, canonical: Pixels) -> None:
        found = assess_photo(canonical, without_score(), disc=FILLED)
        assert found.status is Status.GRADED
        assert found.reasons == (FILLED.note,)

    def test_a_refusal_says_so_too(self, canonical: Pixels) -> None:
        for limits in (QualityLimits(reject_limit=-1e3), QualityLimits(eye_needed_rimless=1e3, anatomy_needed=-1e3)):
            found = assess_photo(canonical, limits, disc=FILLED)
            assert found.status is Status.UNGRADABLE
            assert found.reasons[1:] == (FILLED.note,)


class TestMeasures:
    def test_one_number_for_each_name(self, canonical: Pixels) -> None:
        found = measure(canonical)
        assert found is not None
        assert found.shape == (len(MEASURES),)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()

    def test_none_where_next_to_nothing_is_lit(self, canonical: Pixels) -> None:
        assert measure(np.zeros_like(canonical)) is None
        spot = np.zeros_like(canonical)
        spot[100:120, 100:120] = 200
        assert measure(spot) is None

    def test_of_a_flat_disc(self) -> None:
        flat = np.where(circle(SIZE)[..., None], np.array([204, 102, 51], np.uint8), 0).astype(np.uint8)
        found = measured(flat)
        assert found["light"] == pytest.approx(357 / 3 / 255, abs=1e-3)
        assert (found["red"], found["blue"]) == pytest.approx((204 / 357, 51 / 357), abs=2e-3)
        assert found["saturation"] == pytest.approx(0.75, abs=3e-3)
        assert (found["order"], found["burnt"], found["white"], found["grey"]) == (1, 0, 0, 0)
        assert found["retina"] == pytest.approx(circle(SIZE).mean(), abs=0.01)
        assert found["sharpness"] == pytest.approx(np.log(1e-3), abs=0.1)
        assert (found["ridges"], found["red vessels"], found["blob"]) == pytest.approx((0, 0, 0), abs=0.05)

    def test_vessels_are_dark_ridges_and_the_optic_disc_is_a_bright_blob(self) -> None:
        disc = np.where(circle(SIZE)[..., None], np.array([204, 102, 51], np.uint8), 0).astype(np.uint8)
        noise = np.random.default_rng(0).normal(0, 1.5, disc.shape)
        plain = np.where(circle(SIZE)[..., None], np.clip(disc + noise, 0, 255), 0).astype(np.uint8)
        drawn = plain.copy()
        for height in (60, 112, 164):
            cv2.line(drawn, (30, height), (194, height + 12), (190, 60, 40), 3, cv2.LINE_AA)
        cv2.circle(drawn, (165, 112), 14, (250, 200, 120), -1, cv2.LINE_AA)
        without, with_vessels = measured(plain), measured(drawn)
        assert with_vessels["fine ridges"] > without["fine ridges"] + 0.5
        assert with_vessels["long ridges"] > without["long ridges"] + 0.3
        assert with_vessels["red vessels"] < 0.6  # red hardly sees them
        assert with_vessels["blob"] > without["blob"]
        assert with_vessels["blob's place"] == pytest.approx((165 - 112) / 112, abs=0.05)

    def test_blur_and_darkness_move_their_measures(self, canonical: Pixels) -> None:
        plain = measured(canonical)
        blurred, dark = measured(cv2.GaussianBlur(canonical, (0, 0), 3)), measured((canonical * 0.5).astype(np.uint8))
        assert blurred["sharpness"] < plain["sharpness"] - 0.5
        assert dark["light"] == pytest.approx(plain["light"] / 2, rel=0.03)
        assert dark["red"] == pytest.approx(plain["red"], abs=0.02)

    def test_the_size_of_the_network_matters_little(self, eyes: Mapping[Grade, Phantom]) -> None:
        phantom = eyes[Grade.MODERATE]
        pixels = cv2.resize(phantom.pixels, (900, 900), interpolation=cv2.INTER_CUBIC)
        photo = Photo(pixels=np.asarray(pixels, np.uint8), width=900, height=900, sha256="0")
        small, large = (measure(crop(photo, phantom.field, size=size)) for size in (SIZE, 448))
        assert small is not None
        assert large is not None
        assert float(LIMITS.reject_score(large)) == pytest.approx(float(LIMITS.reject_score(small)), abs=1.5)

    def test_turning_the_eye_changes_nothing(self, canonical: Pixels) -> None:
        there, turned = measure(canonical), measure(np.ascontiguousarray(canonical[::-1, ::-1]))
        np.testing.assert_allclose(there, turned, atol=0.1)


TREES = {
    "feature": (0, 0, 1, 0, 0),
    "threshold": (0.5, 0, 2.0, 0, 0),
    "left": (1, 1, 3, 3, 4),
    "right": (2, 1, 4, 3, 4),
}


class TestLimits:
    def test_a_score_reads_the_measures_that_it_names(self) -> None:
        score = Score(measures=("light", "red"), centre=(1, 2), spread=(1, 2), weights=(1, 10, 100, 1000), offset=0.5)
        rows = np.zeros((2, len(MEASURES)))
        rows[:, MEASURES.index("light")], rows[:, MEASURES.index("red")] = (3, 1), (2, 1e9)
        np.testing.assert_allclose(
            score.of(rows), [0.5 + 2 + 4 * 100, 0.5 + 10 * 5 + 25 * 1000]
        )  # an outlier is clipped
        assert score.of(rows[0]).shape == ()

    def test_trees_lead_to_their_leaves(self) -> None:
        value = (0.0, -1.0, 0.0, 5.0, 7.0)
        trees = Trees(measures=("light", "red"), value=value, roots=(0,), depth=2, offset=0.25, **TREES)  # type: ignore[arg-type]
        rows = np.zeros((3, len(MEASURES)))
        rows[:, MEASURES.index("light")], rows[:, MEASURES.index("red")] = (0.5, 0.6, 0.6), (9, 2, 3)
        np.testing.assert_allclose(trees.of(rows), [-0.75, 5.25, 7.25])

    @pytest.mark.parametrize(
        "changed",
        [{"left": (1, 1, 9, 3, 4)}, {"feature": (0, 0, 2, 0, 0)}, {"value": (1.0,)}, {"measures": ("hue", "red")}],
    )
    def test_trees_that_lead_nowhere_are_refused(self, changed: dict[str, object]) -> None:
        whole = {"measures": ("light", "red"), "value": (0.0,) * 5, "roots": (0,), "depth": 2, "offset": 0.0, **TREES}
        Trees.model_validate(whole)
        with pytest.raises(ValidationError):
            Trees.model_validate({**whole, **changed})

    def test_a_score_whose_numbers_do_not_fit_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="two weights for each"):
            Score(measures=("light",), centre=(0,), spread=(1,), weights=(1,), offset=0)

    def test_survive_json(self) -> None:
        assert QualityLimits.model_validate_json(LIMITS.model_dump_json()) == LIMITS

    @pytest.mark.parametrize("changed", [{"drak": 0.1}, {"dark": "x"}, {"reject_limit": float("nan")}])
    def test_refuse_what_they_do_not_know(self, changed: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            QualityLimits.model_validate(changed)


@pytest.mark.slow
def test_nothing_that_is_no_fundus_is_graded(real_data: Path) -> None:
    paths = sorted((real_data / "not_fundus").glob("*/*"))
    if not paths:
        pytest.skip(f"no pictures in {real_data / 'not_fundus'}")
    for path in paths:
        photo = decode(path, min_side=decode_side(SIZE))
        try:
            field = find_field(photo)
        except NotAFundus:
            continue
        assert assess_photo(crop(photo, field, size=SIZE), disc=field).status is not Status.GRADED, path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aptos2019", "eyepacs", "idrid"])
def test_real_photographs_pass(real_data: Path, name: str) -> None:
    paths = [path for path in sorted((real_data / name).rglob("*")) if path.suffix in (".png", ".jpg", ".jpeg")]
    paths = [path for path in paths if "lesions" not in path.parts]
    if (judged := real_data / name / "trainLabels.csv").exists():  # a fifth of these photographs cannot be read
        with judged.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["quality"] in ("0", "1") and row["origin"] != "restored"]
        readable = {row["image"] for row in rows}
        paths = [path for path in paths if path.stem in readable][::2]
    else:
        paths = paths[::30]
    if not paths:
        pytest.skip(f"no photographs in {real_data / name}")
    statuses = []
    for path in paths:
        photo = decode(path, min_side=decode_side(SIZE))
        field = find_field(photo)
        statuses.append(assess_photo(crop(photo, field, size=SIZE), disc=field).status)
    assert statuses.count(Status.GRADED) >= 0.95 * len(statuses)
