"""The publication's Tables 1 to 3, beside the photographs, the networks and the training of this experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from retigrade.icdr import GRADES
from retigrade.paper.audit import MOBILENET_V2_PARAMETERS, PRINTED_PARAMETERS, PUBLIC_TRAINING, audit
from retigrade.paper.config import Protocol, TrainingRun, printed_name, recipe_for
from retigrade.paper.experiment import Experiment, Results
from retigrade.paper.printed import CLAIMS, NETWORKS, STAGES, TABLE_1, TABLE_2, TABLE_3, Layer
from retigrade.report.document import Cell, Table
from retigrade.training.recipe import Recipe

_STEM, _LAST = 32, 1280
_BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Sandler et al. 2018 (arXiv 1801.04381), Table 2: expansion, channels, repeats, stride of the first."""


def difference(measured: float, printed: float | None) -> str | None:
    """Measured less printed, with its sign; None where either is not defined."""
    if printed is None or math.isnan(measured - printed):
        return None
    value = measured - printed
    return f"{value:+,d}" if isinstance(value, int) else f"{value:+.3f}"


def data_table(experiment: Experiment) -> Table:
    """Table 1: photographs of each stage."""
    own = np.bincount(experiment.manifest.grades, minlength=len(GRADES)).tolist()
    columns = (TABLE_1.training, TABLE_1.validation, TABLE_1.testing, TABLE_1.total, PUBLIC_TRAINING, own)
    rows = [*zip(STAGES, *columns, strict=True), ("all", *map(sum, columns))]
    printed = (f"printed: {part}" for part in ("training", "validation", "testing", "total"))
    return Table(
        ("stage", *printed, "public train.csv", "here", "here less printed total"),
        tuple((*row, f"{row[-1] - row[-3]:+,d}") for row in rows),
        key="table_1",
        title="Table 1: the photographs",
        note="The printed training column is the whole of the public train.csv, the only part of APTOS 2019 with "
        "published grades. Where the grades of the other printed photographs came from is not stated.",
    )


def parts_table(experiment: Experiment, results: Results) -> Table:
    """How many photographs each fold learns from and is evaluated on, and what the two share."""
    folds = {(fold.protocol, fold.run.fold): fold for key in results for fold in results[key]}
    rows: list[tuple[Cell, ...]] = []
    for (protocol, number), result in folds.items():
        trained_on, twins = result.seen(experiment.groups)
        apart = len(experiment.fold(result.run).validation) if protocol is Protocol.HONEST else 0
        counts = (len(result.learned), apart, len(result.indices), int(trained_on.sum()), int(twins.sum()))
        rows.append((protocol, number, *counts))
    duplicates = experiment.duplicates
    return Table(
        (
            *("protocol", "fold", "trained on", "only to choose the epoch", "evaluated on", "of these trained on"),
            "of these a duplicate, or the patient, trained on",
        ),
        tuple(rows),
        key="parts",
        title="Who learns from what",
        note=f"Duplicates were found by their vessels: {len(duplicates)} groups of {sum(map(len, duplicates))} "
        "photographs. An honest fold shares nothing.",
    )


def layers_table() -> Table:
    """Table 2: the printed layers beside MobileNetV2's."""
    real = list(_real_layers())
    printed = [(_kind(layer), _filter(layer), _shape(layer.input)) for layer in TABLE_2]
    return Table(
        ("row", "printed", "printed: filter", "printed: input", "MobileNetV2", "filter", "input"),
        tuple((row, *left, *right) for row, (left, right) in enumerate(zip(printed, real, strict=True), start=1)),
        key="table_2",
        title="Table 2: the layers printed as MobileNetV2, and those of MobileNetV2",
        note="What was printed is MobileNetV1 (Howard et al. 2017), depthwise and pointwise convolutions without "
        "bottlenecks. MobileNetV2 (Sandler et al. 2018) is inverted residuals: a pointwise expansion, a depthwise "
        "convolution, and a pointwise bottleneck without activation, added to its input where stride and channels "
        "allow; their three widths stand under filter.",
    )


