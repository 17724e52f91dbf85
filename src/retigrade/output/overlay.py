"""The thermal picture: a photograph beside its map, with stage, probabilities and a colour bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import PurePath

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]

from retigrade.arrays import Floats, Pixels
from retigrade.heatmap import Heatmap, colours, opacity
from retigrade.icdr import GRADES, Grade
from retigrade.output.rows import Row
from retigrade.report.style import CAPTION, STAGE_COLOURS, Colour

_LOWEST = 240  # least height of a picture's box, so that the colour bar keeps its labels apart
_BAR_WIDTH = 16
_SMALLEST_TITLE = 7.5  # pixels of a capital letter that can be read


@dataclass(frozen=True, slots=True)
class Layout:
    """The measures of a thermal picture in pixels.

    box: side of the square that each of the two pictures is fitted into. sharp: pixels that the shorter side of a
    photograph needs to look sharp in it. text: height of its letters, as a share of the large picture's.
    """

    box: int
    sharp: int
    left: int
    top: int
    gap: int
    bottom: int
    text: float

    @property
    def width(self) -> int:
        """Of the whole picture."""
        return 2 * self.left + 2 * self.box + self.gap + _BAR_ROOM


_BAR_ROOM = 80
LARGE = Layout(box=560, sharp=340, left=28, top=104, gap=24, bottom=136, text=1.0)
SMALL = Layout(box=330, sharp=240, left=16, top=76, gap=12, bottom=92, text=0.78)
"""Of a seventh of the bytes as JPEG, and a third of the time."""

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
    share = np.asarray(opacity(heat), np.float32)
    return np.asarray(cv2.blendLinear(grey, np.ascontiguousarray(colours(heat)), 1 - share, share), np.uint8)


def views(pixels: Pixels, heat: Heatmap | None, *, side: int) -> tuple[Pixels, Pixels | None]:
    """Return the photograph and its thermal map, None without heat, each fitted into `side` pixels.

    pixels: uint8 (h, w, 3) RGB, the photograph at any size; both views are uint8 (h', w', 3) RGB.
    """
    small = fitted(pixels, side)
    return small, None if heat is None else thermal(small, heat.in_frame(small.shape[1], small.shape[0]))


def picture(photograph: Pixels, thermal_map: Pixels, row: Row, *, layout: Layout = LARGE) -> Pixels:
    """Return the photograph and its thermal map side by side, annotated: uint8 (H, layout.width, 3) RGB.

    photograph, thermal_map: `views` fitted into `layout.box`; row: what the verdict was. Raises ValueError if not
    graded.
    """
    if row.grade is None or row.p_referable is None:
        raise ValueError(f"{row.path}: only a graded photo has a thermal picture, this is {row.status}")
    tall = max(photograph.shape[0], _LOWEST)
    canvas = _frame(tall, Grade(row.grade), layout).copy()
    left, right = layout.left, layout.left + layout.box + layout.gap
    size = 11 * layout.text
    _header(canvas, row, row.p_referable, layout)
    _paste(canvas, photograph, left, tall, layout)
    _paste(canvas, thermal_map, right, tall, layout)
    _probabilities(canvas, row, tall, layout)
    notes = [note for note in (_second_line(row), f"{CAPTION} (bundle {row.bundle})") if note]
    for place, note in enumerate(reversed(notes)):
        fit = (layout.width - 2 * layout.left) / _width_of(note, size)
        baseline = len(canvas) - round((20 + 22 * place) * layout.text)
        _write(canvas, note, (layout.left, baseline), size * min(fit, 1), _BRIGHT if place else _DIM)
    return canvas


@lru_cache(maxsize=8)
def _frame(tall: int, grade: Grade, layout: Layout) -> Pixels:
    """Return what pictures of this height, grade and layout have in common, uint8 (H, layout.width, 3) RGB: a third
    of the time of drawing one. To be copied, not drawn on."""
    canvas = np.empty((layout.top + tall + layout.bottom, layout.width, 3), np.uint8)
    cv2.rectangle(canvas, (0, 0), canvas.shape[1::-1], _GROUND, cv2.FILLED)
    left, right = layout.left, layout.left + layout.box + layout.gap
    size = 11 * layout.text
    for start, title in ((left, "photograph"), (right, "thermal map")):
        canvas[layout.top : layout.top + tall, start : start + layout.box] = 0
        _write(canvas, title, (start, layout.top - 10), size, _DIM)
    _colour_bar(canvas, right + layout.box + 14, tall, layout)
    _write(
        canvas,
        f"{grade.stage}".capitalize(),
        (left, _baseline(layout)),
        24 * layout.text,
        STAGE_COLOURS[grade],
        weight=2,
    )
    for stage, start, top, width in _bars(tall, layout):
        _write(canvas, stage.stage, (start, top - 8), 12 * layout.text, _BRIGHT if stage == grade else _DIM)
        canvas[top : top + round(10 * layout.text), start : start + width] = _TRACK
    return canvas


def _baseline(layout: Layout) -> int:
    """Where the picture's first line of text stands."""
    return round(46 * layout.text)


