"""Maps of lesions on photographs that nobody annotated, by segmentation networks that did not learn from them.

The photographs are cut in halves, none sharing a patient or a duplicate with the other. Each half is seen by the
network that the annotated photographs of the other half taught, with the healthy photographs of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from retigrade.arrays import Integers, Pixels
from retigrade.data.annotations import KINDS, AnnotatedPhoto
from retigrade.data.cache import canonical
from retigrade.data.manifest import Entry, Manifest
from retigrade.data.splits import Splits, within
from retigrade.errors import UsageError
from retigrade.files import replacing
from retigrade.fundus.canonical import canonical_view
from retigrade.icdr import Grade
from retigrade.training.cells import cells_of
from retigrade.training.config import TrainConfig
from retigrade.training.dataset import Fold
from retigrade.training.loop import starting_network
from retigrade.training.network import Network
from retigrade.training.segmentation import Annotated, SegmentationNetwork, fit_segmentation, lesions_in_cells

STEPS = 1500
"""Of the training of one network: about twenty minutes of a core."""
SIDE = 704
"""Of the photographs that they see, in pixels."""
MAP_SIDE = 88
"""Of the maps, in cells."""
_FEWEST = 4  # annotated photographs
_MOST_HEALTHY = 500  # for each network, by which memory stays bounded
_BATCH = 4


def lesion_maps(
    entries: Sequence[Entry],
    halves: tuple[Integers, Integers],
    annotated: Sequence[AnnotatedPhoto],
    *,
    make_start: Callable[[], Network],
    seed: int,
    fabric: Fabric,
) -> tuple[Pixels, list[SegmentationNetwork]]:
    """How surely each kind of lesion is at each place of photographs, uint8 (N, 88, 88, 4), of 255; and the networks.

    halves: int64 indices of the photographs that train, in two parts; of others there is no map, but zeros. make_start:
    makes the network whose backbone each starts from. Raises UsageError where too few photographs are annotated, and as
    `SegmentationNetwork` and `canonical` do.
    """
    if len(annotated) < _FEWEST:
        raise UsageError(
            f"places of lesions are learned from at least {_FEWEST} annotated photographs of eyes that neither "
            f"validate nor test, got {len(annotated)}: annotate more, or take a recipe without"
        )
    maps = np.zeros((len(entries), MAP_SIDE, MAP_SIDE, len(KINDS)), np.uint8)
    networks = []
    for number, (half, other) in enumerate(zip(halves, halves[::-1], strict=True)):
        healthy = _sharp_healthy([entries[index] for index in other])
        taught = prepare_annotated(annotated[number::2], healthy=healthy)
        network = fit_segmentation(make_start(), taught, steps=STEPS, seed=seed + number, fabric=fabric)
        for begin in range(0, len(half), _BATCH):
            some = half[begin : begin + _BATCH]
            photos = np.stack([canonical(entries[index], size=SIDE) for index in some])
            maps[some] = find_lesions(network, photos, fabric=fabric)
        networks.append(network)
    return maps, networks


def kept_lesion_maps(
    manifest: Manifest,
    splits: Splits,
    fold: Fold,
    annotated: Sequence[AnnotatedPhoto],
    config: TrainConfig,
    *,
    folder: Path,
    fabric: Fabric,
) -> Pixels:
    """`lesion_maps` of the photographs that train a fold, memory-mapped from a file that is made where it is not.

    The networks are kept beside it. Raises as `lesion_maps` does, and UsageError where the file cannot be written.
    """
    seed = config.start.seed
    identity = hashlib.sha256(f"{manifest.fingerprint} {fold.digest} {seed}".encode())
    path = folder / f"lesion-maps-{identity.hexdigest()[:16]}.npy"
    if not path.exists():
        halves = within(manifest, splits, fold.train, shares={"first": 0.5, "second": 0.5}, seed=seed)
        maps, networks = lesion_maps(
            manifest.entries,
            (halves["first"], halves["second"]),
            annotated,
            make_start=lambda: starting_network(config.recipe, config.start),
            seed=seed,
            fabric=fabric,
        )
        for number, network in enumerate(networks, start=1):
            network.save(folder / f"segmentation-{number}.safetensors")
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, maps)
    return np.asarray(np.load(path, mmap_mode="r"))


def find_lesions(network: nn.Module, photos: Pixels, *, fabric: Fabric) -> Pixels:
    """The most that each of k kinds of lesions is thought to be in each cell, none at the rim: uint8 (n, S/8, S/8, k).

    network: as of `lesions_in_cells`. photos: uint8 (n, S, S, 3).
    """
    x = torch.from_numpy(photos).to(fabric.device).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        retina = cells_of(x).retina
        with fabric.autocast():
            cells = lesions_in_cells(network, x.contiguous(memory_format=torch.channels_last), retina)
    return np.asarray((cells * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def _sharp_healthy(entries: Sequence[Entry]) -> Pixels:
    """Healthy photographs with the most detail, prepared: uint8 (n, 704, 704, 3)."""
    healthy = [entry for entry in entries if entry.grade == Grade.NONE and not entry.rejected]
    healthy.sort(key=lambda entry: -max(entry.width, entry.height))
    photos = [canonical(entry, size=SIDE) for entry in healthy[:_MOST_HEALTHY]]
    return np.stack(photos) if photos else np.empty((0, SIDE, SIDE, 3), np.uint8)


def prepare_annotated(
    items: Sequence[AnnotatedPhoto], *, healthy: Pixels | None = None, kinds: int = len(KINDS)
) -> Annotated:
    """Annotated photographs as a network sees them, with masks of the first kinds of lesions; one or more.

    healthy: photographs to go with them, uint8 (n, 704, 704, 3). Raises NotAFundus where one has no retinal disc.
    """
    photos, masks = [], []
    for item in items:
        view = canonical_view(item.photo, size=SIDE)
        shown = [((item.mask & bit) > 0).astype(np.float32) for bit in list(KINDS.values())[:kinds]]
        photos.append(view.canonical)
        masks.append((np.stack([view.to_canonical(each)[0] for each in shown], -1) * 255).astype(np.uint8))
    prepared = np.stack(photos)
    return Annotated(prepared, np.stack(masks), prepared[:0] if healthy is None else healthy)
