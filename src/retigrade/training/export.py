"""A trained network as ONNX: the same numbers, without torch."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.errors import BundleError

LARGEST_DIFFERENCE = 1e-4
"""Between the logits of torch and of ONNX Runtime."""

_LARGE = 1024  # numbers that a tensor must have for its size to matter
_EXPORTER = ("torch.onnx", "onnxscript", "onnx_ir")  # what tells of every step of an export


class ModelOutputs(NamedTuple):
    """Of N photographs: logits float32 (N, 5), maps float32 (N, 5, s, s), features float32 (N, C)."""

    logits: Floats
    maps: Floats
    features: Floats


def concatenated(parts: Sequence[ModelOutputs]) -> ModelOutputs:
    """The outputs of several sets of photographs, one after the other."""
    return ModelOutputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class BundleModel(nn.Module):
    """The bundle's own interface: uint8 photos (N, S, S, 3) in; logits, maps and features out."""

    def __init__(self, network: nn.Module, *, mirror: bool) -> None:
        """mirror: also look at the mirror image, and answer with the mean of both."""
        super().__init__()
        self.network, self.mirror = network, mirror

    def forward(self, photo: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answer for a batch of photos."""
        x = photo.permute(0, 3, 1, 2).float()
        seen = self.network(x)
        if not self.mirror:
            return seen.logits, seen.maps, seen.features
        mirrored = self.network(x.flip(3))
        maps = (seen.maps + mirrored.maps.flip(3)) / 2
        return maps.mean((2, 3)), maps, (seen.features + mirrored.features) / 2


def to_onnx(network: nn.Module, *, size: int, mirror: bool = False) -> bytes:
    """Export a network; its photos have `size` pixels a side.

    Raises BundleError where ONNX Runtime's logits differ from torch's by more than `LARGEST_DIFFERENCE`.
    """
    model = BundleModel(network, mirror=mirror).cpu().float().eval()
    example = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter
        loggers = [logging.getLogger(name) for name in _EXPORTER]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        path = Path(folder, "network.onnx")
        try:
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["photo"],
                output_names=["logits", "maps", "features"],
                dynamic_shapes={"photo": {0: torch.export.Dim("N")}},
                dynamo=True,
                verbose=False,
            )
            assert program is not None  # as it is without dynamo alone
            # What the exporter notes of each step names files on the machine that made it.
            ClearMetadataAndDocStringPass()(program.model)
            program.save(path, external_data=False)
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
        exported = path.read_bytes()
    with torch.inference_mode():
        expected = model(example)[0].numpy()
    difference = float(np.abs(run_model(exported, example.numpy(), np.arange(2)).logits - expected).max())
    if difference > LARGEST_DIFFERENCE:
        raise BundleError(
            f"ONNX and torch differ by {difference:.2g} in their logits, {LARGEST_DIFFERENCE:g} is allowed"
        )
    return exported


def run_model(model: bytes, photos: Pixels, indices: Integers, *, batch: int = 32) -> ModelOutputs:
    """Run an exported network over some prepared photographs, uint8 (N, S, S, 3)."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    parts = [
        ModelOutputs(
            *session.run(
                ["logits", "maps", "features"], {"photo": np.ascontiguousarray(photos[indices[i : i + batch]])}
            )
        )
        for i in range(0, len(indices), batch)
    ]
    return concatenated(parts)


def to_half(model: bytes) -> bytes:
    """Keep the large weights of an ONNX file as float16: half as large, and as fast.

    ONNX Runtime widens them once, when it opens the file, and computes with float32 as before.
    """
    import onnx
    from onnx import numpy_helper

    network = onnx.load_from_string(model)
    graph = network.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _LARGE:
            continue
        wide, narrow = tensor.name, f"{tensor.name}.half"
        casts.append(onnx.helper.make_node("Cast", [narrow], [wide], name=f"{wide}.cast", to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), narrow))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(network.SerializeToString())


def receptive_field_offset(network: nn.Module, photos: Pixels) -> tuple[float, float]:
    """Where in its own cell lies the centre of what a map's value depends on, across and down: 0.5 is the middle.

    A network that pads its strided convolutions at one end sees more on one side. Measured as the centre of the
    gradient's energy of the middle cell over some photographs, uint8 (n, S, S, 3).
    """
    x = torch.from_numpy(photos[:]).permute(0, 3, 1, 2).float().requires_grad_()
    maps = network.cpu().float().eval()(x).maps
    cells, side = maps.shape[-1], x.shape[-1]
    middle = cells // 2
    (gradient,) = torch.autograd.grad(maps[..., middle, middle].square().sum(), x)
    energy = gradient.square().sum((0, 1)).double().numpy()
    pixels = np.arange(side) + 0.5
    across, down = (float(energy.sum(axis) @ pixels / energy.sum()) * cells / side - middle for axis in (0, 1))
    # In a network that has learned little the gradient strays; the heatmap is never shown beyond the cell's neighbours.
    return min(max(across, -1.0), 2.0), min(max(down, -1.0), 2.0)