def networks_table(experiment: Experiment) -> Table:
    """Parameters and last feature maps of the networks run, beside what was printed of MobileNetV2."""
    rows: list[tuple[Cell, ...]] = []
    for network in experiment.networks.values():
        channels, height, width = network.feature_map
        name, claimed = printed_name(network.network), round(CLAIMS.parameters)
        beside: tuple[Cell, ...] = (claimed, network.parameters, difference(network.parameters, claimed))
        if name != NETWORKS[0]:
            beside = (None, network.parameters, None)
        claimed_map = _shape(CLAIMS.feature_map) if name == NETWORKS[0] else None
        rows.append((name, *beside, claimed_map, _shape((height, width, channels)), network.start))
    return Table(
        (
            *("network", "printed: parameters", "here: learned parameters", "difference", "printed: last map"),
            *("here: last map", "start"),
        ),
        tuple(rows),
        key="networks",
        title="The networks",
        note="Each ends in global average pooling and one linear layer for five stages. With their running means, as "
        f"Keras counts, MobileNetV2 has {MOBILENET_V2_PARAMETERS:,} and the printed layers with five classes "
        f"{PRINTED_PARAMETERS:,}.",
    )


def training_table(experiment: Experiment) -> Table:
    """Table 3: how the networks are trained."""
    config = experiment.config
    headings = ["parameter"]
    rows = [[row.name] for row in TABLE_3]
    rows += [[name] for name in ("Shift", "Rotation", "Zoom", "Vertical flipping", "Classes", "Start")]
    for network, epochs in zip(config.networks, config.epochs, strict=True):
        name, described = printed_name(network), experiment.networks[network]
        run = TrainingRun(
            protocol=Protocol.PUBLISHED, preparation=config.preparations[0], network=network, fold=1, epochs=epochs
        )
        here = (*_training(recipe_for(run, size=config.size), described.input), described.start)
        printed = [row.values[NETWORKS.index(name)] if name in NETWORKS else "" for row in TABLE_3]
        headings += [f"{name}: printed", f"{name}: here"]
        for row, left, right in zip(rows, printed + [""] * (len(here) - len(printed)), here, strict=True):
            row += [left, right]
    return Table(
        tuple(headings),
        tuple(map(tuple, rows)),
        key="table_3",
        title="Table 3: the training",
        note="An empty cell is not stated; the text names shifting, rotating and zooming without figures. ImageNet "
        "weights expect the scaling that they were made with, so that is used in place of 1/255 alone.",
    )


def audit_table() -> Table:
    """Every claim put to the test by the publication's own printed numbers and by public facts."""
    return Table(
        ("claim", "where", "verdict", "computed", "how"),
        tuple((finding.claim, finding.where, finding.conclusion, finding.computed, finding.how) for finding in audit()),
        key="arithmetic",
    )


def _training(recipe: Recipe, scaling: str) -> tuple[str, ...]:
    """One value for each row of the printed table, then the augmentation."""
    augmentation = recipe.augmentation
    return (
        f"{recipe.size} x {recipe.size} x 3",
        str(recipe.batch),
        f"{recipe.lr:.0e}".replace("e-0", "e-"),
        recipe.optimizer.capitalize(),
        "Cross Entropy",
        str(recipe.epochs),
        scaling,
        _flipped(augmentation.horizontal_flip),
        f"{augmentation.shift:.0%} of the side, either way",
        f"{augmentation.rotate:g} degrees, either way",
        f"{augmentation.zoom:.0%}, either way",
        _flipped(augmentation.vertical_flip),
        "drawn equally often, each time augmented anew" if recipe.class_balance == 1 else "as they are",
    )


def _flipped(share: float) -> str:
    return f"Yes, {share:.0%}" if share else "No"


def _real_layers() -> Iterator[tuple[str, str, str]]:
    yield "Conv / s2", f"3 x 3 x 3 x {_STEM}", _shape((224, 224, 3))
    side, entering = 112, _STEM
    for expansion, channels, repeats, first in _BOTTLENECKS:
        for number in range(repeats):
            stride = 1 if number else first
            widths = f"{entering} > {entering * expansion} > {channels}"
            yield f"Bottleneck / s{stride}", widths, _shape((side, side, entering))
            side, entering = math.ceil(side / stride), channels
    yield "Conv / s1", f"1 x 1 x {entering} x {_LAST}", _shape((side, side, entering))
    yield "Avg Pool / s1", f"Pool {side} x {side}", _shape((side, side, _LAST))
    yield "FC / s1", f"{_LAST} x {len(STAGES)}", _shape((1, 1, _LAST))
    yield "Softmax / s1", "Classifier", _shape((1, 1, len(STAGES)))


def _kind(layer: Layer) -> str:
    return f"{f'{layer.repeats}x ' if layer.repeats > 1 else ''}{layer.kind} / s{layer.stride}"


def _filter(layer: Layer) -> str:
    before, after = {"Conv dw": ("", " dw"), "Avg Pool": ("Pool ", ""), "Softmax": ("Classifier", "")}.get(
        layer.kind, ("", "")
    )
    return f"{before}{_shape(layer.filter)}{after}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
