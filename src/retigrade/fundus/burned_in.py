"""Text burned into a photograph beside the retina: names, numbers and dates that a camera printed there."""

from __future__ import annotations

import cv2
import numpy as np

from retigrade.errors import NotAFundus
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import find_field

_SIDE = 1024  # pixels, the longer side that is looked at
_BEYOND = 1.06  # radii of the field from which on a pixel lies beside it
_BRIGHTER = 48  # levels above the surround
_GLYPHS = 4  # in one line
_HEIGHTS = (6, 60)  # pixels of a glyph


def has_text(photo: Photo) -> bool:
    """Whether glyphs stand in a line beside the retina: at least four pieces of like height, close together.

    Text on the retina itself is not looked for, and a picture without a retina is not searched.
    """
    try:
        field = find_field(photo)
    except NotAFundus:
        return False
    grey = cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(grey.shape)
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    height, width = grey.shape
    across = ((np.arange(width) + 0.5) / width - field.cx) / field.rx
    down = ((np.arange(height) + 0.5) / height - field.cy) / field.ry
    beside = across[None] ** 2 + down[:, None] ** 2 > _BEYOND**2
    if not beside.any():
        return False
    lit = (beside & (grey > np.median(grey[beside]) + _BRIGHTER)).astype(np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(lit, connectivity=8)
    glyphs = [
        (int(x), int(y), int(w), int(h))
        for x, y, w, h, area in boxes[1:]
        if _HEIGHTS[0] <= h <= _HEIGHTS[1] and w <= 2 * h and area >= 0.1 * w * h
    ]
    return any(_line_from(glyph, glyphs) >= _GLYPHS for glyph in glyphs)


def _line_from(first: tuple[int, int, int, int], glyphs: list[tuple[int, int, int, int]]) -> int:
    """How many glyphs stand in the line of the first, each at most three heights after the one before."""
    x, y, w, h = first
    count, end = 1, x + w
    line = sorted(g for g in glyphs if g[0] > x and abs(g[1] + g[3] - y - h) <= 0.35 * h and 0.5 * h <= g[3] <= 2 * h)
    for left, _, width, _ in line:
        if left - end > 3 * h:
            break
        count, end = count + 1, left + width
    return count
