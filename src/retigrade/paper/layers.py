"""The networks of the publication's Table 2: what was printed, and the MobileNetV2 that its title names.

Parameters are counted as Keras counts them: convolutions without bias, four numbers a channel for each batch
normalisation (two of them learned), and a fully connected layer with bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from retigrade.paper.printed import Layer

NORMALISATION = 4


@dataclass(frozen=True, slots=True)
class Bottlenecks:
    """One row of Sandler et al. 2018 (arXiv 1801.04381), Table 2: `repeats` inverted residuals.

    input: side and channels of what enters the first. expansion: hidden channels for each input channel. stride: of
    the first; the others have 1.
    """

    input: tuple[int, int]
    expansion: int
    channels: int
    repeats: int
    stride: int


STEM = 32
LAST = 1280
MOBILENET_V2 = (
    Bottlenecks((112, 32), 1, 16, 1, 1),
    Bottlenecks((112, 16), 6, 24, 2, 2),
    Bottlenecks((56, 24), 6, 32, 3, 2),
    Bottlenecks((28, 32), 6, 64, 4, 2),
    Bottlenecks((14, 64), 6, 96, 3, 1),
    Bottlenecks((14, 96), 6, 160, 3, 2),
    Bottlenecks((7, 160), 6, 320, 1, 1),
)


def printed_parameters(table: Sequence[Layer], *, outputs: int) -> int:
    """Parameters of the printed layers with `outputs` classes in place of the printed ones."""
    total = 0
    for layer in table:
        if layer.kind in ("Conv", "Conv dw"):
            total += layer.repeats * (math.prod(layer.filter) + NORMALISATION * layer.filter[-1])
        elif layer.kind == "FC":
            total += (layer.filter[0] + 1) * outputs
    return total


def mobilenet_v2_parameters(*, outputs: int) -> int:
    """Parameters of MobileNetV2 at width 1.0 with `outputs` classes."""
    total = _convolution(3 * 3 * 3, STEM) + _convolution(MOBILENET_V2[-1].channels, LAST) + (LAST + 1) * outputs
    for row in MOBILENET_V2:
        entering = row.input[1]
        for _ in range(row.repeats):
            hidden = entering * row.expansion
            if row.expansion > 1:
                total += _convolution(entering, hidden)
            total += _convolution(3 * 3, hidden) + _convolution(hidden, row.channels)
            entering = row.channels
    return total


def misfits(table: Sequence[Layer]) -> Iterator[str]:
    """Each place where a printed layer does not put out the shape that the next printed layer takes in, in words."""
    for place, (layer, following) in enumerate(pairwise(table), start=1):
        if output(layer) != following.input:
            out, taken = _shape(output(layer)), _shape(following.input)
            yield f"row {place} ({layer.kind}) puts out {out}, row {place + 1} takes in {taken}"


def output(layer: Layer) -> tuple[int, int, int]:
    """Height, width and channels that a printed layer puts out, padding as in TensorFlow's `same`."""
    height, width, channels = layer.input
    match layer.kind:
        case "Conv" | "Conv dw":
            return math.ceil(height / layer.stride), math.ceil(width / layer.stride), layer.filter[-1]
        case "Avg Pool":
            return height - layer.filter[0] + 1, width - layer.filter[1] + 1, channels
        case "FC":
            return 1, 1, layer.filter[-1]
        case _:
            return layer.input


def _convolution(weights_per_output: int, outputs: int) -> int:
    return (weights_per_output + NORMALISATION) * outputs


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
