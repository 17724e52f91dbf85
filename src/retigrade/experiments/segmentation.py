"""Teach segmentation networks from annotated photographs, and find lesions on those that nobody annotated.

    python -m retigrade.experiments.segmentation --weights FILE --data DATA... --splits FILE --lesions DIR --out DIR

A network that learned from a photograph's stage would see lesions by it, so these start from weights that know no eyes.
What is written is what a run with `--recipe further-lesions` makes before it trains: the maps of the split's part
`train`, and the two networks, each taught and asked on a half of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retigrade.data.manifest import read_manifest
from retigrade.data.splits import TEST, TRAIN, VALIDATION, narrow, read_splits
from retigrade.files import make_folder
from retigrade.training.config import TrainConfig
from retigrade.training.dataset import Fold
from retigrade.training.device import open_fabric
from retigrade.training.lesion_maps import kept_lesion_maps
from retigrade.training.lesion_supervision import annotated_apart
from retigrade.training.loop import Start
from retigrade.training.recipe import recipe_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The annotated and the labelled photographs, and where networks and maps go; the command's arguments."""

    weights: Path
    """Of the backbone, such as those for ImageNet's pictures."""
    data: tuple[Path, ...]
    splits: Path
    lesions: Path
    out: Path
    backbone: str = "mobilenetv2_100"
    seed: int = 1


def main(arguments: Segmentation) -> None:
    """Teach two networks and let each look at the other's half."""
    manifest = narrow(read_manifest(list(arguments.data), skip_unreadable=True), arguments.splits)
    splits = read_splits(arguments.splits, manifest)
    fold = Fold(train=splits.part(TRAIN), validation=splits.part(VALIDATION), test=splits.part(TEST))
    config = TrainConfig(
        recipe=recipe_named("further-lesions"),
        start=Start(backbone=arguments.backbone, weights=arguments.weights, seed=arguments.seed),
        splits=arguments.splits,
        lesions=arguments.lesions,
        name="segmentation",
    )
    annotated = annotated_apart(manifest, fold.train, arguments.lesions)
    make_folder(arguments.out)
    kept_lesion_maps(
        manifest, splits, fold, annotated, config, folder=arguments.out, fabric=open_fabric(accelerator="auto")
    )


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Segmentation)
