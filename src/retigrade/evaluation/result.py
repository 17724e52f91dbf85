"""What an evaluation found, as `report.json` keeps it; the pages and the model card are made from this alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from retigrade.errors import DataError
from retigrade.evaluation.faithfulness import Faithfulness
from retigrade.evaluation.retest import Retest
from retigrade.evaluation.robustness import Robustness
from retigrade.metadata import Figure
from retigrade.metrics.decision import OperatingPoint
from retigrade.metrics.estimate import Estimate, Record
from retigrade.text import first_problem

ALL = "all photographs"
"""The name of the slice that holds every photograph."""
OUT_OF_FOLD = "out of fold"
"""The part that is all photographs, each graded by the one network that did not learn from it."""

STORED = (
    "accuracy", "quadratic_kappa", "balanced_accuracy", "referable_auroc", "any_auroc", "referable_sensitivity",
    "referable_specificity", "ece", "coverage",
)  # fmt: skip
"""The metrics of every slice that a bundle stores of itself."""


class Photographs(Record):
    """What was evaluated.

    part: of a split, or None for all. groups: independent patients or duplicate groups. fingerprint: the manifest's.
    learned_from: those that the bundle learned from, None where it does not say which it did.
    """

    count: int
    groups: int
    grades: tuple[int, int, int, int, int]
    sources: dict[str, int]
    part: str | None
    fingerprint: str
    learned_from: tuple[str, ...] | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


class Stage(Record):
    """One stage against the rest: the publication's equations 1-4, F1 and AUROC."""

    stage: str
    support: int
    predicted: int
    accuracy: Estimate
    specificity: Estimate
    sensitivity: Estimate
    precision: Estimate
    f1: Estimate
    auroc: Estimate


class PointHere(OperatingPoint):
    """What one of the bundle's operating points reached on these photographs."""

    name: str
    in_use: bool
    precision: Estimate


class ReliabilityBin(Record):
    """One bin of the reliability diagram; low and high are the Wilson interval of its accuracy."""

    confidence: float
    accuracy: float
    low: float
    high: float
    photos: int


class CoveragePoint(Record):
    """The photographs whose predicted grade has at least this probability, and how many of those are right."""

    at_least: float
    photos: int
    share: float
    accuracy: Estimate


class SetSizes(Record):
    """The prediction sets; sizes: photographs with 1, 2, 3, 4 and 5 grades in theirs."""

    promised: float
    coverage: Estimate
    size: Estimate
    sizes: tuple[int, int, int, int, int]


class Slice(Record):
    """The figures of some of the photographs, by the key of their metric; they are of the graded ones.

    ece_by_chance: the calibration error that chance alone leaves in as many.
    """

    name: str
    photos: int
    graded: int
    gradable: Estimate
    figures: dict[str, Estimate]
    ece_by_chance: float | None


class Mistake(Record):
    """A wrong grade; cost: the squared distance from the true one."""

    name: str
    true_grade: int
    predicted_grade: int
    cost: int
    confidence: float
    prediction_set: tuple[int, ...] | None
    quality: float | None
    reasons: tuple[str, ...]


class Refusal(Record):
    """A photograph without a grade, and why."""

    name: str
    source: str
    true_grade: int
    status: str
    reasons: tuple[str, ...]


class RefusalCount(Record):
    """Photographs of one source and stage that got no grade for one reason; photos: of that source and stage in all."""

    source: str
    true_grade: int
    status: str
    reason: str
    refused: int
    photos: int


class EvaluationResult(Record):
    """Everything an evaluation found.

    headline: figures of the graded photographs by the key of their metric, empty if none was graded. confusion: rows
    true, columns predicted. second_reader: the share of the graded for whom a second reader is advised. rises: whether
    accuracy rises with every step of the coverage curve. sources: all photographs, then each source; quality: the
    graded by tercile. missing: what the bundle does not carry. remarks: what a reader must know.
    """

    format: Literal[2] = 2
    bundle: str
    made: str
    operating_point: str | None
    photographs: Photographs
    statuses: dict[str, int]
    headline: dict[str, Estimate]
    confusion: tuple[tuple[int, ...], ...]
    stages: tuple[Stage, ...]
    points: tuple[PointHere, ...]
    reliability: tuple[ReliabilityBin, ...]
    coverage_curve: tuple[CoveragePoint, ...]
    rises: bool | None
    second_reader: float | None
    prediction_sets: SetSizes | None
    sources: tuple[Slice, ...]
    quality: tuple[Slice, ...]
    mistakes: tuple[Mistake, ...]
    refusals: tuple[Refusal, ...]
    refusal_counts: tuple[RefusalCount, ...]
    robustness: Robustness | None
    retest: Retest | None
    faithfulness: Faithfulness | None
    missing: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def gradable(self) -> Estimate:
        """The share of photographs that got a grade."""
        return self.sources[0].gradable

    def stored_figures(self) -> tuple[Figure, ...]:
        """The figures that a bundle stores of itself: the defined ones of all photographs and of each source."""
        of = "" if self.photographs.part is None else f", {self.photographs.part}"
        return tuple(
            Figure(
                set=f"{part.name}{of}", photos=part.photos, graded=part.graded, metric=key, estimate=part.figures[key]
            )
            for part in self.sources
            for key in STORED
            if part.figures[key].value is not None
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `report.json` back; DataError where it cannot be read or is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise DataError(f"{path}: not the report of an evaluation ({first_problem(error)})") from error
