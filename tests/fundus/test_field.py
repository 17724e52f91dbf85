"""The disc is found whatever the frame does to it, and nothing else passes for one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retigrade.arrays import Pixels
from retigrade.errors import NotAFundus
from retigrade.fundus.crop import crop, decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.field import Field, find_field, lit
from retigrade.fundus.quality import QualityLimits, assess
from retigrade.icdr import Grade, Status
from retigrade.synthetic import Phantom, draw_eye

SIZE = 224


def draw(*, size: int = 320, seed: int = 0, **options: object) -> Phantom:
    return draw_eye(grade=Grade.NONE, size=size, rng=np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def photo(pixels: Pixels) -> Photo:
    height, width = pixels.shape[:2]
    return Photo(pixels=np.ascontiguousarray(pixels), width=width, height=height, sha256="0" * 64)


def find(pixels: Pixels) -> Field:
    return find_field(photo(pixels))


def canonical(pixels: Pixels) -> Pixels:
    return crop(photo(pixels), find(pixels), size=SIZE)


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))


def rim(phantom: Phantom) -> npt.NDArray[np.float64]:
    """Distance of each pixel from the field's centre, in its radii."""
    height, width = phantom.pixels.shape[:2]
    field = phantom.field
    x = ((np.arange(width) + 0.5) / width - field.cx) / field.rx
    y = ((np.arange(height) + 0.5) / height - field.cy) / field.ry
    return np.hypot(x[None, :], y[:, None])


def agree(found: Field, drawn: Field, *, within: float = 0.012) -> bool:
    """Whether two ellipses are one, to a fraction of their half axes."""
    across = max(abs(found.cx - drawn.cx), abs(found.rx - drawn.rx)) / drawn.rx
    down = max(abs(found.cy - drawn.cy), abs(found.ry - drawn.ry)) / drawn.ry
    return max(across, down) < within and found.filled == drawn.filled


def verdict(pixels: Pixels) -> Status:
    """What grading says of a picture before any network sees it."""
    try:
        field = find(pixels)
    except NotAFundus:
        return Status.NOT_FUNDUS
    return assess(crop(photo(pixels), field, size=SIZE), field, QualityLimits()).status


@pytest.fixture(scope="module")
def wide() -> Phantom:
    return draw(aspect=1.5)


@pytest.fixture(scope="module")
def cut() -> Phantom:
    return draw(aspect=1.5, cut=0.1, seed=3)


class TestTheDrawnDiscIsFound:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"aspect": 1.5},
            {"aspect": 3.9},
            {"aspect": 1.5, "cut": 0.08},
            {"aspect": 1.5, "cut": 0.2},
            {"aspect": 1.2, "cut": 0.1},
            {"aspect": 0.8},
            {"notch": True, "aspect": 1.4},
            {"notch": True, "aspect": 1.5, "cut": 0.08},
            {"illumination": 0.15},
            {"blur": 0.05},
            {"size": 700, "aspect": 1.5},
            {"size": 160},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("seed", [0, 1])
    def test_in_any_frame(self, options: dict[str, object], seed: int) -> None:
        phantom = draw(seed=seed, **options)  # type: ignore[arg-type]
        assert agree(find(phantom.pixels), phantom.field, within=0.02)

    @given(height=st.integers(280, 400), squeeze=st.floats(0.9, 1.8))
    @settings(max_examples=20, deadline=None, derandomize=True)
    def test_after_any_squeeze(self, wide: Phantom, height: int, squeeze: float) -> None:
        width = round(1.5 * height / squeeze)
        assert agree(find(resized(wide.pixels, width, height)), wide.field, within=0.02)

    def test_mirrored(self, cut: Phantom) -> None:
        there, back = find(cut.pixels), find(cut.pixels[:, ::-1])
        assert back.cx == pytest.approx(1 - there.cx, abs=0.004)
        assert (back.cy, back.rx, back.ry) == pytest.approx((there.cy, there.rx, there.ry), abs=0.01)

    def test_off_the_middle_and_cut_on_one_side(self) -> None:
        phantom = draw(aspect=1.5)
        pixels = phantom.pixels[40:, 60:]
        height, width = pixels.shape[:2]
        drawn = Field(
            cx=(240 - 60) / width,
            cy=(160 - 40) / height,
            rx=phantom.field.rx * 480 / width,
            ry=phantom.field.ry * 320 / height,
        )
        assert agree(find(pixels), drawn, within=0.02)

    def test_a_small_disc_in_a_large_frame(self, wide: Phantom) -> None:
        frame = np.zeros((800, 1000, 3), np.uint8)
        frame[230:550, 260:740] = wide.pixels
        drawn = Field(cx=0.5, cy=390 / 800, rx=wide.field.rx * 480 / 1000, ry=wide.field.ry * 320 / 800)
        assert agree(find(frame), drawn, within=0.03)  # it is looked for in a thumbnail

    def test_a_disc_too_small_to_read_is_refused(self, wide: Phantom) -> None:
        frame = np.zeros((1200, 1600, 3), np.uint8)
        frame[:320, :480] = wide.pixels
        with pytest.raises(NotAFundus, match=r"4% of the frame is lit, at least 8% is needed"):
            find(frame)


