"""Which photographs each network of a training learns from, and the split that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.arrays import Integers, Reals
from retigrade.data.duplicates import find_duplicates
from retigrade.data.manifest import Manifest
from retigrade.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    Splits,
    by_source,
    fold_name,
    k_fold,
    read_splits,
    three_way,
    within,
    write_splits,
)
from retigrade.errors import UsageError
from retigrade.training.config import TrainConfig
from retigrade.training.dataset import Fold

REFIT = "refit"
"""The folder of the network that learns from all photographs."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FoldPredictions:
    """What one network says of photographs that it did not learn from, the bundle's gate apart.

    fold: the network's name, empty for the only one. part: `validation` or `test`. learned_from: how many photographs
    it learned from. indices: int64 (n,), into the manifest. probabilities: float64 (n, 5), calibrated as the bundle's.
    """

    fold: str
    part: str
    learned_from: int
    indices: Integers
    probabilities: Reals


def folds_of(manifest: Manifest, splits: Splits, config: TrainConfig) -> Iterator[Fold]:
    """What each network of a training learns from, and what it is calibrated and measured on."""
    if not config.cross_validated:
        yield Fold(name="", train=splits.part(TRAIN), validation=splits.part(VALIDATION), test=splits.part(TEST))
    for name in splits.names if config.cross_validated else ():
        # Each fold is tested on by a network that neither trained nor stopped by it.
        shares = {TRAIN: 1 - config.validation, VALIDATION: config.validation}
        inner = within(manifest, splits, splits.rest(name), shares=shares, seed=config.start.seed)
        folder = f"without-{name}" if config.leave_source_out else name
        yield Fold(name=folder, train=inner[TRAIN], validation=inner[VALIDATION], test=splits.part(name))


def everything(manifest: Manifest) -> Fold:
    """All photographs to learn from, and none to validate or test."""
    none = np.array([], np.int64)
    return Fold(name=REFIT, train=np.arange(len(manifest)), validation=none, test=none)


def split_of(manifest: Manifest, config: TrainConfig, path: Path) -> Splits:
    """The split in a file at `path`, written there if it is new: given, or drawn as configured.

    Raises UsageError where a given split is not one of these parts, or another than the one in the file.
    """
    kept = read_splits(path, manifest) if path.exists() else None
    if config.splits is not None:
        splits = read_splits(config.splits, manifest)
        names = [fold_name(number) for number in range(config.folds)] or [TRAIN, VALIDATION, TEST]
        if set(splits.names) != set(names):
            raise UsageError(
                f"{config.splits}: has the parts {', '.join(splits.names)}; --splits needs {', '.join(names)} here"
            )
        if kept is None:
            write_splits(splits, path, manifest)
        elif kept.names != splits.names or not np.array_equal(kept.part_of, splits.part_of):
            raise UsageError(f"{path}: is another split than {config.splits}; name another --out")
        return splits
    if kept is not None:
        return kept
    groups, seed = find_duplicates(manifest.paths), config.start.seed
    if config.leave_source_out:
        splits = by_source(manifest, groups, seed=seed)
    elif config.folds:
        splits = k_fold(manifest, groups, folds=config.folds, seed=seed)
    else:
        splits = three_way(manifest, groups, validation=config.validation, test=config.test, seed=seed)
    write_splits(splits, path, manifest)
    return splits
