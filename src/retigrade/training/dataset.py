"""What one training learns from, and how its epochs are sampled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Floats, Integers, Pixels
from retigrade.data.groups import Groups
from retigrade.data.manifest import Manifest
from retigrade.icdr import GRADES
from retigrade.training.copy_paste import LesionBank
from retigrade.training.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingData:
    """Prepared photographs and which of them train and validate.

    photos: uint8 (N, S, S, 3). grades: int64 (N,), 0..4. targets: float32 (N, 5), rows sum to 1. subsets: int64 (N,),
    the number of each photograph's data set, or of its origin within that. rejected: bool (N,), whether a reader of
    image quality called it unusable. train, validation: int64 indices. fingerprint: of manifest and split. lesions: to
    paste on healthy photographs, where the recipe does. sides: int64 (N,), the longer side of each file in pixels, so
    that what is pasted is as blurred; None where no file is smaller than S. lesion_maps: uint8 (N, s, s, 4), how surely
    each kind of lesion is there, where the recipe learns from that.
    """

    photos: Pixels
    grades: Integers
    targets: Floats
    subsets: Integers
    rejected: Flags
    train: Integers
    validation: Integers
    fingerprint: str
    lesions: LesionBank | None = None
    sides: Integers | None = None
    lesion_maps: Pixels | None = None

    @classmethod
    def of(
        cls, manifest: Manifest, photos: Pixels, fold: Fold, groups: Groups, *, label_smoothing: float
    ) -> TrainingData:
        """What one network learns from its fold: photos, prepared, are a manifest's, groups its duplicates."""
        entries = manifest.entries
        return cls(
            photos=photos,
            grades=manifest.grades,
            targets=soft_targets(manifest.grades, groups, label_smoothing=label_smoothing),
            subsets=np.unique([entry.subset for entry in entries], return_inverse=True)[1],
            rejected=np.array([entry.rejected for entry in entries]),
            train=fold.train,
            validation=fold.validation,
            fingerprint=f"{manifest.fingerprint} {fold.digest}",
            sides=np.array([max(entry.width, entry.height) for entry in entries]),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fold:
    """Which photographs train, validate and test one network: int64 indices, ascending.

    name: its folder, empty for the only one.
    """

    name: str = ""
    train: Integers
    validation: Integers
    test: Integers

    @property
    def digest(self) -> str:
        """SHA-256 of which photograph is where."""
        parts = (self.train, self.validation, self.test)
        return hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest()


def soft_targets(grades: Integers, groups: Groups, *, label_smoothing: float) -> Floats:
    """Spread each grade over the grades beside it, and average it over near-duplicates that graders disagreed on.

    label_smoothing: probability that moves to each adjacent grade. Returns float32 (N, 5), rows sum to 1.
    """
    targets = graded_targets(grades, label_smoothing=label_smoothing)
    for group in groups:
        targets[list(group)] = targets[list(group)].mean(axis=0)
    return targets


def graded_targets(grades: Integers, *, label_smoothing: float) -> Floats:
    """Spread each grade over the grades beside it: int64 (n,) to float32 (n, 5), whose rows sum to 1."""
    beside = np.eye(len(GRADES), k=1) + np.eye(len(GRADES), k=-1)
    spread = np.eye(len(GRADES)) + label_smoothing * (beside - np.diag(beside.sum(axis=1)))
    return np.asarray(spread[grades], np.float32)


def sampling_weights(data: TrainingData, recipe: Recipe) -> npt.NDArray[np.float64]:
    """How often each training photograph is drawn, relative to the others: float64 (n,), sums to 1.

    Grades are balanced within each subset, so that no grade comes mostly from the one that has most of it.
    """
    weights = np.empty(len(data.train))
    grades, subsets = data.grades[data.train], data.subsets[data.train]
    for subset in np.unique(subsets):
        here = subsets == subset
        relative = np.bincount(grades[here])[grades[here]] ** -recipe.class_balance
        weights[here] = relative / relative.sum() * here.sum() ** (1 - recipe.source_balance)
    weights[data.rejected[data.train]] *= recipe.rejected_weight
    return np.asarray(weights / weights.sum())


def sample_epoch(weights: npt.NDArray[np.float64], *, draws: int, rng: np.random.Generator) -> Integers:
    """Positions to draw in one epoch: each as often as its weight says, to within one, in random order: int64 (draws,).

    Systematic sampling of the remainders keeps every epoch's mix at its expectation.
    """
    expected = weights * draws
    times = np.floor(expected).astype(np.int64)
    missing = draws - int(times.sum())
    positions = rng.permutation(len(weights))
    marks = np.searchsorted(np.cumsum((expected - times)[positions]), rng.uniform(0, 1) + np.arange(missing))
    times[positions[np.minimum(marks, len(positions) - 1)]] += 1
    return rng.permutation(np.repeat(np.arange(len(weights)), times))
