"""The audit of the publication's networks: the layers of Table 2, their parameters, and their standing on ImageNet."""

from __future__ import annotations

from collections.abc import Iterator

from retigrade.paper.finding import Finding, verdict
from retigrade.paper.layers import misfits, mobilenet_v2_parameters, printed_parameters
from retigrade.paper.printed import CLAIMS, STAGES, TABLE_2

IMAGENET_TOP_1 = {"MobileNetV2": 71.3, "VGG-16": 71.3, "ResNet50V2": 76.0}
"""Per cent, from the table of keras.io/api/applications, whose weights the publication used."""


def on_networks() -> Iterator[Finding]:
    """Findings on the layers and their standing (section 2.3, Table 2)."""
    five, thousand = (printed_parameters(TABLE_2, outputs=n) for n in (len(STAGES), 1000))
    real_five, real_thousand = (mobilenet_v2_parameters(outputs=n) for n in (len(STAGES), 1000))
    widest = max(layer.filter[-1] for layer in TABLE_2 if layer.kind == "Conv")
    yield Finding(
        "architecture",
        "the layers of MobileNetV2",
        "Table 2",
        f"{thousand:,} parameters with 1,000 classes, {widest:,} channels at the end, no bottleneck; MobileNetV2 has "
        f"{real_thousand:,} and 1,280",
        verdict(thousand == real_thousand),
        "Weights of the printed layers added: they are MobileNetV1 (Howard et al. 2017, Table 1).",
    )
    counts = {
        "MobileNetV1, 5 classes": five,
        "MobileNetV1, 1,000 classes": thousand,
        "MobileNetV2, 5 classes": real_five,
        "MobileNetV2, 1,000 classes": real_thousand,
    }
    nearest = min(counts, key=lambda name: abs(counts[name] - CLAIMS.parameters))
    yield Finding(
        "parameters",
        f"MobileNetV2 has {CLAIMS.parameters / 1e6:.1f} million parameters and ends in "
        f"{' x '.join(map(str, CLAIMS.feature_map))}",
        "section 2.3",
        "; ".join(f"{name}: {n / 1e6:.2f} million" for name, n in counts.items()) + f"; nearest: {nearest}",
        verdict(any(abs(n - CLAIMS.parameters) <= 0.05e6 for n in (real_five, real_thousand))),
        "Parameters of both networks counted from their tables; MobileNetV2 ends in 7 x 7 x 1280. A hidden layer that "
        "is not described could explain the difference, and so could a MobileNetV1.",
    )
    faults = list(misfits(TABLE_2))
    outputs = next(layer.filter[-1] for layer in TABLE_2 if layer.kind == "FC")
    yield Finding(
        "shapes",
        "layers that follow from each other, into five stages",
        "Table 2",
        "; ".join([*faults, f"the last layer has {outputs:,} outputs for {len(STAGES)} stages"]),
        verdict(not faults and outputs == len(STAGES)),
        "Each layer's output computed from its input, filter and stride, and held against the next row. The first "
        "misfit stands in the table's source too.",
    )
    best = max(IMAGENET_TOP_1, key=lambda network: IMAGENET_TOP_1[network])
    yield Finding(
        "imagenet",
        f"{CLAIMS.ranking_on_imagenet[0]} gets the best results on ImageNet",
        "section 2.3",
        ", ".join(f"{network} {top:.1f} %" for network, top in IMAGENET_TOP_1.items()),
        verdict(best == CLAIMS.ranking_on_imagenet[0]),
        "Top-1 accuracies that Keras publishes for the weights used.",
    )
