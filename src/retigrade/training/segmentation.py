"""A small network that annotated photographs teach to tell, for every place, which kinds of lesion are there.

A few dozen annotated photographs and many healthy ones are enough for it, for each has thousands of places to learn
from (Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015). Its maps then teach the network that grades, which learns
from stages of whole photographs hardly anything of what is small.

Feature maps of all sizes are brought to one width and added up, from the coarsest to that of every fourth pixel (Lin et
al., "Feature Pyramid Networks for Object Detection", CVPR 2017): beside the backbone that costs little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn

from retigrade.arrays import Integers, Pixels
from retigrade.data.annotations import KINDS
from retigrade.errors import UsageError
from retigrade.training.augment import apply, draw, draw_recompressions, move, recompress
from retigrade.training.cells import CELL
from retigrade.training.cpu import fast_arithmetic
from retigrade.training.network import Network
from retigrade.training.recipe import AugmentationConfig
from retigrade.training.weights import StartingWeights, write_weights

_STRIDES = (2, 4, 8, 16)
_FINE, _COARSE = 48, 64  # channels at every fourth pixel and at every eighth
RARE = -4.0
"""The logit of a lesion at a place, to begin with."""
_SIDE, _WINDOW = 256, 364  # of a crop, and of the square that it is turned in
_BATCH, _LR, _WEIGHT_DECAY, _WARM_UP = 16, 2e-3, 1e-2, 0.05
_HEALTHY, _CENTRED = 0.3, 0.7  # shares: of crops that are of healthy eyes; of others about a lesion
_DRAWN = np.array([0.4, 0.35, 0.15, 0.1])  # how often that is a lesion of each kind
_COUNTS = (4.0, 2.0, 2.0, 2.0)  # how many times as much as a place without
_CROSS_ENTROPY, _SMOOTH = 4.0, 5.0
_PLAINLY = 60  # of 255: how much of a pixel a lesion covers
_AUGMENTATION = AugmentationConfig(
    zoom=0.3,
    shift=0,
    brightness=0.2,
    contrast=0.2,
    saturation=0.3,
    blur=1.0,
    noise=5,
    dust=0.5,
    recompression=0.1,
)


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """Annotated photographs, uint8 (n, S, S, 3), their masks, uint8 (n, S, S, k) by kind, and healthy photographs.

    The k kinds are the first of `KINDS`.
    """

    photos: Pixels
    masks: Pixels
    healthy: Pixels


class SegmentationNetwork(nn.Module):
    """Photos, float (N, 3, S, S) of 0..255 RGB, to logits of each kind of lesion, (N, 4, S/4, S/4)."""

    kinds = tuple(KINDS)
    backbone: Any
    mean: Tensor
    deviation: Tensor

    def __init__(self, start: Network) -> None:
        """With the backbone of a network; UsageError where it has not the feature maps that this needs."""
        super().__init__()
        self.backbone, self._notes = start.backbone, start.notes
        self.register_buffer("mean", start.mean.clone())
        self.register_buffer("deviation", start.deviation.clone())
        stages = self.backbone.feature_info
        strides = [stage["reduction"] for stage in stages]
        if not hasattr(self.backbone, "forward_intermediates") or not set(_STRIDES) <= set(strides):
            raise UsageError(f"places of lesions need feature maps of strides {_STRIDES}; this network has {strides}")
        self._stages = [strides.index(stride) for stride in _STRIDES]
        half, quarter, eighth, sixteenth = [stages[stage]["num_chs"] for stage in self._stages]
        self.backbone.prune_intermediate_layers(self._stages)  # what comes after is of no use
        self.of_half = nn.Conv2d(half, _FINE, 3, stride=2, padding=1)
        self.of_quarter = nn.Conv2d(quarter, _FINE, 1)
        self.of_eighth = nn.Conv2d(eighth, _COARSE, 1)
        self.of_sixteenth = nn.Conv2d(sixteenth, _COARSE, 1)
        self.coarse = nn.Sequential(*_separable(_COARSE))
        self.narrow = nn.Conv2d(_COARSE, _FINE, 1)
        self.fine = nn.Sequential(*_separable(_FINE), *_separable(_FINE))
        self.classify = nn.Conv2d(_FINE, len(KINDS), 1)
        nn.init.constant_(self.classify.bias, RARE)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path, *, backbone: str) -> Self:
        """A network that `save` wrote, in evaluation mode; UsageError where the file is none of this backbone."""
        weights = StartingWeights.open(path)
        network = cls(Network(backbone, pretrained=False, same_padding=weights.same_padding))
        network._notes = dict(weights.notes)
        try:
            network.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise UsageError(f"{path}: is no segmentation network of the backbone {backbone}") from error
        return network.eval()

    def save(self, path: Path) -> None:
        """Write all weights as safetensors."""
        write_weights(path, self, notes=self._notes)

    def forward(self, photos: Tensor) -> Tensor:
        """Return the logits at each place."""
        x = (photos - self.mean) / self.deviation
        half, quarter, eighth, sixteenth = self.backbone.forward_intermediates(
            x, indices=self._stages, intermediates_only=True
        )
        y = self.coarse(_enlarged(self.of_sixteenth(sixteenth), eighth) + self.of_eighth(eighth))
        y = self.fine(_enlarged(self.narrow(y), quarter) + self.of_quarter(quarter) + self.of_half(half))
        logits: Tensor = self.classify(y).float()
        return logits


def lesions_in_cells(network: nn.Module, x: Tensor, retina: Tensor) -> Tensor:
    """The most that each kind of lesion is thought to be in each cell of 8 pixels, none at the rim: (N, k, S/8, S/8).

    network: gives logits of k kinds, in cells of 4 or of 8 pixels. x: photos, float (N, 3, S, S) of 0..255 RGB.
    retina: which cells of 8 pixels are of it, as `cells_of` finds.
    """
    found: Tensor = network(x).sigmoid()
    if found.shape[2:] != retina.shape[2:]:
        found = F.max_pool2d(found, 2)
    return found * retina


@fast_arithmetic()
def fit_segmentation(
    start: Network, annotated: Annotated, *, steps: int, seed: int, fabric: Fabric
) -> SegmentationNetwork:
    """Train a network on crops of annotated and of healthy photographs, from the backbone of another; that is changed.

    Raises UsageError as `SegmentationNetwork` does.
    """
    device = fabric.device
    network = SegmentationNetwork(start).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LR, total_steps=steps + 1, pct_start=_WARM_UP, cycle_momentum=False
    )
    network.train()
    for photos, masks in crops(annotated, seed=seed, steps=steps, batch=_BATCH):
        x = photos.to(device).contiguous(memory_format=torch.channels_last)
        with fabric.autocast():
            logits = network(x)
        loss = segmentation_loss(logits, in_cells(masks.to(device)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy, lesions counting more, and one minus Dice's coefficient: a scalar.

    logits, masks: (n, k, s, s), of the first k kinds, masks 0..1 (Milletari, Navab and Ahmadi, "V-Net", 3DV 2016, for
    the latter).
    """
    weight = logits.new_tensor(_COUNTS[: logits.shape[1]])[:, None, None]
    entropy = F.binary_cross_entropy_with_logits(logits, masks, pos_weight=weight, reduction="none").mean((0, 2, 3))
    found = logits.sigmoid()
    common, both = (found * masks).sum((0, 2, 3)), (found + masks).sum((0, 2, 3))
    dice = (2 * common + _SMOOTH) / (both + _SMOOTH)
    return _CROSS_ENTROPY * entropy.sum() + (1 - dice).mean()


