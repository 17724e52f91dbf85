"""A network as ONNX in eight bits: its weights and activations as int8.

Static quantization by ONNX Runtime (QuantizeLinear and DequantizeLinear in the graph, weights by channel in seven bits,
which no processor's eight-bit products overflow). The head stays in floating point: maps must average to the logits. So
do the first convolutions, whose few channels take seven bits badly. What is then still off in the logits, on average
over the photographs that calibrate, is taken out of the head's bias (Nagel et al., ICCV 2019).
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from retigrade.arrays import Floats, Pixels

_FLOATING = 0.2  # of the convolutions, those at the start
_KINDS = ("Conv", "Add", "Clip", "Relu", "Gemm", "MatMul")
_ACTIVATIONS = frozenset({"Clip", "Relu", "HardSwish", "HardSigmoid", "Sigmoid", "Mul", "Gelu", "Erf"})


def to_int8(model: bytes, pictures: Pixels) -> bytes:
    """Quantize an ONNX file, with the ranges of its activations on canonical pictures, uint8 (n, S, S, 3)."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._pictures = iter(pictures)

        def get_next(self) -> dict[str, Pixels] | None:
            picture = next(self._pictures, None)
            return None if picture is None else {"photo": picture[None]}

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            given, prepared, made = (Path(folder, name) for name in ("given.onnx", "prepared.onnx", "made.onnx"))
            given.write_bytes(model)
            quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
            network = onnx.load(str(prepared))
            for number, node in enumerate(network.graph.node):
                node.name = node.name or f"node_{number}"  # by which the head is left out
            onnx.save(network, str(prepared))
            quantize_static(
                str(prepared),
                str(made),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_KINDS),
                nodes_to_exclude=[*_first(network.graph), *_head(network.graph)],
            )
            return _unbiased(onnx.load(str(made)), model, pictures)
    finally:
        logger.setLevel(level)


def _unbiased(quantized: Any, model: bytes, pictures: Pixels) -> bytes:
    """Take the mean error of the logits on these pictures out of the head's bias; the maps move with them."""
    import onnx

    mean, mean_after = (_mean_logits(file, pictures) for file in (model, quantized.SerializeToString()))
    head = set(_head(quantized.graph))
    biases = {name for node in quantized.graph.node if node.name in head for name in node.input[2:]}
    for tensor in quantized.graph.initializer:
        if tensor.name in biases and tuple(tensor.dims) == mean.shape:
            value = onnx.numpy_helper.to_array(tensor) + (mean - mean_after)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), tensor.name))
            break
    return bytes(quantized.SerializeToString())


def _mean_logits(model: bytes, pictures: Pixels) -> Floats:
    import onnxruntime as ort  # type: ignore[import-untyped]

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], {"photo": picture[None]})[0][0] for picture in pictures]
    return np.asarray(np.mean(logits, axis=0), np.float32)


def _first(graph: Any) -> list[str]:
    """The names of the nodes up to the last of the first convolutions."""
    convolutions = [number for number, node in enumerate(graph.node) if node.op_type == "Conv"]
    end = convolutions[int(_FLOATING * len(convolutions))] if convolutions else 0
    return [node.name for node in graph.node[:end]]


def _head(graph: Any) -> list[str]:
    """The names of the nodes between the last activations and the outputs."""
    makers = {output: node for node in graph.node for output in node.output}
    names: dict[str, None] = {}
    waiting = [output.name for output in graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.op_type in _ACTIVATIONS or node.name in names:
            continue
        names[node.name] = None
        if node.op_type not in ("Conv", "Gemm"):
            waiting += node.input
    return list(names)