class TestWhatLiesAtTheRim:
    def test_a_dark_rim(self, wide: Phantom) -> None:
        distance, angle = rim(wide), np.arctan2(*np.ogrid[-160:160, -240:240])
        shadow = np.where((distance > 0.75) & (np.abs(angle) < 0.7), 0.02, 1.0)
        assert agree(find((wide.pixels * shadow[..., None]).astype(np.uint8)), wide.field)

    def test_a_bite_out_of_the_disc(self, cut: Phantom) -> None:
        pixels = cut.pixels.copy()
        cv2.circle(pixels, (60, 120), 45, (0, 0, 0), -1)
        assert agree(find(pixels), cut.field, within=0.02)

    @pytest.mark.parametrize("at", [(80, 160), (400, 160), (240, 2)])
    def test_a_glare_that_reaches_over_it(self, wide: Phantom, at: tuple[int, int]) -> None:
        pixels = wide.pixels.copy()
        cv2.circle(pixels, at, 35, (255, 250, 240), -1)
        assert agree(find(pixels), wide.field)

    def test_writing_beside_the_disc(self, wide: Phantom) -> None:
        pixels = wide.pixels.copy()
        cv2.putText(pixels, "OD 12", (4, 310), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
        assert agree(find(pixels), wide.field)

    def test_a_hazy_black(self, wide: Phantom) -> None:
        noise = np.random.default_rng(0).integers(8, 20, wide.pixels.shape, dtype=np.uint8)
        assert agree(find(cv2.max(wide.pixels, noise)), wide.field)

    def test_blocks_that_jpeg_leaves(self, wide: Phantom) -> None:
        _, data = cv2.imencode(".jpg", wide.pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])
        assert agree(find(cv2.imdecode(data, cv2.IMREAD_COLOR)), wide.field, within=0.02)


class TestNoDiscIsSeen:
    def test_a_retina_that_fills_its_frame(self) -> None:
        pixels = draw(size=480).pixels[110:370, 110:370]
        assert find(pixels) == Field(cx=0.5, cy=0.5, rx=0.5, ry=0.5, filled=True)

    def test_black(self) -> None:
        with pytest.raises(NotAFundus, match="0% of the frame is lit"):
            find(np.zeros((300, 400, 3), np.uint8))

    def test_a_lit_region_that_is_not_round(self) -> None:
        pixels = np.zeros((300, 400, 3), np.uint8)
        cv2.fillPoly(pixels, [np.array([[60, 260], [200, 40], [340, 260]])], (200, 120, 60))
        with pytest.raises(NotAFundus, match="boundary is not round"):
            find(pixels)

    @pytest.mark.parametrize("shape", [(32, 32), (32, 4000), (33, 47)])
    def test_the_smallest_and_narrowest_frames(self, shape: tuple[int, int]) -> None:
        for value in (0, 255):
            assert verdict(np.full((*shape, 3), value, np.uint8)) is not Status.GRADED

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((300, 400, 3), np.uint8),
            np.full((300, 400, 3), 255, np.uint8),
            np.full((300, 400, 3), (220, 110, 40), np.uint8),
            np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8),
            np.random.default_rng(0).integers(0, 256, (300, 400, 1), dtype=np.uint8).repeat(3, axis=2),
            np.indices((300, 400, 3)).sum(axis=0).astype(np.uint8),
        ],
        ids=["black", "white", "orange", "noise", "grey noise", "stripes"],
    )
    @pytest.mark.parametrize("round_frame", [False, True])
    def test_never_graded(self, pixels: Pixels, round_frame: bool) -> None:
        if round_frame:
            y, x = np.ogrid[-150:150, -200:200]
            pixels = pixels * (np.hypot(x, y) < 145)[..., None].astype(np.uint8)
        assert verdict(pixels) in (Status.NOT_FUNDUS, Status.UNGRADABLE)


def test_lit_is_one_region_without_its_holes(wide: Phantom) -> None:
    pixels = wide.pixels.copy()
    cv2.circle(pixels, (240, 160), 20, (0, 0, 0), -1)
    cv2.circle(pixels, (30, 30), 10, (255, 255, 255), -1)
    mask = lit(pixels)
    assert mask.shape == (320, 480)
    assert mask.dtype == np.bool_
    assert not mask[160, 240]
    assert not mask[30, 30]
    assert mask[160, 200]


@pytest.mark.parametrize(
    ("name", "pattern"), [("aptos2019", "colored_images/*/*"), ("eyepacs", "train/*"), ("idrid", "photos/*")]
)
def test_real_photographs_have_a_field(real_data: Path, name: str, pattern: str) -> None:
    paths = sorted((real_data / name).glob(pattern))[::15]
    if not paths:
        pytest.skip(f"no photographs in {real_data}/{name}")
    missed = []
    for path in paths:
        try:
            find_field(decode(path, min_side=decode_side(SIZE)))
        except NotAFundus:
            missed.append(path.name)
    assert len(missed) <= 0.005 * len(paths), missed
