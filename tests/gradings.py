"""Verdicts made by hand, for tests of what is written about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from retigrade.fundus.field import Field
from retigrade.grading import Grading
from retigrade.heatmap import Heatmap
from retigrade.icdr import Grade, Status


def graded(path: str = "eye.jpg", **changes: Any) -> Grading:
    """A moderate eye, with these fields changed."""
    values: dict[str, Any] = {
        "path": path,
        "status": Status.GRADED,
        "bundle": "tiny@0123456789ab",
        "seconds": 0.01234567,
        "grade": Grade.MODERATE,
        "probabilities": np.array([0.05, 0.1, 0.6, 0.2, 0.05]),
        "p_referable": 0.85,
        "referable": True,
        "quality": 0.912345,
        "reasons": ("dark rim", "low confidence: a second reader is advised"),
        "sha256": "ab" * 32,
    }
    return Grading(**{**values, **changes})


def refused(path: str = "cat.jpg", status: Status = Status.NOT_FUNDUS, reason: str = "no retinal disc") -> Grading:
    """An input without a grade."""
    return Grading(path=path, status=status, bundle="tiny@0123456789ab", seconds=0.001, reasons=(reason,))


def heat(*, width: int, height: int, hot: bool = True) -> Heatmap:
    """A map over a centred disc: all of it cool, or with one hot cell left of the middle."""
    values = np.zeros((7, 7), np.float32)
    if hot:
        values[3, 1] = 1
    radius = 0.48 * min(width, height)
    field = Field(cx=0.5, cy=0.5, rx=radius / width, ry=radius / height)
    return Heatmap(values, field, width, height)
