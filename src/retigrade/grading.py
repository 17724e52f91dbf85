"""The verdict on one input, validated at birth."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats
from retigrade.heatmap import Heatmap
from retigrade.icdr import GRADES, Grade, Status


class Eye(StrEnum):
    """The side of the body, the patient's own right and left."""

    RIGHT = "right"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose eye a photograph shows, and when; what is not known is None, never guessed.

    patient: an identifier. date: the day of the visit.
    """

    patient: str | None = None
    eye: Eye | None = None
    date: datetime.date | None = None


NOBODY = Subject()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grading:
    """The verdict on one input.

    path: as given. status: see `Status`. Only a graded photo has grade, probabilities, p_referable,
    referable, possible and heat_map.
    probabilities: float64 (5,), sums to 1. possible: the grades that the true one is among as often as the bundle
    promises, in order, the decided one too; None where it promises nothing. quality: 0..1. bundle: its identity.
    seconds: time spent on this input. subject: whose eye it is, as far as known.
    """

    path: str
    status: Status
    bundle: str
    seconds: float
    grade: Grade | None = None
    probabilities: npt.NDArray[np.float64] | None = None
    p_referable: float | None = None
    referable: bool | None = None
    prediction_set: tuple[Grade, ...] | None = None
    quality: float | None = None
    reasons: tuple[str, ...] = ()
    sha256: str | None = None
    heatmap: Heatmap | None = None
    subject: Subject = NOBODY

    def __post_init__(self) -> None:
        answers = (self.grade, self.probabilities, self.p_referable, self.referable)
        if self.status is Status.GRADED:
            if any(answer is None for answer in answers):
                raise ValueError("a graded photo needs grade, probabilities, p_referable and referable")
            check_distribution(self.probabilities)
            if self.prediction_set is not None and (
                self.grade not in self.prediction_set
                or self.prediction_set != GRADES[self.prediction_set[0] : self.prediction_set[-1] + 1]
            ):
                raise ValueError(f"possible grades must be a run that holds {self.grade!r}, got {self.prediction_set}")
        elif any(answer is not None for answer in (*answers, self.prediction_set, self.heatmap)):
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
        return None if self.heatmap is None else self.heatmap.in_source_pixels()


def check_distribution(values: npt.NDArray[np.float64] | None) -> None:
    """Raise ValueError unless `values` are five probabilities that sum to 1."""
    if values is None or values.shape != (len(GRADES),):
        raise ValueError(f"need {len(GRADES)} probabilities, got {None if values is None else values.shape}")
    if not (np.all(values >= 0) and abs(float(values.sum()) - 1) < 1e-6):
        raise ValueError(f"not a distribution: {values}")
