"""The frozen records that cross layers, each validated at birth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retigrade.scale import GRADES, Grade

Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""
Floats = npt.NDArray[np.float32]


class Status(StrEnum):
    """What became of one input."""

    GRADED = "graded"
    UNGRADABLE = "ungradable"
    NOT_FUNDUS = "not_fundus"
    ERROR = "error"


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded photograph.

    pixels: uint8 (h, w, 3) RGB, upright; a JPEG may be decoded below its full size.
    width, height: the file's full size in pixels, upright.
    sha256: hexadecimal digest of the file's bytes.
    """

    pixels: Pixels
    width: int
    height: int
    sha256: str

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"pixels must be uint8 (h, w, 3), got {self.pixels.dtype} {self.pixels.shape}")


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


@dataclass(frozen=True, slots=True)
class Quality:
    """What the gate found: a score from 0 (useless) to 1 (clear), the verdict, and reasons in words."""

    score: float
    status: Status
    reasons: tuple[str, ...] = ()


class HeatMap(Protocol):
    """The evidence for one stage over a photograph; `retigrade.heat` makes it."""

    def in_source_pixels(self) -> Floats:
        """float32 (height, width) of the full-size photograph, 0 (cool) to 1 (hot)."""
        ...

    def in_frame(self, width: int, height: int) -> Floats:
        """The same for the whole frame at another size: float32 (height, width)."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grading:
    """The verdict on one input.

    path: as given. status: see `Status`. Only a graded photo has grade, probabilities, p_referable,
    referable, possible and heat_map.
    probabilities: float64 (5,), sums to 1. possible: the grades that the true one is among as often as the bundle
    promises, in order, the decided one too; None where it promises nothing. quality: 0..1. bundle: its identity.
    seconds: time spent on this input.
    """

    path: str
    status: Status
    bundle: str
    seconds: float
    grade: Grade | None = None
    probabilities: npt.NDArray[np.float64] | None = None
    p_referable: float | None = None
    referable: bool | None = None
    possible: tuple[Grade, ...] | None = None
    quality: float | None = None
    reasons: tuple[str, ...] = ()
    sha256: str | None = None
    heat_map: HeatMap | None = None

    def __post_init__(self) -> None:
        answers = (self.grade, self.probabilities, self.p_referable, self.referable)
        if self.status is Status.GRADED:
            if any(answer is None for answer in answers):
                raise ValueError("a graded photo needs grade, probabilities, p_referable and referable")
            check_distribution(self.probabilities)
            if self.possible is not None and (
                self.grade not in self.possible or self.possible != GRADES[self.possible[0] : self.possible[-1] + 1]
            ):
                raise ValueError(f"possible grades must be a run that holds {self.grade!r}, got {self.possible}")
        elif any(answer is not None for answer in (*answers, self.possible, self.heat_map)):
            raise ValueError(f"a photo that is {self.status} carries no grade")
        elif not self.reasons:
            raise ValueError(f"a photo that is {self.status} needs a reason")

    @property
    def stage(self) -> str | None:
        """The stage's name, or None where there is no grade."""
        return None if self.grade is None else self.grade.stage

    @property
    def heat(self) -> Floats | None:
        """The thermal map in source pixels, float32 (height, width), 0..1; None where there is none."""
        return None if self.heat_map is None else self.heat_map.in_source_pixels()


def check_distribution(values: npt.NDArray[np.float64] | None) -> None:
    """Raise ValueError unless `values` are five probabilities that sum to 1."""
    if values is None or values.shape != (len(GRADES),):
        raise ValueError(f"need {len(GRADES)} probabilities, got {None if values is None else values.shape}")
    if not (np.all(values >= 0) and abs(float(values.sum()) - 1) < 1e-6):
        raise ValueError(f"not a distribution: {values}")
