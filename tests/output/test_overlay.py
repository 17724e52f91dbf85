from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from gradings import graded, heat, refused
from retigrade.arrays import Pixels
from retigrade.icdr import Grade
from retigrade.output.overlay import LARGE, SMALL, Layout, as_jpeg, as_png, fitted, pair, picture, thermal, views
from retigrade.output.rows import Row, as_row
from retigrade.synthetic import Phantom


def decoded(data: bytes) -> Pixels:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def colourfulness(pixels: Pixels) -> np.ndarray:
    """How far each pixel is from grey."""
    return pixels.max(axis=2).astype(int) - pixels.min(axis=2)


def test_a_cool_map_leaves_the_grey_photograph(eye: Phantom) -> None:
    cool = np.zeros(eye.pixels.shape[:2], np.float32)
    grey = cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(thermal(eye.pixels, cool), np.stack([grey] * 3, axis=2))


def test_colour_lies_where_the_heat_is_and_nowhere_else(eye: Phantom) -> None:
    height, width = eye.pixels.shape[:2]
    values = heat(width=width, height=height).in_frame(width, height)
    colour = colourfulness(thermal(eye.pixels, values))
    assert colour[values > 0.5].min() > 40
    assert colour[values == 0].max() == 0


def test_the_scale_is_fixed_and_not_stretched_to_each_photograph(eye: Phantom) -> None:
    faint = np.full(eye.pixels.shape[:2], 0.05, np.float32)
    strong = np.full(eye.pixels.shape[:2], 0.9, np.float32)
    assert colourfulness(thermal(eye.pixels, faint)).mean() < 0.2 * colourfulness(thermal(eye.pixels, strong)).mean()


def test_heat_of_another_size_is_refused(eye: Phantom) -> None:
    with pytest.raises(ValueError, match="the heat must be"):
        thermal(eye.pixels, np.zeros((7, 7), np.float32))


def drawn(pixels: Pixels, row: Row, *, layout: Layout = LARGE) -> Pixels:
    """The thermal picture of a photograph without heat."""
    cool = heat(width=pixels.shape[1], height=pixels.shape[0], hot=False)
    photograph, thermal_map = views(pixels, cool, side=layout.box)
    assert thermal_map is not None
    return picture(photograph, thermal_map, row, layout=layout)


@pytest.mark.parametrize("layout", [LARGE, SMALL])
@pytest.mark.parametrize("shape", [(640, 960), (960, 640), (100, 100), (300, 3000), (1, 1)])
def test_the_picture_holds_photograph_and_map_side_by_side(shape: tuple[int, int], layout: Layout) -> None:
    height, width = shape
    pixels = np.full((height, width, 3), (180, 90, 40), np.uint8)
    canvas = drawn(pixels, as_row(graded()), layout=layout)
    assert canvas.shape[1] == layout.width
    assert canvas.dtype == np.uint8
    photograph = (canvas == (180, 90, 40)).all(axis=2).sum()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[0, 0]
    assert photograph == (canvas == grey).all(axis=2).sum() > 0
    assert photograph == np.prod(fitted(pixels, layout.box).shape[:2])


def test_two_grades_give_two_headings(eye: Phantom) -> None:
    probabilities = np.array([0.9, 0.05, 0.03, 0.01, 0.01])
    sure = drawn(eye.pixels, as_row(graded()))
    healthy = drawn(
        eye.pixels, as_row(graded(grade=Grade.NONE, probabilities=probabilities, p_referable=0.05, referable=False))
    )
    assert (sure[:70] != healthy[:70]).any()


def test_reasons_and_whose_eye_it_is_are_written(eye: Phantom) -> None:
    plain = drawn(eye.pixels, as_row(graded()))
    told = drawn(eye.pixels, replace(as_row(graded()), eye="left", reasons=("low confidence",)))
    bottom = LARGE.bottom
    assert (plain[-bottom:] != told[-bottom:]).any()
    assert (plain[70 : LARGE.top] != told[70 : LARGE.top]).any()


def test_what_has_no_grade_gets_no_picture(eye: Phantom) -> None:
    with pytest.raises(ValueError, match="only a graded photo"):
        drawn(eye.pixels, as_row(refused()))


def test_a_thumbnail_is_a_pair_only_with_a_map(eye: Phantom) -> None:
    height, width = eye.pixels.shape[:2]
    assert pair(*views(eye.pixels, None, side=180), side=180).shape == (120, 180, 3)
    hot = views(eye.pixels, heat(width=width, height=height), side=180)
    assert pair(*hot, side=180).shape == (120, 360, 3)


def test_pictures_keep_their_colours_in_files(eye: Phantom) -> None:
    np.testing.assert_array_equal(decoded(as_png(eye.pixels)), eye.pixels)
    small = fitted(eye.pixels, 180)
    assert np.abs(decoded(as_jpeg(small)).astype(int) - small).mean() < 6
