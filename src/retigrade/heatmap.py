"""The thermal map: the network's evidence for disease, back on the photograph.

The head is a 1x1 convolution followed by a mean, so a grade's logit is exactly the average of its map (class activation
mapping, Zhou et al., CVPR 2016), and nothing has to be estimated by gradients.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats, Pixels
from retigrade.fundus.canonical import CanonicalView
from retigrade.fundus.field import Field
from retigrade.icdr import GRADES

_STRONGEST = 0.72  # share of the colour where the map is hottest; the photograph stays visible beneath
_FULL_FROM = 0.35  # heat from which the colour has that share
_STRIP = 32  # rows of a full-size map that are made at once
_LARGE = 60_000  # strips times columns from which several threads make them, about two megapixels
_SHARPNESS = -0.5  # of the cubic kernel; exact for parabolas (Keys, IEEE Trans. ASSP 29, 1981)


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """The evidence over the canonical square, and where that square lies on the photograph.

    values: float32 (s, s), 0 (cool) to 1 (hot); its rows and columns divide the bounding box of `field` evenly.
    width, height: the photograph's full size in pixels. receptive_field_offset: where in its own cell, across and down
    from 0 at the left and top to 1, a value is shown; see `make_heatmap`.
    """

    values: Floats
    field: Field
    width: int
    height: int
    receptive_field_offset: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.values.ndim != 2:
            raise ValueError(f"values must be float32 (s, s), got {self.values.dtype} {self.values.shape}")

    def in_source_pixels(self) -> Floats:
        """Return float32 (height, width) of the full-size photograph, 0..1, and 0 outside the disc."""
        return self.in_frame(self.width, self.height)

    def as_png(self, width: int, height: int) -> bytes:
        """Return a PNG file of width x height pixels to lay over the photograph: `colours`, as opaque as `opacity`."""
        heat = self.in_frame(width, height)
        opacity_plane = np.rint(opacity(heat) * 255).astype(np.uint8)
        bgra = np.dstack([colours(heat)[..., ::-1], opacity_plane])
        done, data = cv2.imencode(".png", bgra)
        if not done:
            raise ValueError(f"OpenCV could not write {bgra.shape} pixels as PNG")
        return data.tobytes()

    def in_frame(self, width: int, height: int) -> Floats:
        """Return float32 (height, width), 0..1, for the photograph at this size; 0 outside the disc."""
        field, (rows, columns) = self.field, self.values.shape
        x_offset, y_offset = self.receptive_field_offset
        left, across = _weights(width, cells=columns, middle=field.cx, radius=field.rx, offset=x_offset)
        top, down = _weights(height, cells=rows, middle=field.cy, radius=field.ry, offset=y_offset)
        right, bottom = left + len(across), top + len(down)
        frame = np.zeros((height, width), np.float32)
        starts, ends = self._spans(width, height, rows=(top, bottom), columns=(left, right))
        evidence = self.values @ across.T
        nearest = np.argmax(down != 0, axis=1), down.shape[1] - np.argmax(down[:, ::-1] != 0, axis=1)

        def fill(strips: range) -> None:
            # Strip by strip in one small buffer, which stays in the processor's cache until it is cut and clipped.
            buffer = np.empty(_STRIP * len(across), np.float32)
            for first in strips:
                last = min(first + _STRIP, bottom)
                begin, stop = starts[first - top : last - top, None], ends[first - top : last - top, None]
                cells = slice(nearest[0][first - top : last - top].min(), nearest[1][first - top : last - top].max())
                reach = evidence[cells, begin.min() - left : stop.max() - left]
                warm = np.flatnonzero(reach.any(axis=0))
                if not len(warm):
                    continue
                column = begin.min() + np.arange(warm[0], warm[-1] + 1)
                strip = buffer[: (last - first) * len(column)].reshape(last - first, len(column))
                np.matmul(down[first - top : last - top, cells], reach[:, warm[0] : warm[-1] + 1], out=strip)
                entering, leaving = (int(np.searchsorted(column, edge)) for edge in (begin.max(), stop.min()))
                np.putmask(strip[:, :entering], column[:entering] < begin, 0)
                np.putmask(strip[:, leaving:], column[leaving:] >= stop, 0)
                np.clip(strip, 0, 1, out=frame[first:last, column[0] : column[-1] + 1])

        strips = range(top, bottom, _STRIP)
        threads = cv2.getNumThreads() if len(strips) * len(across) > _LARGE else 1
        if threads < 2:
            fill(strips)
        else:
            with ThreadPoolExecutor(threads, thread_name_prefix="retigrade-heat") as pool:
                list(pool.map(fill, (strips[number::threads] for number in range(threads))))
        return frame

    def _spans(
        self, width: int, height: int, *, rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where each row's pixels of disc and window begin and end; a pixel belongs to the disc if its middle does."""
        field = self.field
        window_left, window_top, window_right, window_bottom = np.rint(
            np.array(field.window) * (width, height, width, height)
        ).astype(int)
        row = np.arange(*rows)
        within = 1 - (((row + 0.5) / height - field.cy) / field.ry) ** 2
        half = np.where(within >= 0, field.rx * np.sqrt(np.clip(within, 0, None)), -1)  # beyond the disc, no pixel
        low, high = max(columns[0], window_left), min(columns[1], window_right)
        starts = np.clip(np.ceil((field.cx - half) * width - 0.5), low, high).astype(np.int64)
        ends = np.clip(np.floor((field.cx + half) * width + 0.5), low, high).astype(np.int64)
        ends[(row < window_top) | (row >= window_bottom)] = low
        return starts, np.maximum(starts, ends)


