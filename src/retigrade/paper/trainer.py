"""What the protocol asks of whatever trains: one network on one division of photographs. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.training.dataset import Fold
from retigrade.training.progress import EpochResult, Progress
from retigrade.training.recipe import Recipe

_WHOLE = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDescription:
    """A network before it is trained.

    parameters: learned ones, with the head for five stages. input: how pixels are scaled, in words. feature_map:
    channels, height and width of what the head sees. start: where its weights come from, in words. share: of the
    backbone's numbers that are not random, 0..1. digest: SHA-256 of the weights' file, empty without one.
    """

    network: str
    parameters: int
    input: str
    feature_map: tuple[int, int, int]
    start: str
    share: float
    digest: str = ""

    @property
    def complete(self) -> bool:
        """Whether all of the backbone starts from learned weights."""
        return self.share >= _WHOLE


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingTask:
    """One training: prepared photos uint8 (N, S, S, 3), their grades int64 (N,), and the fold.

    shown: indices of the photographs whose maps are wanted. identity: equal for equal tasks, to resume the right one.
    """

    network: str
    recipe: Recipe
    seed: int
    photos: Pixels
    grades: Integers
    fold: Fold
    shown: Integers
    identity: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CheckpointResult:
    """What a training left: its log, the epoch it stands at, and its answers.

    logits: float32 (N, 5), of every photograph. maps: float32 (n, 5, s, s), of those shown. receptive_field_offset: see
    `retigrade.heatmap.make_heatmap`. Raises ValueError where shapes do not fit or a logit is not finite.
    """

    history: tuple[EpochResult, ...]
    epoch: int
    logits: Floats
    maps: Floats
    receptive_field_offset: tuple[float, float]

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.maps.ndim != 4 or not np.isfinite(self.logits).all():
            raise ValueError(
                f"need finite logits (N, 5) and maps (n, 5, s, s), got {self.logits.shape, self.maps.shape}"
            )


class NetworkTrainer(ABC):
    """Trains networks."""

    @abstractmethod
    def describe(self, network: str, *, size: int) -> NetworkDescription:
        """Describe a network at a photo's `size`; UsageError where it, or weights to start it from, cannot be had."""

    @abstractmethod
    def train(self, task: TrainingTask, *, folder: Path, progress: Progress) -> CheckpointResult:
        """Train to the last epoch and take the best; continue what an earlier call left in `folder`."""
