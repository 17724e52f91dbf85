"""The gate lets eyes through, says in words what is wrong with a photograph, and lets nothing else through."""

from __future__ import annotations

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
from retigrade.fundus.quality import MEASURES, Quality, QualityLimits, assess, measure
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
    return QualityLimits(fundus=-1e9, fundus_filled=-1e9, hopeless=-1e9, **limits)


def test_a_clear_eye_may_be_graded(canonical: Pixels) -> None:
    found = assess_photo(canonical)
    assert found.status is Status.GRADED
    assert found.reasons == ()
    assert 0.5 < found.score <= 1


@pytest.mark.parametrize("grade", GRADES)
def test_every_stage_may_be_graded(eyes: Mapping[Grade, Phantom], grade: Grade) -> None:
    photo = Photo(pixels=eyes[grade].pixels, width=320, height=320, sha256="0")
    assert assess_photo(crop(photo, eyes[grade].field, size=SIZE)).status is Status.GRADED


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
        found = assess_photo(
            np.where(circle(SIZE)[..., None], np.maximum(canonical, 240), 0), without_score(grey=2, red=0)
        )
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

    def test_a_blue_disc_is_no_eye(self, canonical: Pixels) -> None:
        found = assess_photo(canonical[..., ::-1])
        assert found.status is Status.NOT_FUNDUS
        assert found.reasons == ("does not look like the back of an eye",)

    def test_a_score_that_is_too_low(self, canonical: Pixels) -> None:
        found = assess_photo(canonical, QualityLimits(fundus=50))
        assert found.status is Status.NOT_FUNDUS
        assert found.score < 0.01

    def test_more_is_asked_where_no_disc_was_seen(self, canonical: Pixels) -> None:
        limits = QualityLimits(fundus=-50, fundus_filled=50)
        assert assess_photo(canonical, limits).status is Status.GRADED
        assert assess_photo(canonical, limits, disc=FILLED).status is Status.NOT_FUNDUS


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
        assert float(LIMITS.score(large)) == pytest.approx(float(LIMITS.score(small)), abs=0.5)

    def test_turning_the_eye_changes_nothing(self, canonical: Pixels) -> None:
        there, turned = measure(canonical), measure(np.ascontiguousarray(canonical[::-1, ::-1]))
        np.testing.assert_allclose(there, turned, atol=2e-3)


class TestLimits:
    def test_shipped_score_has_a_number_for_every_measure(self) -> None:
        assert len(LIMITS.centre) == len(LIMITS.spread) == len(MEASURES)
        assert len(LIMITS.weights) == 2 * len(MEASURES)
        assert min(LIMITS.spread) > 0

    def test_one_score_a_row(self, canonical: Pixels) -> None:
        found = measure(canonical)
        assert found is not None
        rows = np.stack([found, found + 1])
        scores = LIMITS.score(rows)
        assert scores.shape == (2,)
        assert scores[0] == pytest.approx(LIMITS.score(found), rel=1e-12)

    def test_an_outlier_cannot_outweigh_the_rest(self, canonical: Pixels) -> None:
        found = measure(canonical)
        assert found is not None
        far, farther = found.copy(), found.copy()
        far[7], farther[7] = LIMITS.centre[7] + 7 * LIMITS.spread[7], 1e9
        assert LIMITS.score(far) == LIMITS.score(farther)

    def test_survive_json(self) -> None:
        assert QualityLimits.model_validate_json(LIMITS.model_dump_json()) == LIMITS

    @pytest.mark.parametrize("changed", [{"drak": 0.1}, {"dark": "x"}, {"offset": float("nan")}])
    def test_refuse_what_they_do_not_know(self, changed: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            QualityLimits.model_validate(changed)


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


@pytest.mark.parametrize("name", ["aptos2019", "eyepacs", "idrid"])
def test_real_photographs_pass(real_data: Path, name: str) -> None:
    paths = [path for path in sorted((real_data / name).rglob("*")) if path.suffix in (".png", ".jpg", ".jpeg")]
    paths = [path for path in paths if "lesions" not in path.parts][::30]
    if not paths:
        pytest.skip(f"no photographs in {real_data / name}")
    statuses = []
    for path in paths:
        photo = decode(path, min_side=decode_side(SIZE))
        field = find_field(photo)
        statuses.append(assess_photo(crop(photo, field, size=SIZE), disc=field).status)
    assert statuses.count(Status.GRADED) >= 0.95 * len(statuses)
