"""A backbone from timm under one pooled linear head, whose class-activation map is exact.

Global average pooling and a linear layer commute, so the head is a 1x1 convolution followed by a mean: the maps that
it averages are the evidence for each grade at each place (Zhou et al., "Learning Deep Features for Discriminative
Localization", CVPR 2016), at no cost and without gradients.

The last field of a network is coarse, 7 x 7 at 224 pixels, and each of its cells sees most of the eye. With fine
evidence the head reads an earlier field too, 28 x 28, whose cells see no more than a lesion and what is around it
(Brendel and Bethge, "Approximating CNNs with Bag-of-local-Features models", ICLR 2019). Both are pooled and linear, so
the maps, their sum, are still exact.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from retigrade.errors import UsageError
from retigrade.icdr import GRADES

FINE_STRIDE = 8
"""Pixels from one cell of the fine evidence to the next."""
_FINE_CHANNELS = 128


class NetworkOutput(NamedTuple):
    """logits (N, 5); maps (N, 5, s, s), whose mean over the last two axes is the logits; features (N, C), pooled.

    fine: the part of the logits that comes from fine evidence, (N, 5); 0 in a network without.
    """

    logits: Tensor
    maps: Tensor
    features: Tensor
    fine: Tensor


class Network(nn.Module):
    """Photos, float (N, 3, S, S) of 0..255 RGB, to an `Answer`; normalisation is inside."""

    backbone: Any  # timm types none of what its networks promise
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        backbone: str,
        *,
        dropout: float = 0.2,
        fine: bool = False,
        weights: Path | None = None,
        start: bool = True,
    ) -> None:
        """backbone: a name in timm. fine: read fine evidence too. weights: a safetensors file to start from.

        start: without `weights`, start from timm's own ImageNet weights (a download) rather than at random.
        Raises UsageError for an unknown backbone or a file of weights that does not fit.
        """
        super().__init__()
        if not timm.is_model(backbone):
            nearest = difflib.get_close_matches(backbone, timm.list_models(), n=4, cutoff=0.4)
            raise UsageError(f"unknown backbone {backbone!r}; did you mean {', '.join(nearest) or 'mobilenetv2_100'}?")
        described = _describe(weights) if weights else {}
        usual = "timm's ImageNet weights" if start else "random weights"
        self.origin = described.get("origin", weights.name) if weights else usual
        self._described = {key: text for key, text in described.items() if key in ("architecture", "input")}
        same: dict[str, Any] = {"pad_type": "same"} if "pad_type='same'" in described.get("architecture", "") else {}
        self.backbone = timm.create_model(
            backbone, pretrained=start and weights is None, num_classes=0, global_pool="", **same
        )
        channels = int(self.backbone.num_features)
        head = getattr(self.backbone, "pre_logits", None)
        if isinstance(head, nn.Module):  # VGG's two wide layers give way to the pooled head
            self.backbone.pre_logits = nn.Identity()
            channels = int(self.backbone.feature_info[-1]["num_chs"])
        mean, deviation = _normalisation(described.get("input", ""), self.backbone.pretrained_cfg)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", 255 * torch.tensor(deviation).view(1, 3, 1, 1))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Conv2d(channels, len(GRADES), 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]
        self.fine = _Fine(self.backbone) if fine else None
        if weights:
            self._start_from(weights)

    def forward(self, photos: Tensor) -> NetworkOutput:
        """Answer for a batch of photos."""
        return self.look(photos)[1]

    def look(self, photos: Tensor) -> tuple[Tensor, NetworkOutput]:
        """Return the field that fine evidence is read from, the last one in a network without, and the answer."""
        x = (photos - self.mean) / self.deviation
        if self.fine is None:
            early = field = self.backbone.forward_features(x)
        else:
            field, (early,) = self.backbone.forward_intermediates(x, indices=[self.fine.stage])
        features = field.mean((2, 3))
        if self.training:  # one mask for all places, as dropout after pooling would have
            field = field * self.dropout(torch.ones_like(features))[:, :, None, None]
        maps = self.classify(field).float()
        logits = maps.mean((2, 3))
        if self.fine is None:
            return early, NetworkOutput(logits, maps, features, torch.zeros_like(logits))
        near = self.fine(early).float()
        fine = near.mean((2, 3))
        wide = F.interpolate(maps, size=near.shape[2:], mode="bilinear")
        maps = near + wide + (logits - wide.mean((2, 3)))[:, :, None, None]  # enlarging moves the mean by a little
        return early, NetworkOutput(logits + fine, maps, features, fine)

    def save(self, path: Path, *, trained: str) -> None:
        """Write all weights as safetensors, to start another training from; `trained` says how they came about."""
        said = {"format": "pt", "origin": f"{trained}, from {self.origin}", **self._described}
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(state, path, metadata=said)

    def _start_from(self, weights: Path) -> None:
        with safe_open(weights, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if "classify.weight" in state:  # one of ours, head and all
            self.load_state_dict(state)
            return
        own = self.backbone.state_dict()
        fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
        if len(fitting) < len(own) // 2:
            raise UsageError(
                f"{weights.name} holds {len(fitting)} of the {len(own)} tensors of this backbone; "
                "give weights of the same network, in timm's layout"
            )
        self.backbone.load_state_dict(fitting, strict=False)


class _Fine(nn.Module):
    """Evidence for each grade from an early field of a backbone: (N, C, s, s) to (N, 5, s, s)."""

    def __init__(self, backbone: Any) -> None:
        """Raises UsageError where the backbone has no stage of that stride."""
        super().__init__()
        strides = [stage["reduction"] for stage in backbone.feature_info]
        if FINE_STRIDE not in strides:
            raise UsageError(f"fine evidence needs a stage of stride {FINE_STRIDE}; this backbone has {strides}")
        self.stage = strides.index(FINE_STRIDE)
        self.look = nn.Sequential(
            nn.Conv2d(backbone.feature_info[self.stage]["num_chs"], _FINE_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(_FINE_CHANNELS),
            nn.ReLU6(),
        )
        self.classify = nn.Conv2d(_FINE_CHANNELS, len(GRADES), 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, field: Tensor) -> Tensor:
        """Return the evidence at each place."""
        evidence: Tensor = self.classify(self.look(field))
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
        answers = [network(photos) for network in self.networks]
        maps = torch.stack([one.maps for one in answers]).mean(0)
        fine = torch.stack([one.fine for one in answers]).mean(0)
        return NetworkOutput(maps.mean((2, 3)), maps, torch.cat([one.features for one in answers], 1), fine)


def _normalisation(described: str, usual: dict[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of colours in 0..1 that weights were trained with: as their file says, else as timm does."""
    if "x/127.5-1" in described:
        return (0.5,) * 3, (0.5,) * 3
    said = [float(number) for number in re.findall(r"\.\d+", described)]
    if "mean" in described and "std" in described and len(said) == 6:
        return said[:3], said[3:]
    return usual["mean"], usual["std"]


def _describe(weights: Path) -> dict[str, str]:
    try:
        with safe_open(weights, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read the weights {weights}: need a safetensors file") from error
