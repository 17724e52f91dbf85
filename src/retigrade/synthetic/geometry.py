"""Where things lie in a synthetic eye, and how a drawing in those coordinates reaches the frame's pixels.

All positions and lengths are in radii of the field: its centre is (0, 0), x runs right, y down, its rim is at 1.
One radius is 25 degrees of visual angle, as in a camera with a 50 degree field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats

Points = npt.NDArray[np.float64]
"""float64 (n, 2), x and y in radii of the field."""
Canvas = npt.NDArray[np.uint8]
"""uint8 (H, W): strength of one kind of structure, 0 none to 255 full."""
Eye = Literal["left", "right"]

_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Landmarks of one eye: `nasal` is the side of the optic disc, 1 right or -1 left; `disc_axes` are half axes."""

    nasal: int
    fovea: tuple[float, float]
    disc: tuple[float, float]
    disc_axes: tuple[float, float]

    @classmethod
    def draw(cls, eye: Eye, rng: np.random.Generator) -> Anatomy:
        """Place the landmarks; the disc's centre lies 15 degrees nasal of the fovea and a little above it."""
        nasal = 1 if eye == "right" else -1
        x, y = rng.uniform(-0.16, -0.02) * nasal, rng.uniform(-0.04, 0.06)
        disc = (x + nasal * rng.uniform(0.6, 0.66), y - rng.uniform(0.02, 0.09))
        width = rng.uniform(0.118, 0.138)
        return cls(nasal, (x, y), disc, (width, width * rng.uniform(1.04, 1.14)))


@dataclass(frozen=True, slots=True)
class Plane:
    """A frame of `height` x `width` pixels with the field's centre at (`cx`, `cy`) and its `radius`, in pixels."""

    height: int
    width: int
    cx: float
    cy: float
    radius: float

    @property
    def reach(self) -> tuple[float, float]:
        """How far the frame reaches from the field's centre, sideways and up or down, in radii."""
        return self.width / 2 / self.radius, self.height / 2 / self.radius

    def axes(self) -> tuple[Floats, Floats]:
        """Return x float32 (1, W) and y float32 (H, 1) of the pixels' centres, in radii."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5 - self.cx) / self.radius
        y = (np.arange(self.height, dtype=np.float32) + 0.5 - self.cy) / self.radius
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)

    def blank(self) -> Canvas:
        """Return an empty canvas."""
        return np.zeros((self.height, self.width), np.uint8)

    def fill(self, canvas: Canvas, outline: Points, strength: float) -> None:
        """Fill a closed outline with `strength` (0 to 1), edges smooth to a sixteenth of a pixel."""
        # OpenCV puts integer coordinates at pixel centres, hence the half.
        pixels = outline * self.radius + (self.cx - 0.5, self.cy - 0.5)
        fixed = np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], round(255 * strength), lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)

    def soften(self, canvas: Canvas, sigma: float) -> Floats:
        """Return the canvas as float32 (H, W) in 0..1, blurred by `sigma` radii."""
        strength = canvas.astype(np.float32) / 255
        return np.asarray(cv2.GaussianBlur(strength, (0, 0), max(sigma * self.radius, 0.3)), np.float32)

    def noise(self, scale: float, rng: np.random.Generator) -> Floats:
        """Return smooth noise, float32 (H, W), of zero mean and about unit deviation, with grains of `scale` radii."""
        cells = int(np.ceil(2.2 / scale)) + 4  # the field with a margin, so that every frame size sees one pattern
        grid = rng.standard_normal((cells, cells), dtype=np.float32) * 1.45  # interpolation takes deviation away
        step = 1 / (self.radius * scale)
        shift_x, shift_y = ((cells - 1) / 2 - centre * step for centre in (self.cx - 0.5, self.cy - 0.5))
        to_grid = np.array([[step, 0, shift_x], [0, step, shift_y]])
        flags, shape = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, (self.width, self.height)
        noise = cv2.warpAffine(grid, to_grid, shape, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(noise, np.float32)
