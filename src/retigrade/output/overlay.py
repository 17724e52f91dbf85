"""The thermal picture: a photograph beside its map, with stage, probabilities and a colour bar."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from retigrade.arrays import Floats, Pixels
from retigrade.heatmap import Heatmap, colours, opacity
from retigrade.icdr import GRADES
from retigrade.output.rows import Row
from retigrade.report.style import CAPTION, STAGE_COLOURS, Colour

PICTURE_SIDE = 340  # pixels that the shorter side of a photograph needs to look sharp in its box
WIDTH = 1280
_BOX = 560  # side of the square that each of the two pictures is fitted into
_LOWEST = 240  # least height of a picture's box, so that the colour bar keeps its labels apart
_LEFT, _TOP, _GAP, _BOTTOM = 28, 104, 24, 136
_BAR_WIDTH = 16

_GROUND: Colour = (15, 18, 24)
_TRACK: Colour = (44, 50, 62)
_BRIGHT: Colour = (236, 240, 246)
_DIM: Colour = (150, 160, 176)

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def thermal(pixels: Pixels, heat: Floats) -> Pixels:
    """Return the grey photograph with the map blended over it; where the map is cool the photograph is left alone.

    pixels: uint8 (h, w, 3) RGB; heat: float32 (h, w), 0 (cool) to 1 (hot), shown on that fixed scale; returns uint8
    (h, w, 3) RGB.
    """
    if heat.shape != pixels.shape[:2]:
        raise ValueError(f"the heat must be {pixels.shape[:2]} as the photograph is, got {heat.shape}")
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    share = opacity(heat)[..., None]
    return np.asarray(np.rint(grey * (1 - share) + colours(heat) * share), np.uint8)


def picture(pixels: Pixels, heat: Heatmap, row: Row) -> Pixels:
    """Return the photograph and its thermal map side by side, annotated: uint8 (H, 1280, 3) RGB.

    pixels: uint8 (h, w, 3) RGB, the photograph at any size; row: what the verdict was. Raises ValueError if not graded.
    """
    small = fitted(pixels, _BOX)
    tall = max(small.shape[0], _LOWEST)
    canvas = np.full((_TOP + tall + _BOTTOM, WIDTH, 3), _GROUND, np.uint8)
    left, right = _LEFT, _LEFT + _BOX + _GAP
    _header(canvas, row)
    _paste(canvas, small, left, tall)
    _paste(canvas, thermal(small, _heat_of(small, heat)), right, tall)
    _write(canvas, "photograph", (left, _TOP - 12), 11, _DIM)
    _write(canvas, "thermal map", (right, _TOP - 12), 11, _DIM)
    _colour_bar(canvas, right + _BOX + 18, tall)
    _probabilities(canvas, row, _TOP + tall + 46)
    footer = f"{CAPTION} (bundle {row.bundle})"
    fit = (WIDTH - 2 * _LEFT) / _width_of(footer, 11)
    _write(canvas, footer, (_LEFT, len(canvas) - 24), 11 * min(fit, 1), _DIM)
    return canvas


def pair(pixels: Pixels, heat: Heatmap | None, *, side: int) -> Pixels:
    """Return a thumbnail: the photograph, and beside it the thermal map where there is one.

    pixels: uint8 (h, w, 3) RGB; each of the two is fitted into `side` pixels; returns uint8 (H, W, 3) RGB.
    """
    small = fitted(pixels, side)
    if heat is None:
        return small
    return np.hstack([small, thermal(small, _heat_of(small, heat))])


def fitted(pixels: Pixels, side: int) -> Pixels:
    """Return the picture scaled so that its longer side has `side` pixels; uint8 (h, w, 3)."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=kernel), np.uint8)


def as_png(pixels: Pixels) -> bytes:
    """Return uint8 (h, w, 3) RGB as a PNG file."""
    # Run lengths: measured smaller here than the default strategy, in two thirds of its time.
    return _encoded(
        ".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    )


def as_jpeg(pixels: Pixels) -> bytes:
    """Return uint8 (h, w, 3) RGB as a JPEG file."""
    return _encoded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 84])