def _separable(width: int) -> Iterator[nn.Module]:
    """A convolution of each channel by itself, then one of all channels at each place."""
    yield from (nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width))
    yield from (nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _enlarged(y: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(y, size=like.shape[2:], mode="nearest")


def in_cells(masks: Tensor) -> Tensor:
    """How much of the fullest quarter of each cell is a lesion: (n, k, s, s) -> (n, k, s/4, s/4), by which none is too
    small to be learned.
    """
    return F.max_pool2d(F.avg_pool2d(masks, CELL // 2), 2)


def crops(annotated: Annotated, *, seed: int, steps: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of crops and their masks: float32 (n, 3, s, s) of 0..255, and (n, k, s, s) of 0..1."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    kinds = annotated.masks.shape[-1]
    places = [[np.argwhere(mask[..., kind] > _PLAINLY) for kind in range(kinds)] for mask in annotated.masks]
    inside = _SIDE / _WINDOW
    for _ in range(steps):
        windows = [_window(annotated, places, rng) for _ in range(batch)]
        photos, masks = (np.stack(each) for each in zip(*windows, strict=True))
        for change in draw_recompressions(batch, _AUGMENTATION.recompression, rng):
            photos[change.place] = recompress(photos[change.place], change)
        drawn = draw(torch.zeros(batch, 2), _AUGMENTATION, generator)
        drawn = replace(drawn, affine=drawn.affine * inside)
        yield apply(torch.from_numpy(photos), drawn, size=_SIDE), move(torch.from_numpy(masks), drawn, size=_SIDE)


def _window(annotated: Annotated, places: list[list[Integers]], rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A square of a photograph and of its masks, about a lesion or anywhere on the retina."""
    size = annotated.photos.shape[1]
    centre = rng.uniform(0.15, 0.85, 2) * size
    if len(annotated.healthy) and rng.random() < _HEALTHY:
        photo, mask = annotated.healthy[rng.integers(len(annotated.healthy))], None
    else:
        number = int(rng.integers(len(annotated.photos)))
        photo, mask = annotated.photos[number], annotated.masks[number]
        often = _DRAWN[: len(places[number])]
        here = places[number][rng.choice(len(often), p=often / often.sum())]
        if len(here) and rng.random() < _CENTRED:
            centre = here[rng.integers(len(here))] + rng.uniform(-0.3, 0.3, 2) * _SIDE
    top, left = np.clip((centre - _WINDOW / 2).astype(int), 0, size - _WINDOW)
    window = np.s_[top : top + _WINDOW, left : left + _WINDOW]
    cut = photo[window]
    return cut, np.zeros((*cut.shape[:2], annotated.masks.shape[-1]), np.uint8) if mask is None else mask[window]
