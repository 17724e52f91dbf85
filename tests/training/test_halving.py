"""A first convolution that makes photos smaller answers as it did for photos that were made smaller before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import nn

from retigrade.errors import UsageError
from retigrade.training.halving import HalvingConvolution, colours_of, weights_before
from retigrade.training.network import Network


@pytest.mark.parametrize(
    ("backbone", "same_padding"),
    [("test_efficientnet", False), ("mobilenetv2_100", False), ("mobilenetv2_100", True), ("resnet18", False)],
)
def test_a_network_answers_as_for_photos_of_half_the_size(backbone: str, *, same_padding: bool) -> None:
    torch.manual_seed(1)
    network = Network(backbone, pretrained=False, same_padding=same_padding).eval()
    photos = torch.rand(2, 3, 128, 128) * 255
    with torch.inference_mode():
        expected = network(F.avg_pool2d(photos, 2))
        network.halve_photos()
        found = network(photos)
    assert expected.logits.std() > 1e-4
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("across", [3, 7])
def test_what_it_was_made_of_is_found_again(across: int) -> None:
    convolution = nn.Conv2d(3, 8, across, stride=2, padding=across // 2, bias=False)
    mean, deviation = torch.tensor([124.0, 116.0, 104.0]), torch.tensor([58.0, 57.0, 56.0])
    halving = HalvingConvolution(convolution, mean=mean, deviation=deviation)
    assert torch.equal(weights_before(halving.cells.weight, convolution), convolution.weight)
    found = colours_of(halving.squares.weight, halving.squares.get_parameter("bias"))
    torch.testing.assert_close(found, (mean, deviation))


def test_a_convolution_of_every_pixel_cannot() -> None:
    colours = torch.ones(3)
    with pytest.raises(UsageError, match="every second pixel"):
        HalvingConvolution(nn.Conv2d(3, 8, 3, padding=1), mean=colours, deviation=colours)
