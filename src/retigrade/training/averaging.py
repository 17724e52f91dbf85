"""Make a bundle of the mean of several trainings' weights.

    python -m retigrade.training.averaging --weights FILE FILE... --data DATA... --splits FILE --out DIR

Networks that were fine-tuned from the same weights lie in one basin, so that the mean of their weights answers about as
well as the mean of their answers, at the cost of one (Wortsman et al., "Model soups", ICML 2022). What their batch
norms know of features is no longer true of the mean's, so these are measured anew (Izmailov et al., "Averaging Weights
Leads to Wider Optima and Better Generalization", UAI 2018). The members and the mean are then compared on the split's
part `validation`; the mean is calibrated, exported and measured as a training's network is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from retigrade.arrays import Floats, Integers, Pixels, Reals
from retigrade.data.cache import prepared
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import TRAIN, VALIDATION, narrow, read_splits
from retigrade.errors import UsageError
from retigrade.files import make_folder, write_whole
from retigrade.metrics.classification import auroc, is_referable, p_referable, quadratic_kappa
from retigrade.metrics.decision import softmax
from retigrade.metrics.fitting import fit_prior, fit_temperature
from retigrade.text import lineage
from retigrade.training.calibrate import equal_sources
from retigrade.training.config import TrainConfig
from retigrade.training.describe import UNSTATED
from retigrade.training.device import open_fabric
from retigrade.training.loop import Start, predict, starting_network
from retigrade.training.pipeline import bundle_of_weights
from retigrade.training.progress import TerminalProgress
from retigrade.training.recipe import recipe_named
from retigrade.training.warm_start import present_name

MEAN = "mean.safetensors"
_MEASURED = 960  # photographs that batch norms are measured on
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaging:
    """The networks, the labelled photographs that they learned from and their split, and where the bundle goes."""

    weights: tuple[Path, ...]
    """The network.safetensors of trainings that started from the same weights."""
    data: tuple[Path, ...]
    splits: Path
    out: Path
    recipe: str = "further"
    """The recipe that they were trained by; it says how large a photo is, and what its maps need."""
    size: int | None = None
    """Side of the photo in pixels, where they were trained with another than the recipe's."""
    backbone: str = "mobilenetv2_100"
    lesions: Path | None = None
    """Teach the mean's thermal map where lesions are: a folder with photos/ and masks/."""
    name: str = "retigrade-mobilenetv2"
    license: str = UNSTATED
    intended_use: str = UNSTATED
    seed: int = 1


def mean_weights(files: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The mean of each tensor over several safetensors files, and the notes of the first with the origins of all.

    Whole numbers, such as counts of batches, are the first file's. Raises UsageError where there are fewer than two
    files, one cannot be read, or they are not of one architecture.
    """
    if len(files) < 2:
        raise UsageError(f"a mean needs the weights of at least two networks, got {len(files)}")
    tensors, notes = zip(*(_read(file) for file in files), strict=True)
    first: dict[str, Tensor] = tensors[0]
    for file, other in zip(files[1:], tensors[1:], strict=True):
        if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in other.items()}:
            raise UsageError(f"{file}: its tensors are not those of {files[0]}; give networks of one architecture")
    mean = {
        name: torch.stack([each[name] for each in tensors]).mean(0) if value.is_floating_point() else value
        for name, value in first.items()
    }
    origins = _origins([lineage(each.get("origin", "unknown")) for each in notes])
    return mean, {**notes[0], "origin": f"the mean of the weights of {len(files)} networks: {origins}"}


def _origins(origins: Sequence[str]) -> str:
    """Each origin once, with its number; one that another goes back to comes last and is not written out again."""
    counts = Counter(origins)
    starts = {origin for origin in counts if any(other.endswith(f", from {origin}") for other in counts)}
    phrases = []
    for origin in sorted(counts, key=starts.__contains__):
        phrase = "the weights before it" if origin in starts else origin
        phrases.append(phrase if counts[origin] == 1 else f"{counts[origin]} x {phrase}")
    return "; ".join(phrases)


def main(arguments: Averaging) -> None:
    """Average, measure the norms, compare on validation, and write the mean's bundle with its evaluation."""
    recipe, mean = recipe_named(arguments.recipe), arguments.out / MEAN
    config = TrainConfig(
        recipe=recipe if arguments.size is None else recipe.resized(arguments.size),
        start=Start(backbone=arguments.backbone, weights=mean, seed=arguments.seed),
        lesions=arguments.lesions,
        splits=arguments.splits,
        name=arguments.name,
        license=arguments.license,
        intended_use=arguments.intended_use,
    )
    state, notes = mean_weights(arguments.weights)
    make_folder(arguments.out)
    write_whole(mean, save(state, metadata=notes))
    manifest = narrow(read_manifest(list(arguments.data), skip_unreadable=True), arguments.splits)
    splits = read_splits(arguments.splits, manifest)
    train, validation = splits.part(TRAIN), splits.part(VALIDATION)
    weights = equal_sources(manifest.sources[validation])
    photos = prepared(manifest, size=config.recipe.size, folder=arguments.out)
    fabric = open_fabric(accelerator="auto")
    network = starting_network(config.recipe, config.start)
    some = np.random.default_rng(arguments.seed).permutation(train)[:_MEASURED]
    measure_norms(network, photos, np.sort(some), fabric=fabric)
    settled = network.state_dict()
    write_whole(mean, save({name: settled[name].cpu().contiguous() for name in state}, metadata=notes))
    for file in (*arguments.weights, mean):
        network = starting_network(config.recipe, replace(config.start, weights=file)).to(fabric.device)
        logits = predict(network.to(memory_format=torch.channels_last), photos, validation, fabric=fabric)
        figures = ", ".join(compared(logits, manifest.grades[validation], weights))
        _log.info("%s on validation: %s", file, figures)
    with TerminalProgress() as progress:
        trained = bundle_of_weights(manifest, config, folder=arguments.out, fabric=fabric, progress=progress)
    _log.info("bundle: %s", trained.path)


def measure_norms(network: nn.Module, photos: Pixels, indices: Integers, *, fabric: Fabric, batch: int = 48) -> None:
    """Set, in place, the mean and variance of each batch norm to those over some photographs, uint8 (N, S, S, 3)."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.to(fabric.device).to(memory_format=torch.channels_last).eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.inference_mode(), fabric.autocast():
        for begin in range(0, len(indices), batch):
            part = torch.from_numpy(photos[indices[begin : begin + batch]]).to(fabric.device)
            network(part.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, "pt") as opened:
            return {present_name(name): opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{file}: cannot be read as weights ({error}); give a run's network.safetensors") from error


def compared(logits: Floats, grades: Integers, weights: Reals) -> Iterator[str]:
    """Three figures after calibration on the same photographs with these weights, which weigh the first figure, too."""
    shifted = logits + fit_prior(logits, grades, weights=weights)
    probabilities = softmax(shifted, temperature=fit_temperature(shifted, grades, weights=weights))
    likelihood = -np.log(probabilities[np.arange(len(grades)), grades])
    yield f"negative log-likelihood {np.average(likelihood, weights=weights):.4f}"
    yield f"kappa {quadratic_kappa(grades, probabilities.argmax(axis=1)):.3f}"
    yield f"referable AUROC {auroc(p_referable(probabilities), is_referable(grades)):.3f}"


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Averaging)
