"""Axis-aligned ellipses through points: of a few points, of many with outliers, and which points lie on which.

Points are x and y in fractions of a frame, float64 (..., 2); centres and half axes likewise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags

TOLERANCE = 0.012
"""Of the half axes: how near a point must lie to count for an ellipse."""
_SETTLING = 8  # Gauss-Newton steps

Points = npt.NDArray[np.float64]


def through(picks: Points) -> tuple[Points, Points]:
    """Centres and half axes, each (m, 2), of the ellipses nearest to sets of points (m, n, 2)."""
    design = _design(picks)
    normal = design.transpose(0, 2, 1) @ design + 1e-9 * np.eye(4)
    return _geometry(np.linalg.solve(normal, design.sum(axis=1)[..., None])[..., 0])


def settled(points: Points, ellipse: Points) -> Points:
    """The ellipse (cx, cy, rx, ry) at the smallest distance to the points near it, by Gauss-Newton.

    Distances are relative to the half axes and weighted by Tukey's biweight (Beaton and Tukey, 1974).
    """
    x, y = np.ascontiguousarray(points.T)  # row by row is twice as fast as in pairs
    slope, reach = np.empty((4, len(x))), 1.5 * TOLERANCE
    for _ in range(_SETTLING):
        cx, cy, rx, ry = ellipse.tolist()
        across, down = (x - cx) / rx, (y - cy) / ry
        distance = np.sqrt(across * across + down * down)
        away = distance - 1
        slope[0], slope[1] = across / (rx * distance), down / (ry * distance)
        slope[2], slope[3] = slope[0] * across, slope[1] * down
        weighted = slope * np.square(np.maximum(1 - np.square(away / reach), 0))
        normal = weighted @ slope.T + 1e-12 * np.eye(4)
        ellipse = ellipse + np.linalg.solve(normal, weighted @ away)
    return ellipse


def near(points: Points, centre: Points, radius: Points, *, tolerance: float = TOLERANCE) -> Flags:
    """Which of the points (n, 2) lie on which of the ellipses, centres and half axes (m, 2): bool (m, n)."""
    across = (points[:, 0] - centre[:, :1]) / radius[:, :1]
    down = (points[:, 1] - centre[:, 1:]) / radius[:, 1:]
    square = across * across + down * down
    return np.asarray((square > (1 - tolerance) ** 2) & (square < (1 + tolerance) ** 2))


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
