"""What an evaluation found, as `report.json` keeps it; the pages and the model card are made from this alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from retigrade.errors import DataError
from retigrade.evaluation.faithfulness import Faithfulness
from retigrade.evaluation.robustness import Robustness
from retigrade.metrics.quantity import Part, Quantity


class Photographs(Part):
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


class Stage(Part):
    """One stage against the rest: the publication's equations 1-4, F1 and AUROC."""

    stage: str
    support: int
    predicted: int
    accuracy: Quantity
    specificity: Quantity
    sensitivity: Quantity
    precision: Quantity
    f1: Quantity
    auroc: Quantity


class Point(Part):
    """What a threshold on the probability of a referable stage reached here."""

    name: str
    threshold: float
    in_use: bool
    sensitivity: Quantity
    specificity: Quantity
    precision: Quantity


class Bin(Part):
    """One bin of the reliability diagram; low and high are the Wilson interval of its accuracy."""

    confidence: float
    accuracy: float
    low: float
    high: float
    photos: int


class Step(Part):
    """The photographs whose decided grade has at least this probability, and how many of those are right."""

    at_least: float
    photos: int
    share: float
    accuracy: Quantity


class Sets(Part):
    """The sets of possible grades; sizes: photographs with 1, 2, 3, 4 and 5 possible grades."""

    promised: float
    coverage: Quantity
    size: Quantity
    sizes: tuple[int, int, int, int, int]


class Trust(Part):
    """Whether the probabilities can be relied on, for all photographs or one source.

    ece_by_chance: the calibration error that chance alone leaves in as many. coverage, size: of the sets of possible
    grades. sensitivity, specificity: for referable stages, at the point in use.
    """

    name: str
    photos: int
    ece: float | None
    ece_by_chance: float | None
    coverage: Quantity | None
    size: Quantity | None
    sensitivity: Quantity
    specificity: Quantity


class Slice(Part):
    """The figures of some of the photographs."""

    name: str
    photos: int
    gradable: Quantity
    accuracy: Quantity
    quadratic_kappa: Quantity
    referable_auroc: Quantity
    any_auroc: Quantity


class Mistake(Part):
    """A wrong grade; cost: the squared distance from the true one."""

    name: str
    true_grade: int
    decided_grade: int
    cost: int
    confidence: float
    prediction_set: tuple[int, ...] | None
    quality: float | None
    reasons: tuple[str, ...]


class Refusal(Part):
    """A photograph without a grade, and why."""

    name: str
    true_grade: int
    status: str
    reasons: tuple[str, ...]


class EvaluationResult(Part):
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
    gradable: Quantity
    headline: dict[str, Quantity]
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
