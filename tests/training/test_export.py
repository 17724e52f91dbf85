"""A network as ONNX: what is exported, and with weights in sixteen bits, half as large and nearly alike."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from retigrade.bundle import BESIDE, bundle_file
from retigrade.icdr import GRADES
from retigrade.synthetic import draw_eye
from retigrade.training.export import run_model, to_half, to_onnx
from retigrade.training.network import Network

SIZE = 160


@pytest.mark.parametrize("name", [None, *BESIDE])
def test_what_ships_names_no_file_of_the_machine_that_made_it(name: str | None) -> None:
    assert b'File "' not in bundle_file(name).read_bytes()


def test_an_exported_network_names_no_file_either() -> None:
    model = to_onnx(Network("test_efficientnet", pretrained=False).eval(), size=64)
    assert b'File "' not in model
    assert not any(node.metadata_props for node in onnx.load_from_string(model).graph.node)


def test_the_file_is_half_as_large_and_answers_nearly_alike() -> None:
    torch.manual_seed(1)
    model = to_onnx(Network("test_efficientnet", pretrained=False, high_resolution=True).eval(), size=SIZE)
    half = to_half(model)
    photos = np.stack([draw_eye(grade=grade, size=SIZE, rng=np.random.default_rng(1)).pixels for grade in GRADES])
    given, expected = (run_model(each, photos, np.arange(len(photos))) for each in (half, model))
    assert np.ptp(expected.logits, axis=0).max() > 0
    np.testing.assert_allclose(given.logits, expected.logits, atol=0.01 * np.abs(expected.logits).max())
    np.testing.assert_allclose(given.maps.mean((2, 3)), given.logits, rtol=1e-3, atol=1e-3)
    weights = [tensor for tensor in onnx.load_from_string(half).graph.initializer if np.prod(tensor.dims) >= 1024]
    assert weights
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert len(half) < len(model) - 1.9 * sum(np.prod(tensor.dims) for tensor in weights)
