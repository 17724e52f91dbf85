"""What an evaluation found, as `report.json` keeps it; the pages and the model card are made from this alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from retigrade.errors import DataError
from retigrade.evaluation.faithfulness import Faithfulness
from retigrade.evaluation.robustness import Robustness
from retigrade.metrics.estimate import Estimate, Record


class Photographs(Record):
    """What was evaluated.

    part: of a split, or None for all. groups: independent patients or duplicate groups. fingerprint: the manifest's.
    """

    count: int
    groups: int
    grades: tuple[int, int, int, int, int]
    sources: dict[str, int]
    part: str | None
    fingerprint: str
    unreadable: tuple[str, ...]
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


class Point(Record):
    """What a threshold on the probability of a referable stage reached here."""

    name: str
    threshold: float
    in_use: bool
    sensitivity: Estimate
    specificity: Estimate
    precision: Estimate


class Bin(Record):
    """One bin of the reliability diagram; low and high are the Wilson interval of its accuracy."""

    confidence: float
    accuracy: float
    low: float
    high: float
    photos: int


class Step(Record):
    """The photographs whose decided grade has at least this probability, and how many of those are right."""

    at_least: float
    photos: int
    share: float
    accuracy: Estimate


class Sets(Record):
    """The sets of possible grades; sizes: photographs with 1, 2, 3, 4 and 5 possible grades."""

    promised: float
    coverage: Estimate
    size: Estimate
    sizes: tuple[int, int, int, int, int]


class Trust(Record):
    """Whether the probabilities can be relied on, for all photographs or one source.

    ece_by_chance: the calibration error that chance alone leaves in as many. coverage, size: of the sets of possible
    grades. sensitivity, specificity: for referable stages, at the point in use.
    """

    name: str
    photos: int
    ece: float | None
    ece_by_chance: float | None
    coverage: Estimate | None
    size: Estimate | None
    sensitivity: Estimate
    specificity: Estimate


class Slice(Record):
    """The figures of some of the photographs."""

    name: str
    photos: int
    gradable: Estimate
    accuracy: Estimate
    quadratic_kappa: Estimate
    referable_auroc: Estimate
    any_auroc: Estimate


class Mistake(Record):
    """A wrong grade; cost: the squared distance from the true one."""

    name: str
    true_grade: int
    decided_grade: int
    cost: int
    confidence: float
    prediction_set: tuple[int, ...] | None
    quality: float | None
    reasons: tuple[str, ...]


class Refusal(Record):
    """A photograph without a grade, and why."""

    name: str
    true_grade: int
    status: str
    reasons: tuple[str, ...]


class EvaluationResult(Record):
    """Everything an evaluation found.

    headline: named figures of the graded photographs, empty if none was graded. confusion: rows true, columns decided.
    advised: the share of the graded for whom a second reader is advised. rises: whether accuracy rises with every step
    of confidence. quality: by tercile. missing: what the bundle does not carry. remarks: what a reader must know.
    """

    format: Literal[1] = 1
    bundle: str
    made: str
    operating_point: str | None
    photographs: Photographs
    statuses: dict[str, int]
    gradable: Estimate
    headline: dict[str, Estimate]
    confusion: tuple[tuple[int, ...], ...]
    stages: tuple[Stage, ...]
    points: tuple[Point, ...]
    bins: tuple[Bin, ...]
    steps: tuple[Step, ...]
    rises: bool | None
    advised: float | None
    sets: Sets | None
    trust: tuple[Trust, ...]
    sources: tuple[Slice, ...]
    quality: tuple[Slice, ...]
    mistakes: tuple[Mistake, ...]
    refusals: tuple[Refusal, ...]
    robustness: Robustness | None
    faithfulness: Faithfulness | None
    missing: tuple[str, ...]
    remarks: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `report.json` back; DataError where it cannot be read or is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the file"
            raise DataError(f"{path}: not the report of an evaluation ({where}: {problem['msg']})") from error
