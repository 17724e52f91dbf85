"""`retigrade train`: a labelled folder to a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from retigrade.cli.command import Command, notice
from retigrade.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Learn from labelled photographs: writes bundle.onnx, the split, and the log into --out.

    A run that stopped goes on with --resume to the same result. Under torchrun it uses every process it is given.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files; several are learned from together."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="(required)")]
    """Where everything is written."""

    recipe: Literal["best", "paper"] = "best"
    """Ours, or the publication's."""

    backbone: Annotated[str, tyro.conf.arg(metavar="NAME")] = "mobilenetv2_100"
    """Any network of timm by its name."""

    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: timm's download)")] = (
        None
    )
    """A safetensors file to start from."""

    random_start: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Start from random weights instead."""

    folds: Annotated[int, tyro.conf.arg(metavar="K")] = 0
    """Cross-validate: K networks, each tested on its own fold, shipped as one ensemble. 0: one network."""

    epochs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Passes over the training photographs."""

    batch: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Photographs in one step."""

    rate: Annotated[float | None, tyro.conf.arg(metavar="R", help_behavior_hint="(default: the recipe's)")] = None
    """The highest learning rate; a tenth suits a network that was trained already."""

    lesions: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Teach the thermal map where lesions are: a folder with photos/ and masks/."""

    mirror: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Let the bundle look at the mirror image too: better by a little, twice the time."""

    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: from the backbone)")] = None
    """The bundle's name."""

    seed: int = 1
    """Of split, order, augmentation and dropout."""

    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Go on with the run in --out."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out listed photographs that are missing or damaged, naming them, rather than stop."""

    def run(self) -> int:
        """Train, calibrate, measure, write."""
        self._check()
        try:
            from retigrade.data.annotations import find_annotated
            from retigrade.training.loop import open_fabric
            from retigrade.training.pipeline import TrainConfig, learn
            from retigrade.training.progress import Log
            from retigrade.training.recipe import RECIPES
        except ImportError as error:
            raise UsageError(f'training needs {error.name}: pip install "retigrade[train]"') from error
        from retigrade.data.manifest import read_manifest

        recipe = RECIPES[self.recipe]
        manifest = read_manifest(list(self.data), size=recipe.size, skip_unreadable=self.skip_unreadable)
        for sentence in manifest.notes:
            notice(sentence)
        for photograph in manifest.left_out:
            notice(f"left out {photograph}")
        if self.lesions is not None:
            find_annotated(self.lesions)  # a wrong folder must not wait for the training
        recipe = replace(
            recipe,
            epochs=self.epochs or recipe.epochs,
            batch=self.batch or recipe.batch,
            rate=self.rate or recipe.rate,
        )
        plan = TrainConfig(
            recipe=recipe,
            backbone=self.backbone,
            folds=self.folds,
            seed=self.seed,
            weights=self.weights,
            start=not self.random_start,
            lesions=self.lesions,
            mirror=self.mirror,
            pick="last" if recipe.average else "best",
            name=self.name or f"retigrade-{self.backbone}".lower(),
        )
        fabric = open_fabric()
        with Log(self.out, visible=fabric.is_global_zero) as log:
            bundle = learn(manifest, plan, folder=self.out, fabric=fabric, progress=log)
        if fabric.is_global_zero:
            notice(f"bundle: {bundle}; retigrade info {bundle} says what it reached")
        return 0

    def _check(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"--folds must be 0 or at least 2, got {self.folds}")
        for option, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value is not None and value < 1:
                raise UsageError(f"--{option} must be 1 or more, got {value}")
        if self.out.exists() and any(self.out.glob("**/checkpoint.pt")) and not self.resume:
            raise UsageError(f"{self.out} holds a training already: go on with --resume, or name another --out")
