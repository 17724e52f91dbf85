"""The labelled photographs that train, with the maps of lesions that a run kept: what evidence of lesions is fitted to.

A segmentation network that did not learn from a photograph, nor from another of its patient, made its map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Floats, Integers, Pixels, Reals
from retigrade.data.annotations import KINDS
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.splits import TRAIN, Splits, narrow, read_splits
from retigrade.errors import DataError
from retigrade.experiments.predictions import out_of_fold
from retigrade.training.calibrate import equal_sources
from retigrade.training.counting import lesion_counts, places_of
from retigrade.training.dataset import soft_targets

_LABEL_SMOOTHING = 0.06
_SOURCES = 0.5  # between every photograph alike and every source alike


@dataclass(frozen=True, slots=True, eq=False)
class LesionSample:
    """All photographs and their split; and of the n that train, int64 indices, what follows.

    maps: uint8 (n, s, s, k), of 255, of the first k kinds of lesions. targets: float32 (n, 5), rows sum to 1. weights:
    float64 (n,), how much each counts.
    """

    manifest: Manifest
    splits: Splits
    train: Integers
    maps: Pixels
    targets: Floats
    weights: Reals

    @classmethod
    def read(cls, data: Sequence[Path], splits: Path, maps: Path) -> LesionSample:
        """maps: a run's lesion-maps-....npy. Raises DataError where it is of other photographs than these."""
        manifest = narrow(read_manifest(list(data), skip_unreadable=True), splits)
        split = read_splits(splits, manifest)
        train = split.part(TRAIN)
        kept = np.load(maps, mmap_mode="r")
        if len(kept) != len(manifest):
            raise DataError(f"{maps}: {len(kept)} maps, for {len(manifest)} photographs; give those of this data")
        return cls(
            manifest,
            split,
            train,
            maps=kept[train],
            targets=soft_targets(manifest.grades, split.groups, label_smoothing=_LABEL_SMOOTHING)[train],
            weights=equal_sources(manifest.sources[train]) ** _SOURCES,
        )

    @property
    def grades(self) -> Integers:
        """Of the photographs that train, int64 (n,)."""
        return self.manifest.grades[self.train]

    @property
    def subsets(self) -> npt.NDArray[np.str_]:
        """The names of their data sets and of the origins within them, (n,)."""
        return np.array([self.manifest.entries[index].subset for index in self.train])

    def larger_than(self, side: int) -> Flags:
        """Which of them have more pixels along the longer side than that, bool (n,); DataError where none has."""
        entries = (self.manifest.entries[index] for index in self.train)
        larger = np.array([max(entry.width, entry.height) > side for entry in entries])
        if not larger.any():
            raise DataError(f"no photograph that trains is larger than {side} pixels, and others show no more detail")
        return larger

    def counts(self, kinds: Sequence[str] = tuple(KINDS)) -> Floats:
        """`lesion_counts` of these kinds, float32 (n, 3 k); UsageError where the maps have none of a kind."""
        known = list(KINDS)[: self.maps.shape[-1]]
        return lesion_counts(self.maps[..., places_of(kinds, known=known)])

    def logits(self, folders: Sequence[Path]) -> Floats:
        """What networks that did not learn from them said, float32 (n, 5); raises as `out_of_fold`."""
        return np.asarray(np.log(out_of_fold(folders, self.manifest)[self.train]), np.float32)
