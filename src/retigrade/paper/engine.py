"""The trainer that trains: networks from timm on the training loop of `retigrade.training`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from retigrade.errors import UsageError
from retigrade.paper.trainer import CheckpointResult, NetworkDescription, NetworkTrainer, TrainingTask
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.export import receptive_field_offset
from retigrade.training.loop import Start, fit, predict
from retigrade.training.network import Network
from retigrade.training.progress import Progress
from retigrade.training.weights import StartingWeights

_OFFSET_PHOTOS = 8


class Engine(NetworkTrainer):
    """Trains on the devices of one Fabric."""

    def __init__(self, fabric: Fabric, *, weights: Mapping[str, Path], random_start: bool) -> None:
        """weights: a file for each network that has one. random_start: start the others at random, no download."""
        self._fabric, self._weights, self._random_start = fabric, weights, random_start

    def describe(self, network: str, *, size: int) -> NetworkDescription:
        """Describe a network; UsageError where its weights cannot be had."""
        file = self._weights.get(network)
        built = Network(network, weights=file, pretrained=not self._random_start, size=size).eval()
        with torch.inference_mode():
            output = built(torch.zeros(1, 3, size, size))
        share = _share(file, built) if file else 0.0 if self._random_start else 1.0
        height, width = output.maps.shape[2:]
        return NetworkDescription(
            network=network,
            parameters=sum(value.numel() for value in built.parameters()),
            input=_input(built),
            feature_map=(int(output.features.shape[1]), int(height), int(width)),
            start=_start(share),
            share=share,
            digest=hashlib.sha256(file.read_bytes()).hexdigest() if file else "",
        )

    def train(self, task: TrainingTask, *, folder: Path, progress: Progress) -> CheckpointResult:
        """Train to the last epoch and answer with the best."""
        data = TrainingData(
            photos=task.photos,
            grades=task.grades,
            targets=soft_targets(task.grades, (), label_smoothing=task.recipe.label_smoothing),
            subsets=np.zeros(len(task.grades), np.int64),
            rejected=np.zeros(len(task.grades), bool),
            train=task.fold.train,
            validation=task.fold.validation,
            fingerprint=task.identity,
        )
        start = Start(
            backbone=task.network,
            weights=self._weights.get(task.network),
            pretrained=not self._random_start,
            seed=task.seed,
        )
        fitted = fit(data, task.recipe, start, fabric=self._fabric, folder=folder, progress=progress, pick="best")
        shown = torch.from_numpy(task.photos[task.shown]).to(self._fabric.device).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            maps = fitted.network(shown).maps.float().cpu().numpy()
        logits = predict(fitted.network, task.photos, np.arange(len(task.grades)), fabric=self._fabric)
        return CheckpointResult(
            history=fitted.history,
            epoch=fitted.epoch,
            logits=logits,
            maps=maps,
            receptive_field_offset=receptive_field_offset(
                fitted.network, np.ascontiguousarray(task.photos[task.fold.train[:_OFFSET_PHOTOS]])
            ),
        )


def match_weights(files: Sequence[Path], networks: Sequence[str]) -> dict[str, Path]:
    """Give each file to the network that its name begins with, up to the first dot, as timm names weights.

    Raises UsageError where a file is for none of the networks, or two are for one.
    """
    matched: dict[str, Path] = {}
    for file in files:
        network = file.name.partition(".")[0]
        if network not in networks:
            raise UsageError(
                f"{file}: its name begins with none of the networks {', '.join(networks)}; "
                f"call it {networks[0]}.<anything>.safetensors"
            )
        if network in matched:
            raise UsageError(f"{matched[network]} and {file}: two files for {network}; give one")
        matched[network] = file
    return matched


def _share(file: Path, network: Network) -> float:
    """How much of the backbone the file holds, by count of numbers."""
    own = {name: value for name, value in network.backbone.state_dict().items() if value.is_floating_point()}
    shapes = StartingWeights.open(file).shapes()
    held = sum(int(value.numel()) for name, value in own.items() if shapes.get(name) == tuple(value.shape))
    return held / sum(int(value.numel()) for value in own.values())


def _start(share: float) -> str:
    if share == 0:
        return "random weights"
    return "ImageNet weights" if share > 0.995 else f"ImageNet weights for {share:.0%}, the rest random"


def _input(network: Network) -> str:
    """How pixels of 0..255 are scaled before the first layer."""
    mean, deviation = (value.flatten().tolist() for value in (network.mean, network.deviation))
    if len({*mean, *deviation}) == 1:
        return f"x / {mean[0]:g} - 1"
    means, deviations = (" ".join(f"{value / 255:.3g}" for value in values) for values in (mean, deviation))
    return f"x / 255, less the mean {means}, over the deviation {deviations}"
