"""The bundle's verdicts on labelled photographs, side by side with their grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Integers, Reals
from retigrade.data.duplicates import find_duplicates
from retigrade.data.groups import independent_groups
from retigrade.data.manifest import Entry, Manifest
from retigrade.data.splits import Splits
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.icdr import Status
from retigrade.metrics.classification import is_referable


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSet:
    """Photographs with grades that are to be judged: entries, and for each the number of its patient or duplicates."""

    entries: tuple[Entry, ...]
    units: Integers

    @classmethod
    def of(cls, manifest: Manifest, splits: Splits | None = None, *, part: str | None = None) -> LabelledSet:
        """Take a whole manifest, or one part of a split of it, whose duplicates are then those of the split."""
        groups = find_duplicates(manifest.paths) if splits is None else splits.groups
        units = independent_groups(manifest, groups)
        chosen = np.arange(len(manifest)) if splits is None or part is None else splits.part(part)
        return cls(tuple(manifest.entries[index] for index in chosen), units[chosen])


@dataclass(frozen=True, eq=False)
class Predictions:
    """One verdict for each labelled photograph, in their order, without thermal maps."""

    labelled: LabelledSet
    gradings: tuple[Grading, ...]

    def __post_init__(self) -> None:
        if len(self.gradings) != len(self.labelled.entries):
            raise ValueError(f"{len(self.gradings)} verdicts on {len(self.labelled.entries)} photographs")

    @cached_property
    def is_graded(self) -> Flags:
        """bool (N,)."""
        return np.array([grading.status is Status.GRADED for grading in self.gradings], dtype=np.bool_)

    @cached_property
    def graded(self) -> Graded:
        """The graded ones as arrays."""
        pairs = zip(self.labelled.entries, self.gradings, strict=True)
        return Graded.of(
            [(entry, grading) for entry, grading in pairs if grading.status is Status.GRADED],
            units=self.labelled.units[self.is_graded],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Graded:
    """Graded photographs as arrays, all of one length n.

    probabilities: float64 (n, 5); decided, truth, units: int64 (n,); possible: bool (n, 5), or None where the bundle
    names no possible grades; quality: float64 (n,); source: str (n,).
    """

    probabilities: Reals
    predicted: Integers
    target: Integers
    units: Integers
    prediction_set: Flags | None
    quality: Reals
    source: npt.NDArray[np.str_]

    @classmethod
    def of(cls, pairs: Sequence[tuple[Entry, Grading]], *, units: Integers) -> Graded:
        """Stack the answers of graded photographs."""
        sets = [grading.prediction_set for _, grading in pairs if grading.prediction_set is not None]
        return cls(
            probabilities=np.array([grading.probabilities for _, grading in pairs]).reshape(-1, 5),
            predicted=np.array([grading.grade for _, grading in pairs], dtype=np.int64),
            target=np.array([entry.grade for entry, _ in pairs], dtype=np.int64),
            units=units,
            prediction_set=np.array([[grade in one for grade in range(5)] for one in sets], bool) if sets else None,
            quality=np.array([grading.quality for _, grading in pairs], dtype=np.float64),
            source=np.array([entry.source for entry, _ in pairs], dtype=np.str_),
        )

    def __len__(self) -> int:
        return len(self.target)

    def where(self, chosen: Flags) -> Graded:
        """Those that are chosen; bool (n,)."""
        return Graded(
            probabilities=self.probabilities[chosen],
            predicted=self.predicted[chosen],
            target=self.target[chosen],
            units=self.units[chosen],
            prediction_set=None if self.prediction_set is None else self.prediction_set[chosen],
            quality=self.quality[chosen],
            source=self.source[chosen],
        )

    @property
    def confidence(self) -> Reals:
        """The probability of the decided grade, float64 (n,)."""
        return np.asarray(self.probabilities[np.arange(len(self)), self.predicted])

    @property
    def correct(self) -> Flags:
        """Whether the decided grade is the true one, bool (n,)."""
        return np.asarray(self.predicted == self.target)

    @property
    def referable(self) -> Flags:
        """Whether the true grade is referable, bool (n,)."""
        return is_referable(self.target)


def predict_labelled(grader: Grader, labelled: LabelledSet, *, jobs: int = 1) -> Predictions:
    """Grade every photograph, without thermal maps; `jobs` at once."""
    paths = [entry.path for entry in labelled.entries]
    return Predictions(labelled, tuple(grader.grade_many(paths, jobs=jobs, heat=False)))


def worst(verdicts: Predictions) -> list[int]:
    """Positions of the wrong grades, the costliest first: by squared distance, then by confidence."""
    costs = {
        position: ((int(grading.grade) - int(entry.grade)) ** 2, float(grading.probabilities[grading.grade]))
        for position, (entry, grading) in enumerate(zip(verdicts.labelled.entries, verdicts.gradings, strict=True))
        if grading.grade is not None and grading.probabilities is not None and grading.grade != entry.grade
    }
    return sorted(costs, key=lambda position: costs[position], reverse=True)
