"""How faithful thermal maps are, on photographs with every lesion marked.

    python benchmarks/heat.py ../shared/data/idrid/lesions [--bundle FILE] [--steps 20]

Each kind of map is a function of a photograph (`retigrade.learn.faithful.MapFunction`); add yours to `maps_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from retigrade.grader import Grader, load
from retigrade.learn.faithful import STEPS, MapFunction, Seen, at_random, evidence, measure_faithfulness
from retigrade.learn.lesions import read_marked
from retigrade.records import Floats

FIGURES = ("share", "chance", "ratio", "pointing", "deletion", "insertion", "referable_deletion", "referable_insertion")


@dataclass(frozen=True)
class Arguments:
    """The folder with photos/ and masks/, the bundle, the steps of deletion and insertion, and the seed."""

    lesions: Annotated[Path, tyro.conf.Positional]
    bundle: Path | None = None
    steps: int = STEPS
    seed: int = 0


def class_activation(grader: Grader) -> MapFunction:
    """The decided stage's own map where it is positive: for a head of average and linear layer, its Grad-CAM."""

    def activation(seen: Seen) -> Floats:
        card, outputs = grader.bundle.card, grader.bundle.run(seen.canonical[None])
        decided = card.decision.decide(card.probabilities(outputs.logits)[0])
        values = np.maximum(outputs.maps[0, decided], 0)
        return seen.on_frame(values / max(float(values.max()), 1e-9), centre=card.heat_centre)

    return activation


def maps_of(grader: Grader, seed: int) -> dict[str, MapFunction]:
    return {
        "thermal map": evidence(grader),
        "class activation": class_activation(grader),
        "random map": at_random(np.random.default_rng(seed)),
    }


def main(arguments: Arguments) -> None:
    grader = load(arguments.bundle)
    maps = maps_of(grader, arguments.seed)
    found = measure_faithfulness(
        grader, read_marked(arguments.lesions), maps, seed=arguments.seed, steps=arguments.steps
    )
    table = Table(title=f"{grader.bundle.identity}, 95 % intervals over photographs")
    for heading in ("map", "photographs", "cool", *FIGURES):
        table.add_column(heading.replace("_", " "))
    for name, one in found.maps.items():
        table.add_row(name, str(one.photos), str(one.cool), *(str(getattr(one, figure)) for figure in FIGURES))
    Console(width=220).print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
