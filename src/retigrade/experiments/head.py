"""Fit a network's last linear head again, on the photographs that it learned from, and make a bundle of it.

    python -m retigrade.experiments.head --weights FILE --data DATA... --splits FILE --out DIR

A network whose weights were averaged, or whose map was taught, has a head that fits its features no longer. Logits are
linear in the features, so the head is found by multinomial logistic regression, which has one best answer, pulled
towards the head that is there (Kirichenko, Izmailov and Wilson, "Last Layer Re-Training", ICLR 2023). The map stays
exact: it is the same layer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)

from retigrade.arrays import Floats, Reals
from retigrade.data.cache import prepared
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import TRAIN, VALIDATION, narrow, read_splits
from retigrade.errors import UsageError
from retigrade.experiments.predictions import out_of_fold
from retigrade.files import make_folder
from retigrade.training.averaging import compared
from retigrade.training.calibrate import equal_sources
from retigrade.training.config import TrainConfig
from retigrade.training.dataset import soft_targets
from retigrade.training.describe import UNSTATED
from retigrade.training.device import open_fabric
from retigrade.training.export import ModelOutputs, run_model, to_onnx
from retigrade.training.loop import Start, starting_network
from retigrade.training.pipeline import bundle_of_weights
from retigrade.training.progress import TerminalProgress
from retigrade.training.recipe import recipe_named

FITTED = "fitted.safetensors"
_SOURCES = 0.5  # as `source_balance` of a recipe: between every photograph alike and every source alike
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The network, the labelled photographs that it learned from and their split, and where the bundle goes."""

    weights: Path
    """A run's network.safetensors."""
    data: tuple[Path, ...]
    splits: Path
    """Its part train fits the head; validation compares, and calibrates the bundle."""
    out: Path
    recipe: str = "best"
    """The recipe that it was trained by; it says how large a photo is, and what its map needs."""
    size: int | None = None
    """Side of the photo in pixels, where it was trained with another than the recipe's."""
    backbone: str = "mobilenetv2_100"
    lesions: Path | None = None
    """The annotated photographs that taught its map, to note them in the bundle."""
    predictions: tuple[Path, ...] = ()
    """Folders with predictions.csv of what networks say of photographs that they did not learn from; their mean is the
    share of each target that the recipe gives to teachers."""
    pull: tuple[float, ...] = (0.3,)
    """How strongly the head is held to what it was; the first is taken, the others are only compared."""
    name: str = "retigrade-mobilenetv2"
    license: str = UNSTATED
    intended_use: str = UNSTATED
    seed: int = 1


def fit_head(logits: Floats, features: Floats, targets: Floats, *, weights: Reals, pull: float) -> Reals:
    """What to add to a head's weights and, in the last column, its biases: float64 (5, C + 1).

    Minimises the cross-entropy of (N, 5) logits against targets, float (N, 5), whose rows sum to 1, plus half of `pull`
    times the squared change of the weights. features: (N, C). weights: (N,), how much each photograph counts.
    """
    before, wanted = torch.from_numpy(logits).double(), torch.from_numpy(targets).double()
    pooled = F.pad(torch.from_numpy(features).double(), (0, 1), value=1.0)
    share = torch.from_numpy(weights / weights.sum()).double()
    change = torch.zeros(logits.shape[1], pooled.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        answers = before + pooled @ change.T
        value = -(share[:, None] * wanted * answers.log_softmax(1)).sum() + pull / 2 * change[:, :-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return np.asarray(change.detach().numpy())


def main(arguments: Head) -> None:
    """Fit, compare on validation, and write the bundle with its evaluation."""
    recipe = recipe_named(arguments.recipe)
    if arguments.predictions and not recipe.teacher_weight:
        raise UsageError(f"the recipe {recipe.name} gives predictions no weight: leave --predictions out")
    config = TrainConfig(
        recipe=recipe if arguments.size is None else recipe.resized(arguments.size),
        start=Start(backbone=arguments.backbone, weights=arguments.weights, seed=arguments.seed),
        splits=arguments.splits,
        lesions=arguments.lesions,
        name=arguments.name,
        license=arguments.license,
        intended_use=arguments.intended_use,
    )
    manifest = narrow(read_manifest(list(arguments.data), skip_unreadable=True), arguments.splits)
    splits = read_splits(arguments.splits, manifest)
    train, validation = splits.part(TRAIN), splits.part(VALIDATION)
    make_folder(arguments.out)
    photos = prepared(manifest, size=config.recipe.size, folder=arguments.out)
    network = starting_network(config.recipe, config.start).eval()
    model = to_onnx(network, size=config.recipe.size, mirror=False)
    learned, unseen = (run_model(model, photos, part) for part in (train, validation))
    targets = soft_targets(manifest.grades, splits.groups, label_smoothing=config.recipe.label_smoothing)
    if arguments.predictions:
        share = config.recipe.teacher_weight
        targets = np.asarray((1 - share) * targets + share * out_of_fold(arguments.predictions, manifest), np.float32)
    targets = targets[train]
    weights = equal_sources(manifest.sources[train]) ** _SOURCES
    grades, equal = manifest.grades[validation], equal_sources(manifest.sources[validation])
    _log.info("the head as it was, on validation: %s", ", ".join(compared(unseen.logits, grades, equal)))
    changes = {
        pull: fit_head(learned.logits, learned.features, targets, weights=weights, pull=pull) for pull in arguments.pull
    }
    for pull, change in changes.items():
        _log.info("pull %g: %s", pull, ", ".join(compared(_answers(unseen, change), grades, equal)))
    chosen = torch.from_numpy(changes[arguments.pull[0]]).float()
    network.add_to_head(chosen[:, -1], chosen[:, :-1])
    network.save(arguments.out / FITTED, trained="the last head fitted again")
    config = replace(config, start=replace(config.start, weights=arguments.out / FITTED))
    fabric = open_fabric(accelerator="auto")
    with TerminalProgress() as progress:
        trained = bundle_of_weights(
            manifest, config, folder=arguments.out, fabric=fabric, progress=progress, taught=True
        )
    _log.info("bundle: %s", trained.path)


def _answers(outputs: ModelOutputs, change: Reals) -> Floats:
    moved = outputs.logits + outputs.features @ change[:, :-1].T + change[:, -1]
    return np.asarray(moved, np.float32)


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Head)
