"""A backbone under pooled linear heads, whose class-activation map is exact.

Global average pooling and a linear layer commute, so a head is a 1x1 convolution followed by a mean: the maps that
it averages are the evidence for each grade at each place (Zhou et al., "Learning Deep Features for Discriminative
Localization", CVPR 2016), at no cost and without gradients.

The last feature map of a network is coarse, 7 x 7 at 224 pixels, and each of its cells sees most of the eye. The
high-resolution head reads an earlier one too, 28 x 28, whose cells see no more than a lesion and what is around it
(Brendel and Bethge, "Approximating CNNs with Bag-of-local-Features models", ICLR 2019). Both are pooled and linear, so
the maps, their sum, are still exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor, nn

from retigrade.data.annotations import KINDS
from retigrade.errors import UsageError
from retigrade.icdr import GRADES
from retigrade.text import lineage
from retigrade.training.backbone import (
    HIGH_RESOLUTION_STRIDE,
    as_feature_map,
    create_backbone,
    first_layers,
    high_resolution_stage,
)
from retigrade.training.halving import HalvingConvolution
from retigrade.training.weights import StartingWeights, colour_statistics, write_weights

_HIGH_RESOLUTION_CHANNELS = 128
_RARE = -4.0  # the logit of a lesion at a place, to begin with


class NetworkOutput(NamedTuple):
    """logits (N, 5); maps (N, 5, s, s), whose mean over the last two axes is the logits; features (N, C), pooled.

    high_resolution: the part of the logits that the high-resolution head gives, (N, 5); 0 in a network without.
    lesions: logits of each kind of lesion at each place of the early and of the last feature map, (N, 4, s, s) each;
    none but of a network in training that has lesion heads.
    """

    logits: Tensor
    maps: Tensor
    features: Tensor
    high_resolution: Tensor
    lesions: tuple[Tensor, ...] = ()


class Network(nn.Module):
    """Photos, float (N, 3, S, S) of 0..255 RGB, to a `NetworkOutput`; normalisation is inside."""

    backbone: Any  # timm types none of what its networks promise
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        backbone: str,
        *,
        dropout: float = 0.2,
        high_resolution: bool = False,
        lesion_heads: bool = False,
        weights: Path | None = None,
        pretrained: bool = True,
        same_padding: bool = False,
        size: int = 224,
    ) -> None:
        """backbone: a name in timm. weights: a safetensors file to start from. size: the photo's side in pixels.

        same_padding: pad as TensorFlow does, as a network does that was started from such weights.
        pretrained: without `weights`, start from timm's ImageNet weights (a download) rather than at random.
        Raises UsageError for an unknown or unsuited backbone, and for weights that do not fit or cannot be had.
        """
        super().__init__()
        start = StartingWeights.open(weights) if weights else None
        self.origin = start.origin if start else "timm's ImageNet weights" if pretrained else "random weights"
        notes = start.notes if start else {}
        self.notes = {key: notes[key] for key in ("architecture", "input") if key in notes}
        self.backbone, channels = create_backbone(
            backbone,
            pretrained=pretrained and start is None,
            size=size,
            same_padding=same_padding or (start is not None and start.same_padding),
        )
        mean, deviation = colour_statistics(self.notes.get("input", ""), self.backbone.pretrained_cfg)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", 255 * torch.tensor(deviation).view(1, 3, 1, 1))
        self.dropout = nn.Dropout(dropout)
        self.classify = _linear_head(channels)
        self.high_resolution = HighResolutionHead(self.backbone) if high_resolution else None
        self.lesion_heads = _lesion_heads(self.backbone, self.high_resolution, channels) if lesion_heads else None
        self._frozen: list[nn.Module] = []
        self._halves = False
        if start:
            start.load_into(self, self.backbone)

    def freeze(self, stride: int) -> None:
        """Let the backbone's layers down to the feature map of a stride stand still, their norms' statistics too."""
        self._frozen = first_layers(self.backbone, stride)
        for layer in self._frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers but those that stand still."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(self, photos: Tensor) -> NetworkOutput:
        """Answer for a batch of photos."""
        return self.forward_with_feature_map(photos)[1]

    def forward_with_feature_map(self, photos: Tensor) -> tuple[Tensor, NetworkOutput]:
        """Return the output after the feature map that the high-resolution head reads, or the last one without it."""
        x = photos if self._halves else (photos - self.mean) / self.deviation
        if self.high_resolution is None:
            near = last = as_feature_map(self.backbone.forward_features(x), self.backbone)
        else:
            last, (near,) = self.backbone.forward_intermediates(x, indices=[self.high_resolution.stage])
            last = as_feature_map(last, self.backbone)
        features = last.mean((2, 3))
        lesions: tuple[Tensor, ...] = ()
        if self.training and self.lesion_heads is not None:
            lesions = tuple(head(each) for head, each in zip(self.lesion_heads, (near, last), strict=True))
        if self.training:  # one mask for all places, as dropout after pooling would have
            last = last * self.dropout(torch.ones_like(features))[:, :, None, None]
        maps = self.classify(last).float()
        logits = maps.mean((2, 3))
        if self.high_resolution is None:
            return near, NetworkOutput(logits, maps, features, torch.zeros_like(logits))
        near_maps = self.high_resolution(near).float()
        near_logits = near_maps.mean((2, 3))
        maps = near_maps + resized(maps, near_maps)
        return near, NetworkOutput(logits + near_logits, maps, features, near_logits, lesions)

    def halve_photos(self) -> None:
        """See photos of twice the size from now on, made smaller in the first convolution; as `HalvingConvolution`."""
        name = self.backbone.pretrained_cfg["first_conv"]
        first = HalvingConvolution(self.backbone.get_submodule(name), mean=self.mean, deviation=self.deviation)
        self.backbone.set_submodule(name, first)
        self._halves = True

    def add_to_head(self, bias: Tensor, weights: Tensor | None = None) -> None:
        """Change the last feature map's head in place: add to its biases, (5,), and to its weights, (5, C)."""
        with torch.no_grad():
            self.get_parameter("classify.bias").add_(bias.to(self.mean.device))
            if weights is not None:
                self.classify.weight.add_(weights[:, :, None, None].to(self.mean.device))

    def save(self, path: Path, *, trained: str) -> None:
        """Write all weights as safetensors, to start another training from; `trained` says how they came about."""
        notes = {"origin": lineage(f"{trained}, from {self.origin}"), **self.notes}
        write_weights(path, self, notes=notes, without="lesion_heads.")  # they only teach