def _bars(tall: int, layout: Layout) -> Iterator[tuple[Grade, int, int, int]]:
    """Yield each stage with the left end, the top and the width of its bar."""
    gap = round(28 * layout.text)
    width = (layout.width - 2 * layout.left - gap * (len(GRADES) - 1)) // len(GRADES)
    for grade in GRADES:
        yield grade, layout.left + grade * (width + gap), layout.top + tall + _baseline(layout), width


def pair(photograph: Pixels, thermal_map: Pixels | None, *, side: int) -> Pixels:
    """Return a thumbnail: the photograph, and beside it the thermal map where there is one.

    Each of the two, uint8 (h, w, 3) RGB, is fitted into `side` pixels; returns uint8 (H, W, 3) RGB.
    """
    return np.hstack([fitted(view, side) for view in (photograph, thermal_map) if view is not None])


def strip(pictures: Sequence[Pixels], titles: Sequence[str], *, side: int) -> Pixels:
    """Return pictures in a row, each below its title: uint8 (H, W, 3) RGB.

    pictures: uint8 (h, w, 3) RGB, all of one shape; each is fitted into `side` pixels.
    """
    small = [fitted(picture, side) for picture in pictures]
    height, width = small[0].shape[:2]
    size = max(0.03 * side, _SMALLEST_TITLE)
    gap, top = round(0.03 * side), round(3 * size)
    canvas = np.empty((top + height, len(small) * (width + gap) - gap, 3), np.uint8)
    canvas[:] = _GROUND
    for place, (title, view) in enumerate(zip(titles, small, strict=True)):
        left = place * (width + gap)
        canvas[top:, left : left + width] = view
        fit = min(1.0, (width - 2 * gap) / _width_of(title, size))
        _write(canvas, title, (left + gap, round(2 * size)), size * fit, _BRIGHT)
    return canvas


