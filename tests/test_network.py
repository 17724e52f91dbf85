"""Backbones by name, starting weights, and normalisation that travels with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retigrade.errors import UsageError
from retigrade.network import Network


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
