"""The publication's Tables 1 to 3, beside the photographs, the networks and the training that this run has."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from retigrade.arrays import Integers
from retigrade.data.groups import Groups
from retigrade.icdr import GRADES
from retigrade.paper.audit_data import PUBLIC_TRAINING
from retigrade.paper.document import Cell, Table
from retigrade.paper.layers import LAST, MOBILENET_V2, STEM, mobilenet_v2_parameters, printed_parameters
from retigrade.paper.printed import CLAIMS, NETWORKS, STAGES, TABLE_1, TABLE_2, TABLE_3, Layer
from retigrade.paper.protocols import leaking
from retigrade.paper.settings import Job, Protocol, printed_name, recipe_of
from retigrade.paper.study import Study
from retigrade.training.recipe import Recipe


def difference(measured: float, printed: float) -> str | None:
    """Measured less printed, with its sign; None where either is not defined."""
    value = measured - printed
    if math.isnan(value):
        return None
    return f"{value:+,d}" if isinstance(value, int) else f"{value:+.3f}"


def data_table(study: Study) -> Table:
    """Table 1: photographs of each stage."""
    own = np.bincount(study.manifest.grades, minlength=len(GRADES)).tolist()
    columns = (TABLE_1.training, TABLE_1.validation, TABLE_1.testing, TABLE_1.total, PUBLIC_TRAINING)
    rows = [(stage, *printed, mine) for stage, *printed, mine in zip(STAGES, *columns, own, strict=True)]
    rows.append(("all", *(sum(column) for column in columns), sum(own)))
    return Table(
        "table_1",
        "Table 1: the photographs",
        (
            "stage",
            "printed: training",
            "printed: validation",
            "printed: testing",
            "printed: total",
            "public train.csv",
            "here",
            "here less printed total",
        ),
        tuple((*row, f"{row[-1] - row[-3]:+,d}") for row in rows),
        "The printed training column is the whole of the public train.csv, the only part of APTOS 2019 with published "
        "grades. Where the grades of the other printed photographs came from is not told.",
    )


def parts_table(study: Study) -> Table:
    """How many photographs each fold learns from and is judged on, and what the two share."""
    rows: list[tuple[Cell, ...]] = []
    for protocol in study.settings.protocols:
        for fold, job in {job.fold: job for job in study.finished if job.protocol is protocol.trained}.items():
            parts = study.parts(job)
            overlapping = protocol is Protocol.LEAKING
            judged = leaking(parts, seed=study.settings.seed + fold) if overlapping else parts.test
            both, twins = seen(judged, parts.train, study.units)
            chosen = len(parts.validation) if protocol is Protocol.HONEST else 0
            rows.append((protocol, fold, len(parts.train), chosen, len(judged), int(both.sum()), int(twins.sum())))
    return Table(
        "parts",
        "Who learns from what",
        (
            "protocol",
            "fold",
            "trained on",
            "only to choose the epoch",
            "judged on",
            "of these trained on",
            "of these a duplicate, or the patient, trained on",
        ),
        tuple(rows),
        f"Duplicates were found by their vessels: {_tally(study.groups)}. An honest fold shares nothing.",
    )


def seen(judged: Integers, learned: Integers, units: Integers) -> tuple[np.typing.NDArray[np.bool_], ...]:
    """Which of the judged photographs were learned from, and of which others a duplicate or the patient was."""
    both = np.isin(judged, learned)
    return both, np.isin(units[judged], units[learned]) & ~both


def layers_table() -> Table:
    """Table 2: the printed layers beside MobileNetV2's."""
    real = list(_real_layers())
    printed = [(_kind(layer), _filter(layer), _shape(layer.input)) for layer in TABLE_2]
    rows = []
    for place in range(max(len(real), len(printed))):
        left = printed[place] if place < len(printed) else ("", "", "")
        right = real[place] if place < len(real) else ("", "", "")
        rows.append((place + 1, *left, *right))
    return Table(
        "table_2",
        "Table 2: the layers printed as MobileNetV2, and those of MobileNetV2",
        ("row", "printed", "printed: filter", "printed: input", "MobileNetV2", "filter", "input"),
        tuple(rows),
        "What was printed is MobileNetV1 (Howard et al. 2017), depthwise and pointwise convolutions without "
        "bottlenecks. MobileNetV2 (Sandler et al. 2018) is inverted residuals: a pointwise expansion, a depthwise "
        "convolution, and a pointwise bottleneck without activation, added to its input where stride and channels "
        "allow; their three widths stand under filter.",
    )


