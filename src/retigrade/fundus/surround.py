"""What lies around a photograph in its frame: lines, bars and surrounds of one colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Pixels

_SAMPLES = 256  # pixels looked at in a row or column
_ONE_COLOUR = 0.98  # share of a row that has its median colour, within the tolerance
_TOLERANCE = 14  # of 255
_BRIGHT = 25  # of 255: darker edges are the black that a camera leaves
_GAP = 16  # pixels: how far JPEG's ringing or a blend reaches between two uniform rows
_ROUNDS = 6  # of peeling all four sides; a line's own ends make the sides beside it two-coloured at first
_CORNER = 4  # pixels

Colour = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a frame that shows the photograph: pixels, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, pixels: Pixels) -> Pixels:
        """Cut the window out of the frame: a view, uint8 (h, w, 3)."""
        return pixels[self.top : self.bottom, self.left : self.right]

    def shaved(self, share: float) -> Window:
        """Take a share of its width and height off each side."""
        across, down = round((self.right - self.left) * share), round((self.bottom - self.top) * share)
        return Window(self.left + across, self.top + down, self.right - across, self.bottom - down)


def has_bright_edge(pixels: Pixels) -> bool:
    """Whether any outermost row or column of the frame has one colour that is not black."""
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        sample = edge[:: 1 + len(edge) // _SAMPLES]
        if sample.max() > _BRIGHT:
            low, middle, high = np.percentile(sample, (3, 50, 97), axis=0)
            if middle.max() > _BRIGHT and (high - low).max() <= 2 * _TOLERANCE:
                return True
    return False


def peel(pixels: Pixels) -> Window:
    """Take one-colour rows and columns, of any colours, off all sides of a frame, uint8 (h, w, 3)."""
    height, width = pixels.shape[:2]
    window = Window(0, 0, width, height)
    for _ in range(_ROUNDS):
        inside = window.of(pixels)
        top, bottom = _leading(_uniform(inside)), _leading(_uniform(inside[::-1]))
        left, right = (_leading(_uniform(side.transpose(1, 0, 2))) for side in (inside, inside[:, ::-1]))
        if not (top or bottom or left or right):
            break
        if top + bottom >= inside.shape[0] or left + right >= inside.shape[1]:
            return Window(0, 0, width, height)  # all of one colour: there is nothing to uncover
        window = Window(window.left + left, window.top + top, window.right - right, window.bottom - bottom)
    return window


def surround_colour(pixels: Pixels) -> Colour | None:
    """The light surround that a frame's corners agree on, uint8 (3,); None where they are dark or differ."""
    ends = (slice(None, _CORNER), slice(-_CORNER, None))
    corners = [pixels[rows, columns].reshape(-1, 3) for rows in ends for columns in ends]
    colours = np.array([np.median(corner, axis=0) for corner in corners])
    middle = np.median(colours, axis=0)
    agree = np.abs(colours - middle).max(axis=1) <= _TOLERANCE
    return np.asarray(middle, np.uint8) if middle.max() > 2 * _BRIGHT and agree.sum() >= 3 else None


def _uniform(pixels: Pixels) -> Flags:
    """Which rows have one colour: bool (h,)."""
    sample = pixels[:, :: 1 + pixels.shape[1] // _SAMPLES].astype(np.int16)
    off = np.abs(sample - np.median(sample, axis=1, keepdims=True)).max(axis=2)
    return np.asarray((off <= _TOLERANCE).mean(axis=1) >= _ONE_COLOUR)


def _leading(uniform: Flags) -> int:
    """How many rows to take off: up to the last uniform one that is no more than a gap after the one before."""
    places = np.flatnonzero(uniform)
    steps = np.diff(places, prepend=-1)
    far = np.flatnonzero(steps > _GAP)
    reached = places[: far[0]] if len(far) else places
    return int(reached[-1]) + 1 if len(reached) else 0