def colours(heat: Floats) -> Pixels:
    """Return the colour of each value of 0..1, uint8 RGB of the same shape (h, w) and a last axis of 3."""
    level = np.atleast_2d(cv2.convertScaleAbs(np.maximum(heat, 0), alpha=255))  # rounds, and stops at 255
    return np.asarray(cv2.applyColorMap(level, _colour_table()), np.uint8).reshape(*heat.shape, 3)


@cache
def _colour_table() -> Pixels:
    """The 256 colours, uint8 (256, 1, 3) RGB."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)


def opacity(heat: Floats) -> Floats:
    """Return how much of that colour is laid over the photograph, float32 (h, w): none where the map is cool."""
    return np.asarray(np.clip(heat / _FULL_FROM, 0, 1) * _STRONGEST, np.float32)


def make_heatmap(
    maps: Floats,
    probabilities: npt.NDArray[np.float64],
    *,
    cam_maximum: float,
    receptive_field_offset: tuple[float, float],
    field: Field,
    width: int,
    height: int,
) -> Heatmap:
    """Return where the network saw disease: each stage's map, weighted by its probability, less the map of none.

    maps: float32 (5, s, s), whose means are the logits; probabilities: (5,). cam_maximum: the disease evidence shown as
    1, one for all photographs of a bundle, so that a healthy eye stays cool. Before it is scaled and clipped, the
    average of the evidence is the weighted logit of the diseased stages less the logit of none. It is shown squared:
    coarse maps lay a little warmth over all of a diseased retina, and the square draws the eye to the lesions.

    receptive_field_offset: where in its own cell lies the centre of what a value depends on. It is not the middle,
    (0.5, 0.5), in a network that pads its strided convolutions at one end; shown there, heat would lie beside the
    lesion.
    """
    evidence = disease_evidence(maps, probabilities)
    values = np.square(np.clip(evidence / cam_maximum, 0, 1)).astype(np.float32)
    return Heatmap(values, field, width, height, receptive_field_offset)


def on_frame(
    values: Floats, view: CanonicalView, *, receptive_field_offset: tuple[float, float] = (0.5, 0.5)
) -> Floats:
    """Lay a map of the canonical square, (s, s), 0..1, over the pixels of the view's photo: float32 (h, w), 0..1."""
    height, width = view.photo.pixels.shape[:2]
    heatmap = Heatmap(np.asarray(values, np.float32), view.field, width, height, receptive_field_offset)
    return heatmap.in_frame(width, height)


def disease_evidence(maps: Floats, probabilities: npt.NDArray[np.float64]) -> Floats:
    """Return the map of each diseased stage, weighted by its probability among them, less the map of none: (s, s).

    maps: float32 (5, s, s); probabilities: (5,).
    """
    if maps.ndim != 3 or len(maps) != len(GRADES):
        raise ValueError(f"maps must be (5, s, s), got {maps.shape}")
    diseased = probabilities[1:]
    total = float(diseased.sum())
    weights = diseased / total if total > np.finfo(np.float32).tiny else np.full(len(diseased), 1 / len(diseased))
    return np.asarray(np.tensordot(weights, maps[1:], axes=1) - maps[0], np.float32)


def _weights(size: int, *, cells: int, middle: float, radius: float, offset: float) -> tuple[int, Floats]:
    """Return the first pixel that the disc reaches along one axis, and what each cell gives to it and those after.

    size: the frame's pixels; middle, radius: the disc's, in fractions of the frame; offset: of the receptive field. The
    weights are float32 (pixels, cells), rows sum to 1: cubic convolution between the cells' centres, beyond them the
    outermost.
    """
    start = middle - radius
    first = max(0, int(np.floor(start * size)))
    end = min(size, int(np.ceil((middle + radius) * size)))
    place = ((np.arange(first, end) + 0.5) / size - start) / (2 * radius) * cells - offset
    cell, pixels = np.floor(place), np.arange(end - first)
    weights = np.zeros((end - first, cells), np.float32)
    for step in (-1, 0, 1, 2):
        near = cell + step
        weights[pixels, np.clip(near, 0, cells - 1).astype(int)] += _cubic(np.abs(place - near)).astype(np.float32)
    return first, weights


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weight of a cell `distance` cells away, for distances below 2."""
    near = ((_SHARPNESS + 2) * distance - (_SHARPNESS + 3)) * distance**2 + 1
    far = _SHARPNESS * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
