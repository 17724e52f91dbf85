"""A network of a few kilobytes that keeps the bundle's contract, and a card for it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from retigrade.bundle import reseal
from retigrade.fundus.field import FIELD_VERSION
from retigrade.fundus.quality import QualityLimits
from retigrade.metadata import Figure, Metadata, Training
from retigrade.metrics.decision import Decision, OperatingPoint
from retigrade.metrics.estimate import Estimate

SIZE, CELLS, CHANNELS = 64, 4, 6


def tiny_model(
    *,
    size: int = SIZE,
    grades: int = 5,
    photo: str = "photo",
    kind: int = TensorProto.UINT8,
    batch: str | int = "N",
    logits: str = "logits",
    square: bool = True,
    honest_maps: bool = True,
    gain: float = 1.0,
) -> bytes:
    """ONNX bytes: each cell's mean colour through two 1x1 layers; the arguments break the contract one at a time."""
    rng = np.random.default_rng(7)
    stride = size // CELLS
    strides = [stride, stride if square else stride // 2]
    constants = {
        "first": rng.normal(size=(CHANNELS, 3, 1, 1)),
        "second": gain * rng.normal(size=(grades, CHANNELS, 1, 1)),
        "white": np.array(255.0),
        "shift": np.array(0.0 if honest_maps else 0.5),
    }
    nodes = [
        helper.make_node("Cast", [photo], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "white"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["channels_first"], ["cells"], kernel_shape=strides, strides=strides),
        helper.make_node("Conv", ["cells", "first"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["true_maps"]),
        helper.make_node("ReduceMean", ["true_maps"], [logits], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["active"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["true_maps", "shift"], ["maps"]),
    ]
    columns = size // strides[1]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(photo, kind, [batch, size, size, 3])],
        [
            helper.make_tensor_value_info(logits, TensorProto.FLOAT, [batch, grades]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, [batch, grades, CELLS, columns]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, CHANNELS]),
        ],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_card(**changes: Any) -> Metadata:
    """A valid card for `tiny_model()`, with these keys changed."""
    point = Estimate(value=0.95, low=0.93, high=0.97)
    values = {
        "schema_version": 4,
        "name": "tiny",
        "created": date(2024, 5, 1),
        "backbone": "tiny",
        "input_size": SIZE,
        "field_version": FIELD_VERSION,
        "temperature": 1.5,
        "decision": Decision(rule="median", cuts=(0.5, 1.5, 2.5, 3.5)),
        "referable_threshold": 0.4,
        "operating_points": {"screening": OperatingPoint(threshold=0.2, sensitivity=point, specificity=point)},
        "conformal": None,
        "second_reader_spread": 4.0,
        "retest_noise": None,
        "out_of_distribution": None,
        "quality": QualityLimits(),
        "cam_maximum": 2.0,
        "receptive_field_offset": (0.5, 0.5),
        "training": Training(
            photos=10,
            grades=(5, 1, 2, 1, 1),
            sources={"drawn": 10},
            fingerprint="0" * 64,
            splits="1" * 64,
            annotated=(),
            photo_hashes="",
            epochs=1,
            protocol="none",
        ),
        "figures": (
            Figure(
                set="drawn",
                photos=10,
                graded=10,
                metric="quadratic_kappa",
                estimate=Estimate(value=0.5, low=0.1, high=0.9),
            ),
        ),
        "licence": "Apache-2.0",
        "intended_use": "Tests.",
        "limits": "Learned nothing.",
        "starting_weights": "none",
    }
    return Metadata(**{**values, **changes})


def write_tiny_bundle(path: Path, **changes: Any) -> Path:
    """Write a bundle of `tiny_model()` and `tiny_card(**changes)`, and return its path."""
    path.write_bytes(reseal(tiny_model(), tiny_card(**changes)))
    return path