class HighResolutionHead(nn.Module):
    """Evidence for each grade from an early feature map of a backbone: (N, C, s, s) to (N, 5, s, s)."""

    def __init__(self, backbone: Any) -> None:
        """Raises UsageError where the backbone has no stage of that stride."""
        super().__init__()
        stage = high_resolution_stage(backbone)
        if stage is None:
            strides = [info["reduction"] for info in backbone.feature_info]
            raise UsageError(
                f"a high-resolution head needs a stage of stride {HIGH_RESOLUTION_STRIDE}; this network has {strides}"
            )
        self.stage = stage
        self.reduce = nn.Sequential(
            nn.Conv2d(backbone.feature_info[stage]["num_chs"], _HIGH_RESOLUTION_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(_HIGH_RESOLUTION_CHANNELS),
            nn.ReLU6(),
        )
        self.classify = _linear_head(_HIGH_RESOLUTION_CHANNELS)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return the evidence at each place."""
        evidence: Tensor = self.classify(self.reduce(feature_map))
        return evidence


class Ensemble(nn.Module):
    """Several networks that answer as one: the mean of their logits and maps, their features side by side."""

    def __init__(self, networks: Sequence[nn.Module], *, origin: str) -> None:
        """networks: of one input size and one size of maps; origin: what they started from."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.origin = origin

    def forward(self, photos: Tensor) -> NetworkOutput:
        """Answer for a batch of photos."""
        outputs = [network(photos) for network in self.networks]
        maps = torch.stack([output.maps for output in outputs]).mean(0)
        near = torch.stack([output.high_resolution for output in outputs]).mean(0)
        return NetworkOutput(maps.mean((2, 3)), maps, torch.cat([output.features for output in outputs], 1), near)


def resized(maps: Tensor, like: Tensor) -> Tensor:
    """Evidence, (N, 5, s, s), at the size of other maps; its mean, which resizing may move by a little, stays."""
    moved = F.interpolate(maps, size=like.shape[2:], mode="bilinear")
    return moved + (maps.mean((2, 3)) - moved.mean((2, 3)))[:, :, None, None]


def _lesion_heads(backbone: Any, high_resolution: HighResolutionHead | None, channels: int) -> nn.ModuleList:
    if high_resolution is None:
        raise UsageError("places of lesions are learned with a high-resolution head alone, which this network has not")
    early = backbone.feature_info[high_resolution.stage]["num_chs"]
    heads = [nn.Conv2d(each, len(KINDS), 1) for each in (early, channels)]
    for head in heads:
        nn.init.normal_(head.weight, std=0.01)
        nn.init.constant_(head.bias, _RARE)  # type: ignore[arg-type]
    return nn.ModuleList(heads)


def _linear_head(channels: int) -> nn.Conv2d:
    head = nn.Conv2d(channels, len(GRADES), 1)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head
