"""The one way from a photograph to what the network sees: training, export, grading and the page all call it."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Pixels
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import Field

LIT = 14
"""The brightest channel above which a pixel of a canonical picture shows retina, not the black that JPEG leaves."""

_RIM = 0.985  # of the radius; the rim's own blur and colour fringe stay out of the picture
_DECODE_MARGIN = 1.4  # frame side over canonical side: a disc may be smaller than its frame


def decode_side(size: int) -> int:
    """The shorter frame side, in pixels, that gives a canonical field of `size` pixels all its detail."""
    return math.ceil(size * _DECODE_MARGIN)


def crop(photo: Photo, field: Field, *, size: int) -> Pixels:
    """Map the field's ellipse to the centred circle of a square.

    Returns uint8 (size, size, 3), RGB, black outside the circle and where the frame cut the disc off.
    """
    height, width = photo.pixels.shape[:2]
    left, right = round((field.cx - field.rx) * width), round((field.cx + field.rx) * width)
    top, bottom = round((field.cy - field.ry) * height), round((field.cy + field.ry) * height)
    window_left, window_right = round(field.window[0] * width), round(field.window[2] * width)
    window_top, window_bottom = round(field.window[1] * height), round(field.window[3] * height)
    inside = photo.pixels[
        max(top, window_top) : min(bottom, window_bottom), max(left, window_left) : min(right, window_right)
    ]
    box = cv2.copyMakeBorder(
        inside,
        max(window_top - top, 0),
        max(bottom - window_bottom, 0),
        max(window_left - left, 0),
        max(right - window_right, 0),
        cv2.BORDER_CONSTANT,
        value=(0, 0, 0),
    )
    shrinks = box.shape[0] > size or box.shape[1] > size
    square = cv2.resize(box, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(cv2.bitwise_and(square, square, mask=circle(size).view(np.uint8)), np.uint8)


@lru_cache(maxsize=8)
def circle(size: int) -> npt.NDArray[np.bool_]:
    """The canonical circle: bool (size, size), True inside."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    inside = axis[:, None] ** 2 + axis[None] ** 2 < _RIM**2
    inside.flags.writeable = False
    return np.asarray(inside)