def fitted(pixels: Pixels, side: int) -> Pixels:
    """Return the picture scaled so that its longer side has `side` pixels; uint8 (h, w, 3)."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Halved by averages as long as that leaves enough: OpenCV averages over other areas ten times more slowly, and down
    # to a half, linear interpolation leaves out no pixel.
    while max(pixels.shape[:2]) >= 2 * side and min(pixels.shape[:2]) >= 2:
        half = pixels.shape[1] // 2, pixels.shape[0] // 2
        pixels = np.asarray(cv2.resize(pixels, half, interpolation=cv2.INTER_AREA), np.uint8)
    kernel = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=kernel), np.uint8)


def as_png(pixels: Pixels) -> bytes:
    """Return uint8 (h, w, 3) RGB as a PNG file."""
    # Run lengths: measured smaller here than the default strategy, in two thirds of its time.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    done, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"OpenCV could not write {pixels.shape} pixels as PNG")
    return data.tobytes()


def as_jpeg(pixels: Pixels) -> bytes:
    """Return uint8 (h, w, 3) RGB as a JPEG file, its colours at half the size."""
    whole = np.ascontiguousarray(pixels)
    return bytes(simplejpeg.encode_jpeg(whole, quality=84, colorspace="RGB", colorsubsampling="420"))


def _paste(canvas: Pixels, small: Pixels, left: int, tall: int, layout: Layout) -> None:
    """Put a picture into the middle of the box `tall` pixels high whose left edge is given."""
    height, width = small.shape[:2]
    x, y = left + (layout.box - width) // 2, layout.top + (tall - height) // 2
    canvas[y : y + height, x : x + width] = small


def _header(canvas: Pixels, row: Row, p_referable: float, layout: Layout) -> None:
    """Write grade, referral and quality behind the stage, and at the right the file's name and whose eye it is."""
    end = layout.left + _width_of(f"{row.stage}".capitalize(), 24 * layout.text, weight=2)
    verdict = "referable" if row.referable else "not referable"
    quality = "" if row.quality is None else f"    quality {row.quality:.2f}"
    details = f"grade {row.grade}    {verdict} (probability {p_referable:.2f}){quality}"
    _write(canvas, details, (end + round(28 * layout.text), _baseline(layout)), 13 * layout.text, _BRIGHT)
    name = ", ".join(part for part in (PurePath(row.path).name, f"{row.eye} eye" if row.eye else "", row.date) if part)
    size = 11 * layout.text
    fit = min((layout.width - 2 * layout.left) / 2 / max(_width_of(name, size), 1), 1)
    width = _width_of(name, size * fit)
    _write(canvas, name, (layout.width - layout.left - width, layout.top - 10), size * fit, _DIM)


def _second_line(row: Row) -> str:
    """Return what a reader must know beside the stage: the stages that are possible, and the reasons."""
    stages = row.prediction_set or ()
    span = f"possible: {GRADES[stages[0]].stage} to {GRADES[stages[-1]].stage}" if len(stages) > 1 else ""
    return "; ".join(part for part in (span, *row.reasons) if part)


def _colour_bar(canvas: Pixels, left: int, tall: int, layout: Layout) -> None:
    ramp = np.linspace(1, 0, tall, dtype=np.float32)[:, None]
    canvas[layout.top : layout.top + tall, left : left + _BAR_WIDTH] = colours(ramp)
    for value in (1.0, 0.5, 0.0):
        middle = layout.top + round((1 - value) * (tall - 1))
        baseline = min(max(middle + 5, layout.top + 10), layout.top + tall)
        _write(canvas, f"{value:.1f}", (left + _BAR_WIDTH + 8, baseline), 11 * layout.text, _DIM)


def _probabilities(canvas: Pixels, row: Row, tall: int, layout: Layout) -> None:
    """Fill each stage's bar to its probability, and write that above it."""
    size, thick = 12 * layout.text, round(10 * layout.text)
    for (grade, left, top, width), probability in zip(_bars(tall, layout), row.probabilities, strict=True):
        number, ink = f"{probability:.3f}", _BRIGHT if grade == row.grade else _DIM
        _write(canvas, number, (left + width - _width_of(number, size), top - 8), size, ink)
        canvas[top : top + thick, left : left + round(width * probability)] = STAGE_COLOURS[grade]


def _write(
    canvas: Pixels, text: str, origin: tuple[int, int], height: float, colour: Colour, *, weight: int = 1
) -> None:
    """Write ASCII text whose capitals are `height` pixels tall, its baseline at `origin`."""
    cv2.putText(canvas, _plain(text), origin, _FONT, _scale_of(height), colour, weight, cv2.LINE_AA)


def _width_of(text: str, height: float, *, weight: int = 1) -> int:
    (width, _), _ = cv2.getTextSize(_plain(text), _FONT, _scale_of(height), weight)
    return int(width)


def _plain(text: str) -> str:
    """Return text in ASCII: OpenCV's fonts have no more, and some of its releases crash on what is not Unicode."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character.isascii() and character.isprintable() else "?" for character in text)


@cache
def _scale_of(height: float) -> float:
    """Return OpenCV's font scale at which capitals are `height` pixels tall; fonts differ between its releases."""
    (_, tall), _ = cv2.getTextSize("H", _FONT, 10, 1)
    return 10 * height / tall
