"""How faithful heatmaps are, on photographs with every lesion annotated.

    pip install '.[train]' -r benchmarks/requirements.txt
    python benchmarks/heat.py ../shared/data/idrid/lesions [--bundle FILE] [--network FILE] [--steps 20] [--all]

Each kind of map is a function of a photograph (`evaluation.faithfulness.MapFunction`); add yours to `maps_of`. With
the network that the bundle was exported from, a safetensors file, the maps of the grad-cam library are measured on it
too, and the maps are made again with random weights (Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018): a
map that stays alike shows nothing that was learned. What the bundle learned from is left out, unless --all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from retigrade.arrays import Floats
from retigrade.data.annotations import read_annotated
from retigrade.evaluation.faithfulness import STEPS, MapFunction, at_random, evidence, measure_faithfulness
from retigrade.fundus.canonical import CanonicalView, canonical_view
from retigrade.grader import Grader, load
from retigrade.heatmap import disease_evidence, on_frame
from retigrade.training.network import Network

FIGURES = ("deletion", "insertion", "referable_deletion", "referable_insertion")
OVERLAP = ("mass_accuracy", "chance", "ratio", "pointing")


@dataclass(frozen=True)
class Arguments:
    """The folder with photos/ and masks/, the bundle, the steps of deletion and insertion, and the seed."""

    lesions: Annotated[Path, tyro.conf.Positional]
    bundle: Path | None = None
    network: Path | None = None
    all: bool = False
    steps: int = STEPS
    seed: int = 0


def class_activation(grader: Grader) -> MapFunction:
    """The predicted stage's own map where it is positive: for a head of average and linear layer, its Grad-CAM."""

    def activation(view: CanonicalView) -> Floats:
        metadata, outputs = grader.bundle.metadata, grader.bundle.run(view.canonical[None])
        predicted = metadata.decision.decide(metadata.probabilities(outputs.logits)[0])
        values = np.maximum(outputs.maps[0, predicted], 0)
        return on_frame(
            values / max(float(values.max()), 1e-9), view, receptive_field_offset=metadata.receptive_field_offset
        )

    return activation


def maps_of(grader: Grader, network: Network | None, seed: int) -> dict[str, MapFunction]:
    maps = {
        "heatmap": evidence(grader),
        "class activation": class_activation(grader),
        "random map": at_random(np.random.default_rng(seed)),
    }
    return maps | (library_maps(grader, network) if network is not None else {})


class _Logits(nn.Module):
    """What the grad-cam library asks of a network: logits and nothing else."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> Tensor:
        return self.network(photos).logits


def library_maps(grader: Grader, network: Network) -> dict[str, MapFunction]:
    """Maps of the predicted stage at the network's last layer, as the library's users make them."""
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def by(method: type) -> MapFunction:
        cam = method(model=_Logits(network), target_layers=[network.backbone.bn2])

        def made(view: CanonicalView) -> Floats:
            metadata, outputs = grader.bundle.metadata, grader.bundle.run(view.canonical[None])
            predicted = int(metadata.decision.decide(metadata.probabilities(outputs.logits)[0]))
            return on_frame(cam(input_tensor=as_input(view), targets=[ClassifierOutputTarget(predicted)])[0], view)

        return made

    return {"Grad-CAM": by(GradCAM), "Grad-CAM++": by(GradCAMPlusPlus), "LayerCAM": by(LayerCAM)}


def as_input(view: CanonicalView) -> Tensor:
    return torch.from_numpy(view.canonical[None]).permute(0, 3, 1, 2).float()


def randomised(network: Network, views: list[CanonicalView]) -> Iterator[tuple[str, float]]:
    """Rank correlation of the maps with those after more and more layers, from the head down, are random."""
    torch.manual_seed(0)
    trained = [own_map(network, one) for one in views]
    changed = copy.deepcopy(network)
    blocks = list(changed.backbone.blocks)
    for name, parts in {
        "the heads": [changed.classify, changed.high_resolution.classify],
        "the high-resolution head too": [changed.high_resolution],
        "the last three stages too": blocks[-3:],
        "every stage": blocks,
    }.items():
        for module in (module for part in parts for module in part.modules()):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        pairs = ((before.ravel(), own_map(changed, one).ravel()) for before, one in zip(trained, views, strict=True))
        yield name, float(np.mean([np.corrcoef(ranks(a), ranks(b))[0, 1] for a, b in pairs]))


def own_map(network: Network, view: CanonicalView) -> Floats:
    with torch.inference_mode():
        answer = network(as_input(view))
    return disease_evidence(answer.maps[0].numpy(), answer.logits[0].double().softmax(0).numpy())


def ranks(values: Floats) -> Floats:
    return values.argsort().argsort().astype(np.float32)


def main(arguments: Arguments) -> None:
    grader = load(arguments.bundle)
    network = Network("mobilenetv2_100", high_resolution=True, weights=arguments.network) if arguments.network else None
    maps = maps_of(grader, None if network is None else network.eval(), arguments.seed)
    learned = set() if arguments.all else set(grader.bundle.metadata.training.annotated)
    annotated = [one for one in read_annotated(arguments.lesions) if one.photo.sha256 not in learned]
    result = measure_faithfulness(grader, annotated, maps, seed=arguments.seed, steps=arguments.steps)
    table = Table(title=f"{grader.bundle.identity}, 95 % intervals over photographs")
    for heading in ("map", "lesions", "photographs", *OVERLAP, *FIGURES):
        table.add_column(heading.replace("_", " "))
    for name, figures in result.maps.items():
        for kind, overlap in {"all": figures.overlap, **figures.kinds}.items():
            cells = [str(getattr(overlap, key)) for key in OVERLAP]
            cells += [str(getattr(figures, key)) if kind == "all" else "" for key in FIGURES]
            table.add_row(name, kind, str(overlap.photos), *cells)
    Console(width=240).print(table)
    if network is not None:
        views = [canonical_view(item.photo, size=grader.bundle.metadata.input_size) for item in annotated]
        for name, correlation in randomised(network, views):
            print(f"rank correlation of the maps with those of random weights in {name}: {correlation:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
