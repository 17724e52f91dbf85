"""Weights in sixteen bits: a file half as large that answers nearly alike."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from retigrade.icdr import GRADES
from retigrade.synthetic import draw_eye
from retigrade.training.export import run_model, to_onnx
from retigrade.training.half import to_half
from retigrade.training.network import Network

SIZE = 160


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
