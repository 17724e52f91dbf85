"""Several bundles as one: their networks side by side in one file, calibrated and measured anew.

The ensemble answers with the mean of the members' maps and logits, each member's divided by its own temperature first,
so that a member that is too sure of itself does not outvote the others. The mean of maps still averages to the mean of
logits, so the heatmap stays exact.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from retigrade.bundle import Bundle, read_metadata, reseal, strip
from retigrade.data.cache import prepared
from retigrade.data.duplicates import find_duplicates
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.splits import TEST, VALIDATION, Splits, check_unseen, divide, narrow, read_splits, write_splits
from retigrade.errors import BundleError, DataError, UsageError, needs_extra
from retigrade.evaluation.evaluate import illustrate_worst, write_report
from retigrade.evaluation.measure import measure
from retigrade.evaluation.predictions import LabelledSet, predict_labelled
from retigrade.evaluation.result import EvaluationResult
from retigrade.files import make_folder, write_whole
from retigrade.fundus.quality import QualityLimits
from retigrade.grader import Grader
from retigrade.metadata import Metadata, Training
from retigrade.training.describe import UNSTATED, calibration
from retigrade.training.export import run_model
from retigrade.training.out_of_distribution import fit_out_of_distribution

FEWEST = 20
"""Photographs that no member learned from, below which there is nothing to calibrate and measure on."""
_SPLITS = "splits.json"


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """An ensemble: its file, and its evaluation beside those of its members on the same photographs, by identity."""

    path: Path
    result: EvaluationResult
    members: dict[str, EvaluationResult]


def ensemble(
    bundles: Sequence[Path | str],
    data: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    report: Path | str | None = None,
    splits: Path | str | None = None,
    name: str | None = None,
    seed: int = 1,
    skip_unreadable: bool = False,
) -> Combined:
    """Combine bundles into one, calibrate it on some labelled photographs and measure it on others.

    bundles: files of two or more, of one input size. data: labelled folders or CSV files. out: the new bundle's file.
    report: a folder for its evaluation and the split, None writes none. splits: a split of the photographs, whose parts
    `validation` and `test` are used; None halves, at random and by patient and duplicate, those photographs that no
    member learned from. name: the new bundle's. seed: of the halving. skip_unreadable: leave unusable photographs out.

    Raises UsageError below two bundles or where the extra `train` is missing, BundleError where one cannot be used or
    they do not fit together, DataError where too few photographs are left.
    """
    if len(bundles) < 2:
        raise UsageError(f"an ensemble needs at least two bundles, got {len(bundles)}")
    paths = [Path(bundle) for bundle in bundles]
    members = [Bundle.load(path) for path in paths]
    metadata = [member.metadata for member in members]
    _check_fit(paths, metadata)
    with needs_extra("train"):
        model = merge([path.read_bytes() for path in paths])
    size = metadata[0].input_size
    manifest = read_manifest(data, size=size, skip_unreadable=skip_unreadable)
    if splits is not None:
        manifest = narrow(manifest, Path(splits))
    manifest, parts = _parts(manifest, metadata, None if splits is None else Path(splits), seed=seed)
    if report is not None:
        make_folder(Path(report))
        write_splits(parts, Path(report) / _SPLITS, manifest)
    calibrate, tested = parts.part(VALIDATION), parts.part(TEST)
    with tempfile.TemporaryDirectory() as folder:
        outputs = run_model(model, prepared(manifest, size=size, folder=Path(folder)), calibrate)
    first = metadata[0]
    fresh = first.model_copy(
        update={
            "name": name or ("ensemble-of-" + "-".join(dict.fromkeys(each.name for each in metadata)))[:80],
            "created": datetime.now(UTC).date(),
            "backbone": ", ".join(dict.fromkeys(each.backbone for each in metadata)),
            "training": _training(metadata, calibrate=len(calibrate), test=len(tested)),
            "licence": "; ".join(dict.fromkeys(each.licence for each in metadata)),
            "intended_use": first.intended_use if len({each.intended_use for each in metadata}) == 1 else UNSTATED,
            "starting_weights": "; ".join(dict.fromkeys(each.starting_weights for each in metadata)),
            "receptive_field_offset": _mean_offset(metadata),
            # Each member's detector is of its own features alone, so half of the calibration photographs make another.
            "out_of_distribution": fit_out_of_distribution(outputs.features[::2], outputs.features[1::2]),
            # So is its quality head, without which the gate decides alone.
            "quality_head": None,
            "quality": first.quality if first.quality_head is None else QualityLimits.stated(),
            "retest_noise": None,
            "figures": (),
            **calibration(outputs, manifest, calibrate, duplicates=parts.groups),
        }
    )
    grader = Grader(Bundle.from_bytes(reseal(model, fresh)))
    labelled = LabelledSet.of(manifest, parts, part=TEST)
    predictions = predict_labelled(grader, labelled)
    result = measure(predictions, grader, manifest=manifest, part=TEST)
    write_whole(Path(out), reseal(model, fresh.model_copy(update={"figures": result.stored_figures()})))
    if report is not None:
        write_report(Path(report), predictions, result, examples=illustrate_worst(predictions, grader))
    alone = {}
    for member in members:
        own = Grader(member)
        alone[member.identity] = measure(predict_labelled(own, labelled), own, manifest=manifest, part=TEST)
    return Combined(Path(out), result, alone)


def merge(bundles: Sequence[bytes]) -> bytes:
    """The networks of several bundles as one ONNX model: mean logits and maps, features side by side.

    Raises BundleError where their maps are of different sizes that do not divide each other.
    """
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper, version_converter

    graphs, extra, weights = [], [], []
    inputs: dict[str, list[str]] = {"logits": [], "maps": [], "features": []}
    opset, cells = 0, []
    metadata = [read_metadata(data) for data in bundles]
    for data in bundles:
        member = onnx.load_model_from_string(strip(data))
        opset = max([opset, *(each.version for each in member.opset_import if each.domain in ("", "ai.onnx"))])
        maps = next(output for output in member.graph.output if output.name == "maps")
        cells.append(maps.type.tensor_type.shape.dim[-1].dim_value)
    finest = max(cells)
    if any(finest % side for side in cells):
        raise BundleError(
            f"the members' maps have {', '.join(map(str, cells))} cells a side; one must divide the others"
        )
    for number, (data, side) in enumerate(zip(bundles, cells, strict=True)):
        member = onnx.load_model_from_string(strip(data))
        if any(each.version != opset for each in member.opset_import if each.domain in ("", "ai.onnx")):
            member = version_converter.convert_version(member, opset)
        prefix = f"member{number}."
        graph = compose.add_prefix_graph(member.graph, prefix)
        graphs.append(graph)
        scale = 1.0 / (metadata[number].temperature * len(bundles))
        weights.append(numpy_helper.from_array(np.array(scale, np.float32), f"{prefix}share"))
        for name in ("logits", "maps"):
            extra.append(helper.make_node("Mul", [f"{prefix}{name}", f"{prefix}share"], [f"{prefix}{name}.scaled"]))
            inputs[name].append(f"{prefix}{name}.scaled")
        if side != finest:  # repeating each cell keeps the mean
            weights.append(
                numpy_helper.from_array(np.array([1, 1, finest / side, finest / side], np.float32), f"{prefix}times")
            )
            extra.append(
                helper.make_node(
                    "Resize", [inputs["maps"][-1], "", f"{prefix}times"], [f"{prefix}maps.fine"], mode="nearest",
                    coordinate_transformation_mode="asymmetric", nearest_mode="floor",
                )
            )  # fmt: skip
            inputs["maps"][-1] = f"{prefix}maps.fine"
        inputs["features"].append(f"{prefix}features")
    channels = 0
    for graph in graphs:
        for node in graph.node:  # one photo for all
            for place, name in enumerate(node.input):
                if name == graph.input[0].name:
                    node.input[place] = "photo"
        features = next(output for output in graph.output if output.name.endswith("features"))
        channels += features.type.tensor_type.shape.dim[-1].dim_value
    shape = graphs[0].input[0].type.tensor_type.shape
    side = shape.dim[1].dim_value
    extra += [
        helper.make_node("Sum", inputs["logits"], ["logits"]),
        helper.make_node("Sum", inputs["maps"], ["maps"]),
        helper.make_node("Concat", inputs["features"], ["features"], axis=1),
    ]
    graph = helper.make_graph(
        [*(node for graph in graphs for node in graph.node), *extra],
        "ensemble",
        [helper.make_tensor_value_info("photo", TensorProto.UINT8, ["N", side, side, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 5, finest, finest]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", channels]),
        ],
        [*(value for graph in graphs for value in graph.initializer), *weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _check_fit(paths: Sequence[Path], metadata: Sequence[Metadata]) -> None:
    sizes = {each.input_size for each in metadata}
    if len(sizes) > 1:
        listed = ", ".join(f"{path.name} {each.input_size}" for path, each in zip(paths, metadata, strict=True))
        raise BundleError(f"the bundles take photos of different sizes ({listed} pixels); train them with one --size")


def _parts(
    manifest: Manifest, metadata: Sequence[Metadata], splits: Path | None, *, seed: int
) -> tuple[Manifest, Splits]:
    """The photographs to calibrate and to measure on: by a split file, or halves of what no member learned from."""
    if splits is not None:
        parts = read_splits(splits, manifest)
        if missing := {VALIDATION, TEST} - set(parts.names):
            raise UsageError(f"{splits} has no part {min(missing)!r}; there are: {', '.join(parts.names)}")
        for each in metadata:
            check_unseen(manifest, parts, [VALIDATION, TEST], each.training)
        return manifest, parts
    silent = [each.name for each in metadata if not each.training.photo_hashes]
    if silent:
        raise DataError(f"{silent[0]} does not say which photographs it learned from; give a split with --splits")
    trained = [each.training for each in metadata]
    entries = tuple(entry for entry in manifest.entries if not any(each.has_seen(entry.sha256) for each in trained))
    if len(entries) < FEWEST:
        raise DataError(
            f"{len(entries)} of {len(manifest)} photographs are new to all members, and {FEWEST} are needed to "
            "calibrate and measure on; add some"
        )
    unseen = Manifest(entries, manifest.unreadable, manifest.unusable, manifest.notes)
    return unseen, divide(unseen, find_duplicates(unseen.paths), shares={VALIDATION: 0.5, TEST: 0.5}, seed=seed)


def _training(metadata: Sequence[Metadata], *, calibrate: int, test: int) -> Training:
    """What the members learned from together; photographs of members that learned from others are added up."""
    different = list({each.training.photo_hashes: each.training for each in metadata}.values())
    none, mild, moderate, severe, proliferative = np.sum([each.grades for each in different], axis=0).tolist()
    sources: Counter[str] = Counter()
    for each in different:
        sources.update(each.sources)
    whole = [each.photo_hashes for each in different]
    hashes = sorted({text[start : start + 8] for text in whole for start in range(0, len(text), 8)})
    several = f"; photographs of {len(different)} sets of them added up" if len(different) > 1 else ""
    return Training(
        photos=sum(each.photos for each in different),
        grades=(none, mild, moderate, severe, proliferative),
        sources=dict(sorted(sources.items())),
        fingerprint=_together(each.fingerprint for each in different),
        splits=_together(each.splits for each in different),
        annotated=tuple(sorted({digest for each in different for digest in each.annotated})),
        photo_hashes="".join(hashes) if all(whole) else "",
        epochs=max(each.epochs for each in different),
        protocol=f"an ensemble of {len(metadata)} bundles, {', '.join(each.name for each in metadata)}{several}; "
        f"calibrated and decided on {calibrate} photographs, measured on {test} others, none of them learned from",
    )


def _together(digests: Iterable[str]) -> str:
    """One digest of several: the one that all are, or that of all."""
    different = sorted(set(digests))
    return different[0] if len(different) == 1 else hashlib.sha256("".join(different).encode()).hexdigest()


def _mean_offset(metadata: Sequence[Metadata]) -> tuple[float, float]:
    across, down = np.mean([each.receptive_field_offset for each in metadata], axis=0).tolist()
    return across, down
