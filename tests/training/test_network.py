"""Backbones by name, starting weights, and normalisation that travels with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retigrade.errors import UsageError
from retigrade.training.backbone import HIGH_RESOLUTION_STRIDE
from retigrade.training.network import Network
from retigrade.training.recipe import BEST
from retigrade.training.schedule import make_optimizer


def test_an_unknown_backbone_is_told_its_nearest_names() -> None:
    with pytest.raises(UsageError, match="mobilenetv2_100"):
        Network("mobilnetv2_100", pretrained=False)


def test_saved_weights_start_another_network_alike(tmp_path: Path) -> None:
    first = Network("test_efficientnet", pretrained=False)
    first.save(tmp_path / "network.safetensors", trained="not at all")
    second = Network("test_efficientnet", weights=tmp_path / "network.safetensors")
    assert second.origin == "not at all, from random weights"
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_where_weights_come_from_stays_short(tmp_path: Path) -> None:
    file, origins = tmp_path / "network.safetensors", []
    Network("test_efficientnet", pretrained=False).save(file, trained="best")
    for step in ("robust", "further", "mean"):
        network = Network("test_efficientnet", weights=file)
        origins.append(network.origin)
        network.save(file, trained=step)
    origins.append(Network("test_efficientnet", weights=file).origin)
    assert origins == [
        "best, from random weights",
        "robust, from best, from random weights",
        "further, from robust, ..., from random weights",
        "mean, from further, ..., from random weights",
    ]


def test_heads_for_lesions_teach_and_are_not_saved(tmp_path: Path) -> None:
    teaching = Network("test_efficientnet", pretrained=False, high_resolution=True, lesion_heads=True)
    photos = torch.rand(2, 3, 64, 64) * 255
    early, last = teaching.train()(photos).lesions
    assert (early.shape, last.shape) == ((2, 4, 8, 8), (2, 4, 2, 2))
    answered = teaching.eval()(photos)
    assert answered.lesions == ()
    teaching.save(tmp_path / "network.safetensors", trained="not at all")
    for heads in (False, True):
        again = Network(
            "test_efficientnet", high_resolution=True, lesion_heads=heads, weights=tmp_path / "network.safetensors"
        )
        assert torch.equal(again.eval()(photos).logits, answered.logits)


def test_heads_for_lesions_need_the_high_resolution_head() -> None:
    with pytest.raises(UsageError, match="high-resolution head alone"):
        Network("test_efficientnet", pretrained=False, lesion_heads=True)


@pytest.mark.parametrize(
    ("notes", "mean", "deviation"),
    [
        ("RGB, x/127.5-1", [127.5] * 3, [127.5] * 3),
        ("RGB/255, mean .485 .456 .406, std .229 .224 .225", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    ],
)
def test_weights_bring_their_normalisation(
    tmp_path: Path, notes: str, mean: list[float], deviation: list[float]
) -> None:
    state = Network("test_efficientnet", pretrained=False).backbone.state_dict()
    save_file(dict(state), tmp_path / "w.safetensors", metadata={"format": "pt", "input": notes})
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


def test_first_layers_stand_still_while_the_others_learn() -> None:
    network = Network("test_efficientnet", pretrained=False)
    network.freeze(4)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make_optimizer(network, BEST)
    network(torch.rand(4, 3, 64, 64) * 255).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    (last,) = (stage["module"] for stage in network.backbone.feature_info if stage["reduction"] == 4)
    assert changed
    assert not [
        name for name in changed if name.startswith(("backbone.conv_stem", "backbone.bn1", f"backbone.{last}."))
    ]
    assert any(name.startswith("backbone.blocks.") for name in changed)


def test_a_stride_without_a_feature_map_cannot_stand_still() -> None:
    with pytest.raises(UsageError, match="no feature map of stride 3"):
        Network("test_efficientnet", pretrained=False).freeze(3)


def test_dropout_is_shared_by_all_places() -> None:
    network = Network("test_efficientnet", pretrained=False, dropout=0.5).train()
    output = network(torch.rand(2, 3, 64, 64) * 255)
    torch.testing.assert_close(output.maps.mean((2, 3)), output.logits)


def test_maps_with_the_high_resolution_head_are_finer_and_still_average_to_the_logits() -> None:
    torch.manual_seed(0)
    network = Network("test_efficientnet", pretrained=False, high_resolution=True).eval()
    x = torch.rand(2, 3, 64, 64) * 255
    with torch.inference_mode():
        output, plain = network(x), Network("test_efficientnet", pretrained=False).eval()(x)
    assert output.maps.shape == (2, 5, 64 // HIGH_RESOLUTION_STRIDE, 64 // HIGH_RESOLUTION_STRIDE)
    assert plain.maps.shape[2] < output.maps.shape[2]
    torch.testing.assert_close(output.maps.mean((2, 3)), output.logits, atol=1e-5, rtol=1e-4)
    assert output.high_resolution.abs().max() > 0
    assert plain.high_resolution.abs().max() == 0


def test_the_high_resolution_head_sees_no_further_than_a_lesion() -> None:
    torch.manual_seed(0)
    network = Network("mobilenetv2_100", pretrained=False, high_resolution=True).eval()
    x = (torch.rand(1, 3, 224, 224) * 255).requires_grad_()
    feature_map = network.backbone.forward_intermediates(
        x, indices=[network.high_resolution.stage], intermediates_only=True
    )[0]
    (gradient,) = torch.autograd.grad(network.high_resolution(feature_map)[0, :, 14, 14].square().sum(), x)
    rows = torch.nonzero(gradient.abs().sum((0, 1, 3)))
    assert rows.max() - rows.min() + 1 < 64


def test_a_backbone_without_the_stride_for_the_head_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a stage of stride 8"):
        Network("vit_tiny_patch16_224", pretrained=False, high_resolution=True)