def networks_table(study: Study) -> Table:
    """Parameters and last feature maps of the networks run, beside what was printed of MobileNetV2."""
    rows: list[tuple[Cell, ...]] = []
    for one in study.contestants.values():
        printed = printed_name(one.network) == NETWORKS[0]
        rows.append(
            (
                printed_name(one.network),
                round(CLAIMS.parameters) if printed else None,
                one.parameters,
                f"{one.parameters - round(CLAIMS.parameters):+,d}" if printed else None,
                _shape(CLAIMS.feature_map) if printed else None,
                _shape((*one.map[1:], one.map[0])),
                one.start,
            )
        )
    five = len(STAGES)
    return Table(
        "networks",
        "The networks",
        (
            "network",
            "printed: parameters",
            "here: learned parameters",
            "difference",
            "printed: last map",
            "here: last map",
            "start",
        ),
        tuple(rows),
        "Each ends in global average pooling and one linear layer for five stages. With their running means, as Keras "
        f"counts, MobileNetV2 has {mobilenet_v2_parameters(outputs=five):,} and the printed layers with five classes "
        f"{printed_parameters(TABLE_2, outputs=five):,}.",
    )


def training_table(study: Study) -> Table:
    """Table 3: how the networks are trained."""
    columns, rows = ["parameter"], [[row.name] for row in TABLE_3]
    extra = [[name] for name in ("Shift", "Rotation", "Zoom", "Vertical flipping", "Classes", "Start")]
    for network, epochs in zip(study.settings.networks, study.settings.epochs, strict=True):
        name = printed_name(network)
        place = NETWORKS.index(name) if name in NETWORKS else None
        job = Job(
            protocol=Protocol.PUBLISHED,
            preparation=study.settings.preparations[0],
            network=network,
            fold=1,
            epochs=epochs,
        )
        recipe = recipe_of(job, size=study.settings.size)
        columns += [f"{name}: printed", f"{name}: here"]
        ours = _training(recipe, study.contestants[network].input)
        for row, printed, mine in zip(rows, TABLE_3, ours, strict=True):
            row += ["" if place is None else printed.values[place], mine]
        for row, mine in zip(extra, (*_augmentation(recipe), study.contestants[network].start), strict=True):
            row += ["", mine]
    return Table(
        "table_3",
        "Table 3: the training",
        tuple(columns),
        tuple(map(tuple, rows + extra)),
        "An empty cell is not stated; the text names shifting, rotating and zooming without figures. ImageNet weights "
        "expect the scaling that they were made with, so that is used in place of 1/255 alone.",
    )


def _training(recipe: Recipe, scaling: str) -> tuple[str, ...]:
    """One value for each row of the printed table."""
    return (
        f"{recipe.size} x {recipe.size} x 3",
        str(recipe.batch),
        f"{recipe.lr:.0e}".replace("e-0", "e-"),
        recipe.optimizer.capitalize(),
        "Cross Entropy",
        str(recipe.epochs),
        scaling,
        _flipped(recipe.augmentation.horizontal_flip),
    )


def _augmentation(recipe: Recipe) -> tuple[str, ...]:
    augmentation = recipe.augmentation
    return (
        f"{augmentation.shift:.0%} of the side, either way",
        f"{augmentation.rotate:g} degrees, either way",
        f"{augmentation.zoom:.0%}, either way",
        _flipped(augmentation.vertical_flip),
        "drawn equally often, each time augmented anew" if recipe.class_balance == 1 else "as they are",
    )


def _flipped(share: float) -> str:
    return f"Yes, {share:.0%}" if share else "No"


def _real_layers() -> Iterator[tuple[str, str, str]]:
    yield "Conv / s2", f"3 x 3 x 3 x {STEM}", _shape((224, 224, 3))
    for row in MOBILENET_V2:
        side, entering = row.input
        for number in range(row.repeats):
            stride = row.stride if number == 0 else 1
            hidden = entering * row.expansion
            yield f"Bottleneck / s{stride}", f"{entering} > {hidden} > {row.channels}", _shape((side, side, entering))
            side, entering = math.ceil(side / stride), row.channels
    yield "Conv / s1", f"1 x 1 x {entering} x {LAST}", _shape((side, side, entering))
    yield "Avg Pool / s1", f"Pool {side} x {side}", _shape((side, side, LAST))
    yield "FC / s1", f"{LAST} x {len(STAGES)}", _shape((1, 1, LAST))
    yield "Softmax / s1", "Classifier", _shape((1, 1, len(STAGES)))


def _kind(layer: Layer) -> str:
    times = f"{layer.repeats}x " if layer.repeats > 1 else ""
    return f"{times}{layer.kind} / s{layer.stride}"


def _filter(layer: Layer) -> str:
    match layer.kind:
        case "Conv dw":
            return f"{_shape(layer.filter)} dw"
        case "Avg Pool":
            return f"Pool {_shape(layer.filter)}"
        case "Softmax":
            return "Classifier"
        case _:
            return _shape(layer.filter)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _tally(groups: Groups) -> str:
    return f"{len(groups)} groups of {sum(map(len, groups))} photographs"
