"""A bundle's predictions on labelled photographs, side by side with their grades."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Integers, Reals
from retigrade.bundle import cpu_count
from retigrade.data.duplicates import find_duplicates
from retigrade.data.groups import independent_groups
from retigrade.data.manifest import Entry, Manifest
from retigrade.data.splits import Splits
from retigrade.errors import UsageError
from retigrade.grader import Grader, load
from retigrade.grading import Grading
from retigrade.icdr import GRADES, Status
from retigrade.metrics.registry import Sample
from retigrade.progress import RunProgress


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSet:
    """Photographs with grades to predict: entries, and for each the number of its patient or duplicates, int64 (N,)."""

    entries: tuple[Entry, ...]
    groups: Integers

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        splits: Splits | None = None,
        *,
        part: str | None = None,
        progress: RunProgress | None = None,
    ) -> LabelledSet:
        """Take a whole manifest, or one part of a split of it, whose duplicates are then those of the split."""
        duplicates = find_duplicates(manifest.paths, progress=progress) if splits is None else splits.groups
        groups = independent_groups(manifest, duplicates)
        chosen = np.arange(len(manifest)) if splits is None or part is None else splits.part(part)
        return cls(tuple(manifest.entries[index] for index in chosen), groups[chosen])


@dataclass(frozen=True, eq=False)
class Predictions:
    """One grading for each labelled photograph, in their order, without heatmaps."""

    labelled: LabelledSet
    gradings: tuple[Grading, ...]

    def __post_init__(self) -> None:
        if len(self.gradings) != len(self.labelled.entries):
            raise ValueError(f"{len(self.gradings)} gradings of {len(self.labelled.entries)} photographs")

    @cached_property
    def pairs(self) -> tuple[tuple[Entry, Grading], ...]:
        """Each photograph with its grading."""
        return tuple(zip(self.labelled.entries, self.gradings, strict=True))

    @cached_property
    def is_graded(self) -> Flags:
        """bool (N,)."""
        return np.array([grading.status is Status.GRADED for grading in self.gradings], dtype=np.bool_)

    @cached_property
    def source(self) -> npt.NDArray[np.str_]:
        """The source of each photograph, str (N,)."""
        return np.array([entry.source for entry in self.labelled.entries], dtype=np.str_)

    @cached_property
    def subset(self) -> npt.NDArray[np.str_]:
        """The source of each photograph and its origin within it, str (N,)."""
        return np.array([entry.subset for entry in self.labelled.entries], dtype=np.str_)

    @cached_property
    def graded(self) -> Graded:
        """The graded ones as arrays."""
        pairs = [pair for pair, graded in zip(self.pairs, self.is_graded, strict=True) if graded]
        gradings = [grading for _, grading in pairs]
        sets = [grading.prediction_set for grading in gradings if grading.prediction_set is not None]
        sample = Sample(
            probabilities=np.array([grading.probabilities for grading in gradings]).reshape(-1, len(GRADES)),
            predicted=np.array([grading.grade for grading in gradings], dtype=np.int64),
            target=np.array([entry.grade for entry, _ in pairs], dtype=np.int64),
            referred=np.array([grading.referable for grading in gradings], dtype=np.bool_),
            prediction_set=np.array([[grade in members for grade in GRADES] for members in sets]) if sets else None,
        )
        return Graded(
            sample,
            groups=self.labelled.groups[self.is_graded],
            quality=np.array([grading.quality for grading in gradings], dtype=np.float64),
            source=self.source[self.is_graded],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Graded:
    """Graded photographs as arrays of one length n: groups int64 (n,), quality float64 (n,), source str (n,)."""

    sample: Sample
    groups: Integers
    quality: Reals
    source: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sample)

    def where(self, chosen: Flags) -> Graded:
        """Those that are chosen; bool (n,)."""
        return Graded(self.sample.take(chosen), self.groups[chosen], self.quality[chosen], self.source[chosen])


def open_grader(
    bundle: Path | str | None, *, jobs: int | None, operating_point: str | None = None
) -> tuple[Grader, int]:
    """A grader for `jobs` photographs at once, None as many as there are cores, and their number.

    Raises UsageError below 1 and on an unknown operating point, BundleError on a bundle that cannot be used.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, got {jobs}")
    jobs = jobs or cpu_count()
    return load(bundle, threads=max(1, cpu_count() // jobs), operating_point=operating_point), jobs


def predict_labelled(
    grader: Grader, labelled: LabelledSet, *, jobs: int = 1, progress: RunProgress | None = None
) -> Predictions:
    """Grade every photograph, without heatmaps; `jobs` at once; progress: hears of each step."""
    paths = [entry.path for entry in labelled.entries]
    gradings = (progress or RunProgress()).track(
        grader.grade_many(paths, jobs=jobs, heat=False),
        "grading",
        total=len(paths),
        kind=lambda grading: grading.status.value,
    )
    return Predictions(labelled, tuple(gradings))


def worst(predictions: Predictions) -> list[int]:
    """Positions of the wrong grades, the costliest first: by squared distance, then by confidence."""
    costs = {
        position: ((int(grading.grade) - int(entry.grade)) ** 2, float(grading.probabilities[grading.grade]))
        for position, (entry, grading) in enumerate(predictions.pairs)
        if grading.grade is not None and grading.probabilities is not None and grading.grade != entry.grade
    }
    return sorted(costs, key=lambda position: costs[position], reverse=True)
