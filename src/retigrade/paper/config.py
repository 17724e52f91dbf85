"""What an experiment is asked to do, which trainings that takes, and how far it is short of the publication's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from retigrade.errors import UsageError
from retigrade.paper.printed import CLAIMS, NETWORKS, TABLE_3
from retigrade.training.recipe import RECIPES, Recipe

PRINTED_NAMES = dict(zip(("mobilenetv2_100", "resnetv2_50", "vgg16"), NETWORKS, strict=True))
"""The publication's networks by their names in timm."""
EPOCHS = 100
SIZE = 224
_FEWEST_PIXELS = 32
_SMALL_SIZE = 96


class Protocol(StrEnum):
    """How photographs are prepared, divided and evaluated; `retigrade.paper.protocols` has the particulars."""

    PUBLISHED = "published"
    LEAKING = "leaking"
    HONEST = "honest"

    @property
    def trained(self) -> Protocol:
        """The protocol that trains the networks which this one evaluates."""
        return Protocol.PUBLISHED if self is Protocol.LEAKING else self


class Preparation(StrEnum):
    """What is done to the pixels of a photograph before a network sees them."""

    COLOUR = "colour"
    GAUSSIAN = "gaussian"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One training; protocol: published or honest, since the leaking one evaluates what the published one trains."""

    protocol: Protocol
    preparation: Preparation
    network: str
    fold: int
    epochs: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.protocol}-{self.preparation}-{self.network}-fold{self.fold}"

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.protocol}, {self.preparation}, {printed_name(self.network)}, fold {self.fold}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """An experiment: networks by their names in timm, and for each of them how many folds and epochs.

    The honest protocol is run for the first network and the first preparation.
    """

    networks: tuple[str, ...]
    folds: tuple[int, ...]
    epochs: tuple[int, ...]
    preparations: tuple[Preparation, ...]
    protocols: tuple[Protocol, ...]
    size: int = SIZE
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in (
            ("networks", self.networks),
            ("preparation", self.preparations),
            ("protocols", self.protocols),
        ):
            if not values or len(set(values)) < len(values):
                raise UsageError(f"--{name} needs at least one, each once; got {' '.join(values) or 'none'}")
        for name, numbers, least in (("folds", self.folds, 1), ("epochs", self.epochs, 1)):
            if len(numbers) != len(self.networks):
                raise UsageError(
                    f"--{name} needs one number, or one for each of the {len(self.networks)} networks; "
                    f"got {len(numbers)}"
                )
            if min(numbers) < least:
                raise UsageError(f"--{name} must be {least} or more, got {min(numbers)}")
        if self.size < _FEWEST_PIXELS:
            raise UsageError(f"--size must be {_FEWEST_PIXELS} or more, got {self.size}")

    @property
    def most_folds(self) -> int:
        """The folds that the data set must be cut for."""
        return max(self.folds)

    def runs(self) -> tuple[TrainingRun, ...]:
        """Every training, the ones that compare the protocols first, then the ones that compare the networks."""
        return tuple(
            TrainingRun(protocol=protocol, preparation=preparation, network=network, fold=fold, epochs=epochs)
            for preparation in self.preparations
            for network, folds, epochs in zip(self.networks, self.folds, self.epochs, strict=True)
            for protocol in self._trained(network, preparation)
            for fold in range(1, folds + 1)
        )

    def _trained(self, network: str, preparation: Preparation) -> Iterator[Protocol]:
        if Protocol.PUBLISHED in {protocol.trained for protocol in self.protocols}:
            yield Protocol.PUBLISHED
        if Protocol.HONEST in self.protocols and (network, preparation) == (self.networks[0], self.preparations[0]):
            yield Protocol.HONEST

    def shortfalls(self, starts: Mapping[str, str]) -> tuple[str, ...]:
        """What keeps this run from being the publication's, each in a few words; empty for the whole protocol.

        starts: what the networks that do not start from whole ImageNet weights start from, in words.
        """
        shortfalls = []
        for network, folds, epochs in zip(self.networks, self.folds, self.epochs, strict=True):
            parts = [f"{folds} of {CLAIMS.folds} folds"] if folds < CLAIMS.folds else []
            parts += [f"{epochs} of {EPOCHS} epochs"] if epochs < EPOCHS else []
            words = [f"with {', '.join(parts)}"] if parts else []
            words += [f"from {starts[network]}"] if network in starts else []
            shortfalls += [f"{printed_name(network)} {' '.join(words)}"] if words else []
        absent = [printed for name, printed in PRINTED_NAMES.items() if name not in self.networks]
        shortfalls += [f"without {', '.join(absent)}"] if absent else []
        left_out = [name for name in (*Preparation, *Protocol) if name not in (*self.preparations, *self.protocols)]
        shortfalls += [f"not {' nor '.join(left_out)}"] if left_out else []
        shortfalls += [f"at {self.size} of {SIZE} pixels"] if self.size < SIZE else []
        return tuple(shortfalls)


def small_experiment(*, protocols: tuple[Protocol, ...], seed: int) -> ExperimentConfig:
    """An experiment of minutes, to see how one goes."""
    return ExperimentConfig(
        networks=("mobilenetv2_100",),
        folds=(2,),
        epochs=(2,),
        preparations=(Preparation.COLOUR,),
        protocols=protocols,
        size=_SMALL_SIZE,
        seed=seed,
    )


def spread(numbers: Sequence[int], networks: Sequence[str]) -> tuple[int, ...]:
    """One number for each network: as given, or the only one for all."""
    return tuple(numbers) * len(networks) if len(numbers) == 1 else tuple(numbers)


def printed_name(network: str) -> str:
    """The network's name in the publication, or in timm where it is not there."""
    return PRINTED_NAMES.get(network, network)


def recipe_for(run: TrainingRun, *, size: int) -> Recipe:
    """How one network is trained: Table 3, and under the honest protocol a frame that cannot tell the grade."""
    return replace(
        RECIPES["paper"],
        epochs=run.epochs,
        batch=_batch(run.network),
        size=size,
        small_size=size,
        match_crops=run.protocol is Protocol.HONEST,
    )


def _batch(network: str) -> int:
    row = next(row for row in TABLE_3 if row.name == "Batch size")
    sizes = dict(zip(NETWORKS, map(int, row.values), strict=True))
    return sizes.get(printed_name(network), sizes[NETWORKS[0]])
