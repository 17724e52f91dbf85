"""Find the retinal disc in a photograph, as an axis-aligned ellipse.

A camera shows a circle; a picture squeezed to another aspect shows an axis-aligned ellipse, and either may be cut
off by the frame. The boundary is read along rows and columns where the mask of lit pixels begins and ends, points
on the frame's edge are dropped (they are the cut, not the disc), and the ellipse is chosen by sampling consensus, so
that a notch, a glare or a dark rim cannot pull it, then settled by robust least squares on the distance itself: of a
cut-off disc an algebraic fit leaves the hidden half axis uncertain by half a percent.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Pixels
from retigrade.errors import NotAFundus
from retigrade.fundus.decode import Photo

FIELD_VERSION = 2
"""Raised whenever the same photograph would give another field or another canonical picture."""

_SIDE = 256  # the boundary is read on a copy with this shorter side at most
_DRAWS = 128  # candidate ellipses
_VOTERS = 200  # boundary points that choose among the candidates
_TOLERANCE = 0.012  # of the half axes: how near a point must lie to count for an ellipse
_BLEED = 1  # pixels by which smoothing and a low threshold carry the lit region over the disc's edge
_SETTLING = 8  # Gauss-Newton steps
_FEWEST = 40  # boundary points below which the retina is taken to fill its frame
_LARGEST_ASPECT = 1.9  # squeezing a 16:9 frame to a square stretches the disc 1.78 times
_SMALLEST_AREA = 0.08  # of the frame
_FURTHEST = 0.95  # half axes of a disc much larger than its frame, in frame sides

Points = npt.NDArray[np.float64]
Light = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Field:
    """The retinal disc: an axis-aligned ellipse, in fractions of the frame's width and height.

    cx, cy: centre; rx, ry: half axes. A disc cut off by the frame reaches below 0 or above 1.
    filled: True where the retina fills the frame and no boundary was seen.
    """

    cx: float
    cy: float
    rx: float
    ry: float
    filled: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.rx < 4 and 0 < self.ry < 4 and 0 <= self.cx <= 1 and 0 <= self.cy <= 1):
            raise ValueError(f"not an ellipse inside a frame: {self.cx, self.cy, self.rx, self.ry}")


WHOLE_FRAME = Field(cx=0.5, cy=0.5, rx=0.5, ry=0.5, filled=True)
"""Of a picture that shows no disc: all of the frame."""


def find_field(photo: Photo) -> Field:
    """Find the retinal disc of a photo.

    Raises NotAFundus where no lit region is large enough and no ellipse follows its boundary.
    """
    mask = _largest_lit(_thumb(_brightest(photo.pixels)))
    share = np.count_nonzero(mask) / mask.size
    if share < _SMALLEST_AREA:
        raise NotAFundus(
            f"no retinal disc: {share:.0%} of the frame is lit, at least {_SMALLEST_AREA:.0%} is needed; "
            "is this a fundus photograph?"
        )
    height, width = mask.shape
    points = _boundary(mask)
    if len(points) < _FEWEST:
        return WHOLE_FRAME
    ellipse = _consensus(points / (width, height), aspect=width / height)
    if ellipse is None:
        if share > 0.9:
            return WHOLE_FRAME
        raise NotAFundus("no retinal disc: the lit region's boundary is not round; is this a fundus photograph?")
    return ellipse


def lit(pixels: Pixels) -> Flags:
    """Tell retina from the black around it: bool (h, w), the largest lit region without its holes."""
    return _largest_lit(_brightest(pixels))


def _brightest(pixels: Pixels) -> Light:
    # Twenty times as fast as a maximum over the last axis.
    return np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


def _thumb(light: Light) -> Light:
    height, width = light.shape
    scale = _SIDE / min(height, width)
    if scale >= 1:
        return light
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(light, size, interpolation=cv2.INTER_AREA), np.uint8)


def _largest_lit(light: Light) -> Flags:
    light = np.asarray(cv2.GaussianBlur(light, (3, 3), 0), np.uint8)
    edge = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    black = float(np.percentile(edge, 2))
    bright = float(np.percentile(light[::3, ::3], 75))  # a sample tells it as well
    # A dark photograph needs a low threshold, a hazy black background a higher one.
    threshold = min(black + max(6.0, 0.12 * (bright - black)), 60.0)
    above = light > threshold
    outlines, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = np.zeros(above.shape, np.uint8)
    if outlines:
        cv2.drawContours(largest, [max(outlines, key=cv2.contourArea)], -1, 1, thickness=cv2.FILLED)
    return np.asarray(above & (largest > 0))


def _boundary(mask: Flags) -> Points:
    """Where rows and columns enter and leave the mask, frame edges left out: (n, 2), x and y in pixels."""
    return np.concatenate([_entries(mask), _entries(np.ascontiguousarray(mask.T))[:, ::-1]])


def _entries(mask: Flags) -> Points:
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    inner, far = 2, mask.shape[1] - 2
    left = np.column_stack([first + _BLEED, rows + 0.5])[first >= inner]
    right = np.column_stack([last - _BLEED, rows + 0.5])[last <= far]
    points = np.concatenate([left, right]).astype(np.float64)
    # Along rows that graze the disc's top the boundary is the frame's cut, not the disc.
    return np.asarray(points[(points[:, 1] > inner) & (points[:, 1] < mask.shape[0] - inner)])


def _design(points: Points) -> Points:
    x, y = points[..., 0] - 0.5, points[..., 1] - 0.5
    return np.stack([x * x, y * y, x, y], axis=-1)


def _geometry(conic: Points) -> tuple[Points, Points]:
    """Centres and half axes, each (n, 2), of a x^2 + b y^2 + c x + d y = 1; NaN where it is no ellipse."""
    with np.errstate(all="ignore"):
        square, linear = conic[..., :2], conic[..., 2:]
        centre = -linear / (2 * square)
        radius = np.sqrt((1 + (square * centre**2).sum(-1, keepdims=True)) / square)
    return centre + 0.5, radius


def _consensus(points: Points, *, aspect: float) -> Field | None:
    """The ellipse that most boundary points follow, or None; `points` and the answer in frame fractions."""
    rng = np.random.default_rng(0)
    few = points[:: 1 + len(points) // _VOTERS]
    picks = few[rng.integers(len(few), size=(_DRAWS, 6))]
    design = _design(picks)
    normal = design.transpose(0, 2, 1) @ design + 1e-9 * np.eye(4)
    conics = np.linalg.solve(normal, design.sum(axis=1)[..., None])[..., 0]
    centre, radius = _geometry(conics)
    good = _plausible(centre, radius, aspect)
    if not good.any():
        return None
    centre, radius = centre[good], radius[good]
    best = int(_near(few, centre, radius).sum(axis=1).argmax())
    settled = _settled(points, np.concatenate([centre[best], radius[best]]))
    centre, radius = settled[None, :2], settled[None, 2:]
    if not _plausible(centre, radius, aspect)[0] or _near(points, centre, radius).mean() < 0.5:
        return None
    cx, cy, rx, ry = settled.tolist()
    return Field(cx=cx, cy=cy, rx=rx, ry=ry)


def _settled(points: Points, ellipse: Points) -> Points:
    """The ellipse (cx, cy, rx, ry) at the smallest distance to the points near it, by Gauss-Newton.

    Distances are relative to the half axes and weighted by Tukey's biweight (Beaton and Tukey, 1974).
    """
    reach = 1.5 * _TOLERANCE
    for _ in range(_SETTLING):
        offset = (points - ellipse[:2]) / ellipse[2:]
        distance = np.hypot(offset[:, 0], offset[:, 1])
        away = distance - 1
        weight = np.clip(1 - (away / reach) ** 2, 0, None) ** 2
        slope = np.concatenate([offset, offset * offset], axis=1) / (np.tile(ellipse[2:], 2) * distance[:, None])
        normal = slope.T @ (slope * weight[:, None]) + 1e-12 * np.eye(4)
        ellipse = ellipse + np.linalg.solve(normal, slope.T @ (weight * away))
    return ellipse


def _near(points: Points, centre: Points, radius: Points) -> Flags:
    """Which of the points (n, 2) lie on which of the ellipses, centres and half axes (m, 2): bool (m, n)."""
    across = (points[:, 0] - centre[:, :1]) / radius[:, :1]
    down = (points[:, 1] - centre[:, 1:]) / radius[:, 1:]
    square = across * across + down * down
    return np.asarray((square > (1 - _TOLERANCE) ** 2) & (square < (1 + _TOLERANCE) ** 2))


def _plausible(centre: Points, radius: Points, aspect: float) -> Flags:
    """Which ellipses a camera could have made; `aspect` is the frame's width over its height."""
    with np.errstate(all="ignore"):
        stretch = radius[:, 0] * aspect / radius[:, 1]
        shape = (stretch < 1.15) & (stretch > 1 / _LARGEST_ASPECT)
        place = (np.abs(centre - 0.5) < 0.25).all(axis=1)
        size = (radius < _FURTHEST).all(axis=1) & (radius[:, 0] * radius[:, 1] * np.pi > _SMALLEST_AREA)
    return np.asarray(np.isfinite(radius).all(axis=1) & shape & place & size)