def _encoded(suffix: str, pixels: Pixels, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"OpenCV could not write {pixels.shape} pixels as {suffix}")
    return data.tobytes()


def _heat_of(pixels: Pixels, heat: Heatmap) -> Floats:
    """Return the heat at this size of the photograph, float32 (h, w)."""
    height, width = pixels.shape[:2]
    return heat.in_frame(width, height)


def _paste(canvas: Pixels, small: Pixels, left: int, tall: int) -> None:
    """Put a picture into the middle of a black box `tall` pixels high whose left edge is given."""
    canvas[_TOP : _TOP + tall, left : left + _BOX] = 0
    height, width = small.shape[:2]
    x, y = left + (_BOX - width) // 2, _TOP + (tall - height) // 2
    canvas[y : y + height, x : x + width] = small


def _header(canvas: Pixels, row: Row) -> None:
    if row.grade is None or row.p_referable is None:
        raise ValueError(f"{row.path}: only a graded photo has a thermal picture, this is {row.status}")
    end = _write(canvas, f"{row.stage}".capitalize(), (_LEFT, 56), 24, STAGE_COLOURS[row.grade], weight=2)
    verdict = "referable" if row.referable else "not referable"
    quality = "" if row.quality is None else f"     quality {row.quality:.2f}"
    details = f"grade {row.grade}     {verdict} (probability {row.p_referable:.2f}){quality}"
    _write(canvas, details, (end + 28, 56), 13, _BRIGHT)


def _colour_bar(canvas: Pixels, left: int, tall: int) -> None:
    ramp = np.linspace(1, 0, tall, dtype=np.float32)[:, None].repeat(_BAR_WIDTH, axis=1)
    canvas[_TOP : _TOP + tall, left : left + _BAR_WIDTH] = colours(ramp)
    for value in (1.0, 0.5, 0.0):
        middle = _TOP + round((1 - value) * (tall - 1))
        baseline = min(max(middle + 5, _TOP + 10), _TOP + tall)
        _write(canvas, f"{value:.1f}", (left + _BAR_WIDTH + 8, baseline), 11, _DIM)
    _write(canvas, "heat", (left, _TOP - 12), 11, _DIM)


def _probabilities(canvas: Pixels, row: Row, top: int) -> None:
    """Draw one labelled bar for each stage, at the height `top`."""
    gap = 28
    width = (WIDTH - 2 * _LEFT - gap * (len(GRADES) - 1)) // len(GRADES)
    for grade, probability in zip(GRADES, row.probabilities, strict=True):
        left = _LEFT + grade * (width + gap)
        ink = _BRIGHT if grade == row.grade else _DIM
        _write(canvas, grade.stage, (left, top - 10), 12, ink)
        number = f"{probability:.3f}"
        _write(canvas, number, (left + width - _width_of(number, 12), top - 10), 12, ink)
        canvas[top : top + 10, left : left + width] = _TRACK
        canvas[top : top + 10, left : left + round(width * probability)] = STAGE_COLOURS[grade]


def _write(
    canvas: Pixels, text: str, origin: tuple[int, int], height: float, colour: Colour, *, weight: int = 1
) -> int:
    """Write ASCII text whose capitals are `height` pixels tall, its baseline at `origin`; return its right end."""
    plain = text.encode("ascii", "replace").decode("ascii")
    cv2.putText(canvas, plain, origin, _FONT, _scale_of(height), colour, weight, cv2.LINE_AA)
    return origin[0] + _width_of(plain, height, weight=weight)


def _width_of(text: str, height: float, *, weight: int = 1) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, _scale_of(height), weight)
    return int(width)


@cache
def _scale_of(height: float) -> float:
    """Return OpenCV's font scale at which capitals are `height` pixels tall; fonts differ between its releases."""
    (_, tall), _ = cv2.getTextSize("H", _FONT, 10, 1)
    return 10 * height / tall
