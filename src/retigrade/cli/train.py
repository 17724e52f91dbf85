"""`retigrade train`: a labelled folder to a bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from retigrade.cli.command import Command
from retigrade.errors import needs_extra


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train on labelled photographs: writes bundle.onnx, its evaluation, the split, and the run's record into --out.

    A run that stopped goes on with --resume to the same result. Under torchrun it uses every process it is given.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files; several are trained on together."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="(required)")]
    """Where everything is written."""

    recipe: Literal[
        "best",
        "robust",
        "brief",
        "further",
        "further-robust",
        "further-mild",
        "further-sharp",
        "further-steady",
        "further-paste",
        "further-fine",
        "further-lesions",
        "further-dust",
        "sharp",
        "paper",
    ] = "best"
    """Ours, ours with augmentation for cameras and files unlike those trained on, ours in a third of the epochs and
    without teachers, ours for a network that grades already, the same against noise and dust, the same with the
    augmentation of best, the same at 384 pixels, at 352 pixels for longer, that with lesions pasted on healthy eyes,
    the same for what is small, that with the places of lesions, that against specks of dust, ours for a GPU at 352
    pixels, or the publication's."""

    backbone: Annotated[str, tyro.conf.arg(metavar="NAME")] = "mobilenetv2_100"
    """A network of timm by its name."""

    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: timm's download)")] = (
        None
    )
    """A safetensors file or a bundle to start from."""

    random_start: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Start from random weights instead."""

    size: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Side of the photo in pixels, 32 to 1024."""

    validation: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.1
    """The share of the photographs that calibrate; with folds, of those that a fold learns from."""

    test: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.1
    """The share of the photographs that are measured on and nothing else."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A split to follow, the splits.json of another run; photographs that it does not list are left out."""

    folds: Annotated[int, tyro.conf.arg(metavar="K")] = 0
    """Cross-validate: K networks, each tested on its own fold, shipped as one ensemble. 0: one network."""

    refit: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """With --folds: one more network learns from all photographs and ships alone, calibrated and measured by the
    networks of the folds on what they did not learn from."""

    leave_source_out: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """For each data set: train on all others and test on it."""

    external: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DATA...", help_behavior_hint="")] = ()
    """Labelled folders or CSV files that the bundle is measured on, never learned from or chosen on."""

    epochs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Epochs, each as many photographs as there are to train on."""

    batch: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Photographs in one step."""

    lr: Annotated[float | None, tyro.conf.arg(metavar="R", help_behavior_hint="(default: the recipe's)")] = None
    """The highest learning rate; a tenth suits a network that was trained already."""

    teachers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Networks trained first, whose predictions are part of each target; 0 for none, which takes less than half the
    time with --recipe best or robust."""

    lesions: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Teach the thermal map where lesions are: a folder with photos/ and masks/."""

    mirror: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Let the bundle look at the mirror image too: better by a little, twice the time."""

    distill: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Bundles to learn from beside the grades, or the folders of runs with --folds, of which each photograph is
    predicted by the network that did not learn from it: the mean prediction is part of each target."""

    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: from the backbone)")] = None
    """The bundle's name."""

    license: Annotated[str, tyro.conf.arg(metavar="TEXT")] = "unstated"
    """The licence that the bundle says it is under."""

    intended_use: Annotated[str, tyro.conf.arg(metavar="TEXT")] = "unstated"
    """What the bundle says it may be used for."""

    seed: int = 1
    """Of split, order, augmentation and dropout."""

    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Go on with the run in --out."""

    mlflow: Annotated[str | None, tyro.conf.arg(metavar="URI", help_behavior_hint="")] = None
    """Also tell MLflow at this address, a server or a folder."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing, damaged or unusable, naming them, rather than stop."""

    def run(self) -> int:
        """Train, calibrate, evaluate, write."""
        with needs_extra("train"):
            from retigrade.experiments.run import train
        from retigrade.training.progress import TerminalProgress

        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "debug"}
        with TerminalProgress() as progress:
            train(**options, progress=progress)
        return 0
