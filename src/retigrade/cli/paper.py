"""`retigrade paper`: the publication run again, beside an honest protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from retigrade.cli.command import Command, notice
from retigrade.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from retigrade.paper.config import ExperimentConfig

_OF_SMALL = ("networks", "folds", "epochs", "preparation", "size")


def _default(words: str) -> Any:
    """The help's words for an option of which it must be known whether it was given."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {words})")


@dataclass(frozen=True, kw_only=True)
class Paper(Command):
    """Reproduce the publication: its tables and figures beside the printed values, under three protocols.

    Trainings that are finished in --out are read back, and one that was stopped is continued.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="(required)")]
    """Write report.html, report.md, tables/ and figures/ here, and keep the work in work/."""

    networks: Annotated[tuple[str, ...], _default("mobilenetv2_100 resnetv2_50 vgg16")] = ()
    """Networks by their names in timm; the first is the one that the honest protocol is run for."""

    folds: Annotated[tuple[int, ...], _default("3")] = ()
    """Folds, one number for all networks or one for each."""

    epochs: Annotated[tuple[int, ...], _default("100")] = ()
    """Epochs, one number for all networks or one for each."""

    preparation: Annotated[tuple[Literal["colour", "gaussian"], ...], _default("colour gaussian")] = ()
    """Photographs as they are, or minus their own Gaussian blur; the honest protocol is run with the first."""

    protocols: tuple[Literal["published", "leaking", "honest"], ...] = ("published", "leaking", "honest")
    """How photographs are divided and judged."""

    weights: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Weights to start from, safetensors in timm's layout, each named <network>.<anything>.safetensors."""

    random_start: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Start networks without a file of weights at random rather than from timm's ImageNet weights, a download."""

    size: Annotated[int | None, _default("224")] = None
    """Side of the photographs in pixels."""

    small: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """In place of networks, folds, epochs, preparation and size: MobileNetV2 from random weights, 2 folds x 2 epochs,
    96 pixels, in colour. Shows in minutes how it goes, and nothing else."""

    seed: int = 0
    """What the division of the photographs and the trainings are drawn with."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What to train on."""

    without_photographs: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave Figures 2 and 4 out, so that the report shows no photograph."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable."""

    def run(self) -> int:
        """Train what is not trained yet, and write the report."""
        if self.small and (given := [f"--{name}" for name in _OF_SMALL if getattr(self, name)]):
            raise UsageError(
                f"--small goes without {' and '.join(given)}; it stands for "
                "--networks mobilenetv2_100 --random-start --folds 2 --epochs 2 --preparation colour --size 96"
            )
        with needs_extra("train"):
            from retigrade.paper.engine import Engine, match_weights
            from retigrade.paper.report import HTML
            from retigrade.paper.run import run_experiment
            from retigrade.training.device import open_fabric
            from retigrade.training.progress import TerminalProgress

            config = self._config()
        weights = match_weights(self.weights, config.networks)
        engine = Engine(
            open_fabric(accelerator=self.accelerator), weights=weights, random_start=self.random_start or self.small
        )
        with TerminalProgress() as progress:
            run_experiment(
                self.data,
                out=self.out,
                config=config,
                trainer=engine,
                progress=progress,
                photographs=not self.without_photographs,
                skip_unreadable=self.skip_unreadable,
            )
        notice(f"report: {self.out / HTML}")
        notice("research use only, not a medical device")
        return 0

    def _config(self) -> ExperimentConfig:
        from retigrade.paper.config import (
            EPOCHS,
            PRINTED_NAMES,
            SIZE,
            ExperimentConfig,
            Preparation,
            Protocol,
            small_experiment,
            spread,
        )
        from retigrade.paper.printed import CLAIMS

        if self.small:
            return small_experiment(protocols=tuple(map(Protocol, self.protocols)), seed=self.seed)
        networks = self.networks or tuple(PRINTED_NAMES)
        return ExperimentConfig(
            networks=networks,
            folds=spread(self.folds or (CLAIMS.folds,), networks),
            epochs=spread(self.epochs or (EPOCHS,), networks),
            preparations=tuple(map(Preparation, self.preparation or Preparation)),
            protocols=tuple(map(Protocol, self.protocols)),
            size=SIZE if self.size is None else self.size,
            seed=self.seed,
        )
