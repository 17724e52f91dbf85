"""A network of few layers that finds microaneurysms, at a small part of what a segmentation network costs.

They are dots: to tell them from vessels and from dust takes detail, and few layers. A few dozen annotated photographs
are too few to learn that from nothing, so most of what it learns from is what a segmentation network sees of them on
photographs that nobody annotated (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn

from retigrade.data.annotations import KINDS
from retigrade.errors import UsageError
from retigrade.training.cells import CELL
from retigrade.training.cpu import fast_arithmetic
from retigrade.training.segmentation import RARE, Annotated, crops, in_cells, segmentation_loss
from retigrade.training.weights import write_weights

ARCHITECTURE = "microaneurysm finder"
"""What the notes of its weights say."""
_NARROW, _WIDE = 16, 32  # channels in cells of 4 pixels and of 8
_EARLY, _LATE = 2, 4  # blocks there
_SCALE = 64.0  # of 0..255; the batch norm that follows takes the mean away
_ANNOTATED_BATCH, _SEEN_BATCH = 6, 10
_LR, _WEIGHT_DECAY, _WARM_UP = 4e-3, 1e-3, 0.05


class Finder(nn.Module):
    """Photos, float (N, 3, S, S) of 0..255 RGB, to logits of microaneurysms, (N, 1, S/8, S/8)."""

    kinds = tuple(KINDS)[:1]

    def __init__(self) -> None:
        """Untaught."""
        super().__init__()
        self.pixels = nn.Conv2d(3, _NARROW, CELL, stride=CELL, bias=False)
        self.narrow = nn.Sequential(nn.BatchNorm2d(_NARROW), nn.ReLU(), *(_Block(_NARROW) for _ in range(_EARLY)))
        down = nn.Conv2d(_NARROW, _WIDE, 2, stride=2, bias=False)
        self.wide = nn.Sequential(down, nn.BatchNorm2d(_WIDE), nn.ReLU(), *(_Block(_WIDE) for _ in range(_LATE)))
        self.classify = nn.Conv2d(_WIDE, 1, 1)
        nn.init.constant_(self.classify.bias, RARE)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> Self:
        """A network that `save` wrote, in evaluation mode; UsageError where the file is none."""
        network = cls()
        try:
            network.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise UsageError(f"{path}: is no {ARCHITECTURE} of this version; teach it anew") from error
        return network.eval()

    def save(self, path: Path) -> None:
        """Write all weights as safetensors."""
        write_weights(path, self, notes={"architecture": ARCHITECTURE})

    def forward(self, photos: Tensor) -> Tensor:
        """Return the logits at each place."""
        # The weights are made smaller rather than the photos, which have more numbers.
        x = F.conv2d(photos, self.pixels.weight / _SCALE, stride=CELL)
        logits: Tensor = self.classify(self.wide(self.narrow(x))).float()
        return logits


class _Block(nn.Module):
    """A convolution of each channel by itself, one of all channels at each place, and what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


@fast_arithmetic()
def fit_finder(annotated: Annotated, seen: Annotated, *, steps: int, seed: int, fabric: Fabric) -> Finder:
    """Train on crops of annotated photographs, and of such whose masks are what a segmentation network sees, 0..255.

    Masks are of microaneurysms alone: uint8 (n, S, S, 1).
    """
    device = fabric.device
    torch.manual_seed(seed)
    network = Finder().to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LR, total_steps=steps + 1, pct_start=_WARM_UP, cycle_momentum=False
    )
    network.train()
    for some, others in zip(
        crops(annotated, seed=seed, steps=steps, batch=_ANNOTATED_BATCH),
        crops(seen, seed=seed + 1, steps=steps, batch=_SEEN_BATCH),
        strict=True,
    ):
        photos, masks = (torch.cat(pair).to(device) for pair in zip(some, others, strict=True))
        with fabric.autocast():
            logits = network(photos.contiguous(memory_format=torch.channels_last))
        loss = segmentation_loss(logits, F.max_pool2d(in_cells(masks), 2))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()
