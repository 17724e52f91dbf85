"""The trainer that trains: networks from timm on the training loop of `retigrade.learn`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from torch import nn

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.errors import UsageError
from retigrade.paper.trainer import Contestant, NetworkTrainer, Task, Trained
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.export import receptive_field_offset
from retigrade.training.loop import Start, fit, predict
from retigrade.training.network import Network
from retigrade.training.progress import Progress

_PROBES = 8  # photographs that the centre of a map's cell is measured on


class Engine(NetworkTrainer):
    """Trains on the devices of one Fabric."""

    def __init__(self, fabric: Fabric, *, weights: Mapping[str, Path], random_start: bool) -> None:
        """weights: a file for each network that has one. random_start: start the others at random, no download."""
        self._fabric, self._weights, self._random_start = fabric, weights, random_start

    def contestant(self, network: str, *, size: int) -> Contestant:
        """Describe a network; UsageError where its weights cannot be had."""
        file = self._weights.get(network)
        built = Network(network, weights=file, pretrained=not self._random_start, size=size).eval()
        with torch.inference_mode():
            answer = built(torch.zeros(1, 3, size, size))
        share = _share(file, built) if file else 0.0 if self._random_start else 1.0
        height, width = answer.maps.shape[2:]
        return Contestant(
            network=network,
            parameters=sum(value.numel() for value in built.parameters()),
            input=_input(built),
            map=(int(answer.features.shape[1]), int(height), int(width)),
            start=_start(share),
            share=share,
            digest=hashlib.sha256(file.read_bytes()).hexdigest() if file else "",
        )

    def train(self, task: Task, *, folder: Path, progress: Progress) -> Trained:
        """Train to the last epoch and answer with the best."""
        data = TrainingData(
            photos=task.photos,
            grades=task.grades,
            targets=soft_targets(task.grades, (), label_smoothing=task.recipe.label_smoothing),
            sources=np.zeros(len(task.grades), np.int64),
            train=task.train,
            validation=task.validation,
            fingerprint=task.identity,
        )
        start = Start(
            backbone=task.network,
            weights=self._weights.get(task.network),
            pretrained=not self._random_start,
            seed=task.seed,
        )
        fitted = fit(data, task.recipe, start, fabric=self._fabric, folder=folder, progress=progress, pick="best")
        everything = np.arange(len(task.grades))
        logits = predict(fitted.network, task.photos, everything, fabric=self._fabric)
        maps = self._maps(fitted.network, task.photos, task.shown)
        probes = np.ascontiguousarray(task.photos[task.train[:_PROBES]])
        return Trained(
            history=fitted.history,
            epoch=fitted.epoch,
            logits=logits,
            maps=maps,
            centre=receptive_field_offset(fitted.network, probes),
        )

    def _maps(self, network: nn.Module, photos: Pixels, shown: Integers) -> Floats:
        x = torch.from_numpy(photos[shown]).to(self._fabric.device).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            maps: Floats = network(x).maps.float().cpu().numpy()
        return maps


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
    try:
        with safe_open(file, "pt") as stored:
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read the weights {file}: need a safetensors file") from error
    found = sum(int(value.numel()) for name, value in own.items() if shapes.get(name) == tuple(value.shape))
    return found / sum(int(value.numel()) for value in own.values())


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
