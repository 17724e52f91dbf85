"""Surrounds are taken away before the search; a search that failed is no finding; two eyes are refused."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.errors import NotAFundus, SeveralEyes
from retigrade.fundus.crop import circle, crop
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import WHOLE_FRAME, Field, find_field
from retigrade.fundus.surround import has_bright_edge, peel, surround_colour
from retigrade.icdr import Grade
from retigrade.synthetic import Phantom, draw_eye

SIZE = 224
WHITE, CREAM, BLUE, GREY, DARK, BLACK = (255,) * 3, (250, 244, 225), (0, 90, 200), (128,) * 3, (43,) * 3, (0,) * 3


def photo(pixels: Pixels) -> Photo:
    return Photo(pixels=np.ascontiguousarray(pixels), width=pixels.shape[1], height=pixels.shape[0], sha256="0" * 64)


def find(pixels: Pixels) -> Field:
    return find_field(photo(pixels))


def canonical(pixels: Pixels) -> Pixels:
    return crop(photo(pixels), find(pixels), size=SIZE)


def bordered(pixels: Pixels, colour: tuple[int, ...], *, rows: int = 0, columns: int = 0) -> Pixels:
    return np.asarray(cv2.copyMakeBorder(pixels, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=colour))


def line(pixels: Pixels, colour: tuple[int, ...], width: int) -> Pixels:
    return bordered(pixels, colour, rows=width, columns=width)


def as_jpeg(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], cv2.IMREAD_COLOR))


def cut_out(pixels: Pixels, colour: tuple[int, ...]) -> Pixels:
    return np.where(pixels.max(axis=2, keepdims=True) > 20, pixels, np.array(colour, np.uint8)).astype(np.uint8)


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["whole", "cut"])
def eye(request: pytest.FixtureRequest) -> Phantom:
    return draw_eye(grade=Grade.MODERATE, size=320, aspect=1.5, cut=request.param, rng=np.random.default_rng(5))


@pytest.mark.parametrize("jpeg", [False, True], ids=["plain", "jpeg"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda pixels: line(pixels, WHITE, 1),
        lambda pixels: line(pixels, BLUE, 5),
        lambda pixels: line(pixels, GREY, 24),
        lambda pixels: line(line(pixels, WHITE, 4), DARK, 9),
        lambda pixels: line(line(pixels, GREY, 3), BLACK, 25),
        lambda pixels: bordered(pixels, WHITE, rows=60),
        lambda pixels: bordered(pixels, CREAM, columns=90),
        lambda pixels: bordered(pixels, BLACK, rows=80),
        lambda pixels: line(bordered(pixels, BLACK, columns=60), WHITE, 3),
        lambda pixels: np.concatenate([pixels, np.full((30, pixels.shape[1], 3), 230, np.uint8)]),
        lambda pixels: cut_out(pixels, WHITE),
        lambda pixels: bordered(cut_out(pixels, WHITE), WHITE, rows=40),
        lambda pixels: cut_out(pixels, GREY),
    ],
    ids=[
        "white line", "blue line", "wide grey line", "two lines", "line inside a margin", "white bars", "cream bars",
        "black bars", "line about bars", "caption", "cut out on white", "cut out on a white square", "cut out on grey",
    ],
)  # fmt: skip
def test_a_surround_changes_nothing(eye: Phantom, draw: Callable[[Pixels], Pixels], jpeg: bool) -> None:
    drawn = draw(eye.pixels)
    found = find(as_jpeg(drawn) if jpeg else drawn)
    assert not found.filled
    plain, surrounded = canonical(eye.pixels), crop(photo(as_jpeg(drawn) if jpeg else drawn), found, size=SIZE)
    assert np.abs(plain[circle(SIZE)].astype(int) - surrounded[circle(SIZE)]).mean() < (4 if jpeg else 2.5)


def test_a_surround_is_black_in_the_canonical_picture() -> None:
    cut = draw_eye(grade=Grade.NONE, size=320, aspect=1.5, cut=0.1, rng=np.random.default_rng(5)).pixels
    pixels = canonical(bordered(cut, WHITE, rows=60))
    assert pixels[:12].max() == 0
    assert pixels[-12:].max() == 0


def test_a_portrait_made_square(eye: Phantom) -> None:
    pixels = bordered(eye.pixels, BLACK, rows=160)  # 480 x 640
    squeezed = cv2.resize(pixels, (480, 480), interpolation=cv2.INTER_AREA)
    found = find(np.asarray(squeezed))
    assert found.rx / found.ry == pytest.approx(4 / 3, rel=0.03)
    difference = np.abs(canonical(np.asarray(squeezed)).astype(int) - canonical(eye.pixels))[circle(SIZE)]
    assert difference.mean() < 3


@pytest.mark.parametrize("shape", ["square", "triangle", "bar"])
@pytest.mark.parametrize("surround", [BLACK, WHITE])
def test_what_is_not_round_is_refused(shape: str, surround: tuple[int, ...]) -> None:
    pixels = np.full((300, 400, 3), surround, np.uint8)
    outlines = {
        "square": [[100, 50], [300, 50], [300, 250], [100, 250]],
        "triangle": [[60, 260], [200, 40], [340, 260]],
        "bar": [[20, 120], [380, 100], [380, 190], [20, 210]],
    }
    noise = np.random.default_rng(0).normal(0, 25, (300, 400, 3))
    drawn = np.clip(np.array([170, 90, 50]) + noise, 0, 255).astype(np.uint8)
    mask = cv2.fillPoly(np.zeros((300, 400), np.uint8), [np.array(outlines[shape])], 1)
    pixels = np.where(mask[..., None] > 0, drawn, pixels)
    with pytest.raises(NotAFundus, match="not round"):
        find(pixels)


class TestNoRimIsVisible:
    def test_the_field_says_so(self) -> None:
        pixels = draw_eye(grade=Grade.NONE, size=480, rng=np.random.default_rng(0)).pixels[110:370, 110:370]
        found = find(pixels)
        assert found == WHOLE_FRAME
        assert found.note is not None
        assert found.note.startswith("the rim of the retina is not visible: ")

    def test_a_landscape_is_not_squeezed(self) -> None:
        pixels = draw_eye(grade=Grade.NONE, size=480, rng=np.random.default_rng(0)).pixels[160:320, 120:360]
        found = find(pixels)
        assert found.filled
        assert found.rx * 240 == pytest.approx(found.ry * 160)

    def test_a_disc_has_no_note(self, eye: Phantom) -> None:
        assert find(eye.pixels).note is None


class TestTwoEyes:
    @pytest.mark.parametrize("above", [False, True])
    @pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
    @pytest.mark.parametrize("gap", [0, 15])
    def test_are_refused(self, eye: Phantom, above: bool, scale: float, gap: int) -> None:
        first = eye.pixels[:, 70:-70] if gap == 0 else eye.pixels
        second = np.asarray(cv2.resize(first, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        if above:
            first, second = first.transpose(1, 0, 2), second.transpose(1, 0, 2)
        frame = np.zeros((len(first), first.shape[1] + gap + second.shape[1], 3), np.uint8)
        frame[:, : first.shape[1]] = first
        top = (len(first) - len(second)) // 2
        frame[top : top + len(second), first.shape[1] + gap :] = second
        with pytest.raises(NotAFundus) as refusal:
            find(np.ascontiguousarray(frame.transpose(1, 0, 2)) if above else frame)
        if gap:
            assert isinstance(refusal.value, SeveralEyes)
            assert str(refusal.value).startswith("two retinal discs were seen")

    def test_one_with_a_mark_beside_it_is_not_two(self, eye: Phantom) -> None:
        pixels = eye.pixels.copy()
        cv2.putText(pixels, "OS 3", (380, 300), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 4)
        assert not find(pixels).filled


class TestParts:
    def test_only_a_bright_edge_counts(self, eye: Phantom) -> None:
        assert not has_bright_edge(eye.pixels)
        assert has_bright_edge(line(eye.pixels, WHITE, 1))

    def test_peeling_stops_at_the_picture(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        window = peel(bordered(line(noise, WHITE, 3), BLUE, rows=7))
        assert (window.left, window.top, window.right, window.bottom) == (3, 10, 73, 60)

    def test_a_frame_of_one_colour_is_left_whole(self) -> None:
        window = peel(np.full((40, 60, 3), 200, np.uint8))
        assert (window.right, window.bottom) == (60, 40)

    def test_the_surround_is_what_the_corners_agree_on(self, eye: Phantom) -> None:
        colour = surround_colour(cut_out(eye.pixels, CREAM))
        assert colour is not None
        assert colour.tolist() == list(CREAM)
        assert surround_colour(eye.pixels) is None
