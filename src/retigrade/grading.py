"""The verdict on one input, validated at birth."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats
from retigrade.files import write_whole
from retigrade.heatmap import Heatmap
from retigrade.icdr import GRADES, REFERABLE_FROM, Grade, Status
from retigrade.text import shown


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

SCHEMA, SCHEMA_VERSION = "retigrade.grading", 1
"""What a grading as JSON says that it is; the version rises whenever a key changes its name or meaning."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How a photograph was taken, as its file states; what it does not state is None.

    device: maker, model and serial number. field_of_view: degrees across. pixel_spacing: millimetres on the retina
    from row to row and from column to column.
    """

    device: str | None = None
    field_of_view: float | None = None
    pixel_spacing: tuple[float, float] | None = None


UNSTATED = Acquisition()


_DIGITS = 8  # of a probability in `to_dict`: five rounded ones still sum to 1 within 1e-7
_OTHER_DIGITS = 4  # of quality and seconds
_HTML_SIDE = 240  # pixels, the longer side of the heatmap in a notebook


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Grading:
    """The verdict on one input.

    path: as given. status: see `Status`. Only a graded photo has grade, probabilities, p_referable, referable,
    prediction_set and heatmap.
    grade: the stage by the bundle's rule. probabilities: float64 (5,), sum to 1. p_referable: the probability of a
    moderate or worse stage, 0..1. referable: True if that reaches the threshold, or the grade is itself moderate or
    worse; never False beside such a grade. prediction_set: the grades that the true one is among as often as the
    bundle promises, in order, the decided one too; None where it promises nothing. quality: 0..1. reasons: sentences:
    why there is no grade, or what to know of it. sha256: hexadecimal digest of the bytes that were graded, of an
    array its pixels' bytes; None where nothing could be read. bundle: its identity. seconds: time spent on this input.
    subject: whose eye it is, as far as known. acquisition: how it was taken, as far as its file states.

    Raises ValueError where these contradict each other.
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
    acquisition: Acquisition = UNSTATED

    def __post_init__(self) -> None:
        answers = (self.grade, self.probabilities, self.p_referable, self.referable)
        if self.status is Status.GRADED:
            if self.grade is None or any(answer is None for answer in answers):
                raise ValueError("a graded photo needs grade, probabilities, p_referable and referable")
            check_distribution(self.probabilities)
            if self.prediction_set is not None and (
                self.grade not in self.prediction_set
                or self.prediction_set != GRADES[self.prediction_set[0] : self.prediction_set[-1] + 1]
            ):
                raise ValueError(f"a prediction set must be a run that holds {self.grade!r}, got {self.prediction_set}")
            if self.grade >= REFERABLE_FROM and not self.referable:
                raise ValueError(f"an eye with stage {self.stage} is referable")
            if self.referable and self.grade < REFERABLE_FROM and not self.reasons:
                raise ValueError(f"an eye with stage {self.stage} that is referable needs the reason")
        elif any(answer is not None for answer in (*answers, self.prediction_set, self.heatmap)):
            raise ValueError(f"a photo that is {self.status} carries no grade")
        elif not self.reasons:
            raise ValueError(f"a photo that is {self.status} needs a reason")

    def __repr__(self) -> str:
        return f"<Grading {shown(self.path)!r}: {self.headline}>"

    @property
    def stage(self) -> str | None:
        """The stage's name, or None where there is no grade."""
        return None if self.grade is None else self.grade.stage

    @property
    def headline(self) -> str:
        """The verdict in a few words, such as `moderate, referable` or `not fundus`."""
        if self.stage is None:
            return self.status.replace("_", " ")
        return f"{self.stage}, {'referable' if self.referable else 'not referable'}"

    @cached_property
    def heat(self) -> Floats | None:
        """The thermal map in source pixels, float32 (height, width), 0..1, read-only; None where there is none.

        It is made when it is first asked for, and kept.
        """
        if self.heatmap is None:
            return None
        heat = self.heatmap.in_source_pixels()
        heat.flags.writeable = False
        return heat

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as values fit for JSON: the keys of a line of gradings.jsonl, in that order.

        Probabilities are rounded to 8 digits, quality and seconds to 4; what is not known is None; reasons and
        prediction_set are lists; eye is "right" or "left", date in ISO 8601. The thermal map is left out.
        """
        shares = [None] * len(GRADES) if self.probabilities is None else self.probabilities.tolist()
        subject = self.subject
        return {
            "path": self.path,
            "status": self.status.value,
            "grade": None if self.grade is None else int(self.grade),
            "stage": self.stage,
            **{f"p{grade:d}": _rounded(share, _DIGITS) for grade, share in zip(GRADES, shares, strict=True)},
            "p_referable": _rounded(self.p_referable, _DIGITS),
            "referable": None if self.referable is None else bool(self.referable),
            "quality": _rounded(self.quality, _OTHER_DIGITS),
            "reasons": list(self.reasons),
            "sha256": self.sha256,
            "bundle": self.bundle,
            "seconds": round(self.seconds, _OTHER_DIGITS),
            "prediction_set": None if self.prediction_set is None else [int(grade) for grade in self.prediction_set],
            "patient": subject.patient,
            "eye": None if subject.eye is None else subject.eye.value,
            "date": None if subject.date is None else subject.date.isoformat(),
            "device": self.acquisition.device,
            "field_of_view": self.acquisition.field_of_view,
            "pixel_spacing": None if self.acquisition.pixel_spacing is None else list(self.acquisition.pixel_spacing),
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
        }

    def save_heatmap(self, path: Path | str) -> None:
        """Write the thermal map as a PNG file of the photograph's size, transparent where it is cool.

        Laid over the photograph it shows what `retigrade grade --out` draws. Raises ValueError where there is no map,
        UsageError where the file cannot be written.
        """
        if self.heatmap is None:
            raise ValueError(f"{shown(self.path)}: there is no thermal map to save ({self.headline})")
        write_whole(Path(path), self.heatmap.as_png(self.heatmap.width, self.heatmap.height))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a fragment of HTML that needs no other file."""
        lines = [f"<b>{escape(shown(self.path))}</b>: {escape(self.headline)}"]
        if self.probabilities is not None:
            lines.append(
                ", ".join(f"{grade.stage} {share:.2f}" for grade, share in zip(GRADES, self.probabilities, strict=True))
            )
        lines += [escape(shown(reason)) for reason in self.reasons]
        text = "".join(f"<div>{line}</div>" for line in (*lines, "<small>research use only</small>"))
        if self.heatmap is None:
            return f"<div>{text}</div>"
        scale = _HTML_SIDE / max(self.heatmap.width, self.heatmap.height)
        size = max(1, round(self.heatmap.width * scale)), max(1, round(self.heatmap.height * scale))
        data = base64.b64encode(self.heatmap.as_png(*size)).decode()
        return f'<div>{text}<img alt="thermal map" style="background:#000" src="data:image/png;base64,{data}"></div>'


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def check_distribution(values: npt.NDArray[np.float64] | None) -> None:
    """Raise ValueError unless `values` are five probabilities that sum to 1."""
    if values is None or values.shape != (len(GRADES),):
        raise ValueError(f"need {len(GRADES)} probabilities, got {None if values is None else values.shape}")
    if not (np.all(values >= 0) and abs(float(values.sum()) - 1) < 1e-6):
        raise ValueError(f"not a distribution: {values}")
