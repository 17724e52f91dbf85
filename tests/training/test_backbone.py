"""Every family of networks is trained through one contract, or refused with a list of those that work."""

from __future__ import annotations

import pytest
import timm
import torch

from retigrade.errors import UsageError
from retigrade.training.backbone import FAMILIES, create_backbone, has_fixed_size, suited
from retigrade.training.network import Network
from retigrade.training.recipe import BEST

SMALL = {
    "beit": "beitv2_base_patch16_224",
    "convnext": "convnext_atto",
    "convnextv2": "convnextv2_atto",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
    "eva02": "eva02_tiny_patch14_224",
    "ghostnet": "ghostnet_050",
    "inception": "inception_v3",
    "maxvit": "maxvit_pico_rw_256",
    "mixnet": "mixnet_s",
    "mobilenetv2": "mobilenetv2_050",
    "mobilenetv3": "mobilenetv3_small_050",
    "poolformer": "poolformer_s12",
    "pvt_v2": "pvt_v2_b0",
    "regnet": "regnetx_002",
    "repvgg": "repvgg_a0",
    "resnet": "resnet18",
    "resnetv2": "resnetv2_50",
    "resnext": "resnext50_32x4d",
    "swin": "swin_tiny_patch4_window7_224",
    "swinv2": "swinv2_tiny_window8_256",
    "vgg": "vgg11",
    "vit": "vit_tiny_patch16_224",
    "xception": "xception41",
}
"""A small network of each family."""
QUICK = ("efficientnet", "mobilenetv2", "swin", "vit")


def test_each_family_has_its_network() -> None:
    assert tuple(SMALL) == FAMILIES
    assert all(timm.is_model(name) for name in SMALL.values())


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in FAMILIES]
)
def test_every_family_answers_and_learns(family: str) -> None:
    name = SMALL[family]
    size = 70 if family == "eva02" else 128 if family == "inception" else 64
    recipe, _ = suited(BEST, name)
    torch.manual_seed(0)
    network = Network(name, pretrained=False, high_resolution=recipe.high_resolution > 0, size=size)
    output = network.train()(torch.rand(2, 3, size, size) * 255)
    torch.testing.assert_close(output.maps.mean((2, 3)), output.logits, atol=1e-4, rtol=1e-3)
    output.logits.square().sum().backward()
    assert all(weight.grad is not None for weight in network.classify.parameters())
    assert sum(weight.grad is not None and bool(weight.grad.any()) for weight in network.backbone.parameters()) > 3


def test_a_recipe_drops_what_a_backbone_cannot_follow_and_says_so() -> None:
    recipe, sentences = suited(BEST, "test_vit")
    assert has_fixed_size("test_vit")
    assert (recipe.high_resolution, recipe.small_share) == (0.0, 0.0)
    assert len(sentences) == 2
    assert suited(BEST, "test_efficientnet") == (BEST, [])


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "coat_tiny"])
def test_a_network_without_a_feature_map_is_refused_with_those_that_work(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} gives no feature map that can be graded; take one of beit, convnext"):
        create_backbone(name, pretrained=False, size=64)


def test_weights_that_cannot_be_fetched_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def fail(*arguments: object, pretrained: bool, **options: object) -> torch.nn.Module:
        if pretrained:
            raise ConnectionError("no route")
        return create(*arguments, pretrained=False, **options)

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(UsageError, match=r"\(ConnectionError\); give a file with --weights, or .* --random-start"):
        create_backbone("test_resnet", pretrained=True, size=64)
