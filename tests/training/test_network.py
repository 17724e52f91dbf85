"""Backbones by name, starting weights, and normalisation that travels with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retigrade.errors import UsageError
from retigrade.training.network import FINE_STRIDE, Network


def test_an_unknown_backbone_is_told_its_nearest_names() -> None:
    with pytest.raises(UsageError, match="mobilenetv2_100"):
        Network("mobilnetv2_100", start=False)


def test_saved_weights_start_another_network_alike(tmp_path: Path) -> None:
    first = Network("test_efficientnet", start=False)
    first.save(tmp_path / "network.safetensors", trained="not at all")
    second = Network("test_efficientnet", weights=tmp_path / "network.safetensors")
    assert second.origin == "not at all, from random weights"
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("said", "mean", "deviation"),
    [
        ("RGB, x/127.5-1", [127.5] * 3, [127.5] * 3),
        ("RGB/255, mean .485 .456 .406, std .229 .224 .225", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    ],
)
def test_weights_bring_their_normalisation(
    tmp_path: Path, said: str, mean: list[float], deviation: list[float]
) -> None:
    state = Network("test_efficientnet", start=False).backbone.state_dict()
    save_file(dict(state), tmp_path / "w.safetensors", metadata={"format": "pt", "input": said})
    network = Network("test_efficientnet", weights=tmp_path / "w.safetensors")
    assert network.mean.flatten().tolist() == pytest.approx(mean)
    assert network.deviation.flatten().tolist() == pytest.approx(deviation)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"other": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="holds 0 of"):
        Network("test_efficientnet", weights=tmp_path / "w.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"not weights")
    with pytest.raises(UsageError, match="need a safetensors file"):
        Network("test_efficientnet", weights=tmp_path / "no.safetensors")


def test_dropout_is_shared_by_all_places() -> None:
    network = Network("test_efficientnet", start=False, dropout=0.5).train()
    answer = network(torch.rand(2, 3, 64, 64) * 255)
    torch.testing.assert_close(answer.maps.mean((2, 3)), answer.logits)


def test_maps_with_fine_evidence_are_finer_and_still_average_to_the_logits() -> None:
    torch.manual_seed(0)
    network = Network("test_efficientnet", start=False, fine=True).eval()
    x = torch.rand(2, 3, 64, 64) * 255
    with torch.inference_mode():
        answer, plain = network(x), Network("test_efficientnet", start=False).eval()(x)
    assert answer.maps.shape == (2, 5, 64 // FINE_STRIDE, 64 // FINE_STRIDE)
    assert plain.maps.shape[2] < answer.maps.shape[2]
    torch.testing.assert_close(answer.maps.mean((2, 3)), answer.logits, atol=1e-5, rtol=1e-4)
    assert answer.fine.abs().max() > 0
    assert plain.fine.abs().max() == 0


def test_fine_evidence_sees_no_further_than_a_lesion() -> None:
    torch.manual_seed(0)
    network = Network("mobilenetv2_100", start=False, fine=True).eval()
    x = (torch.rand(1, 3, 224, 224) * 255).requires_grad_()
    field = network.backbone.forward_intermediates(x, indices=[network.fine.stage], intermediates_only=True)[0]
    (gradient,) = torch.autograd.grad(network.fine(field)[0, :, 14, 14].square().sum(), x)
    rows = torch.nonzero(gradient.abs().sum((0, 1, 3)))
    assert rows.max() - rows.min() + 1 < 64


def test_a_backbone_without_the_stride_for_fine_evidence_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a stage of stride 8"):
        Network("vit_tiny_patch16_224", start=False, fine=True)
