"""Teach a finder of microaneurysms by what a segmentation network sees, and find them on all photographs that train.

    python -m retigrade.experiments.finder --teacher FILE --data DATA... --splits FILE --lesions DIR --out DIR

It learns from the annotated photographs that taught the teacher, the first of `retigrade.experiments.segmentation`, and
from what the teacher sees on photographs that train and show more than half of the size that both look at. How well it
finds is measured on the other annotated photographs, as the average precision in cells of 8 pixels. What is written is
`finder.safetensors` and `lesion-maps.npy`, which `retigrade.experiments.counting` takes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from lightning_fabric import Fabric

from retigrade.arrays import Pixels
from retigrade.data.cache import canonical
from retigrade.data.manifest import Entry, read_manifest
from retigrade.data.splits import TRAIN, narrow, read_splits
from retigrade.errors import DataError
from retigrade.files import make_folder, replacing
from retigrade.training.cells import CELL, cells_of
from retigrade.training.device import open_fabric
from retigrade.training.finder import fit_finder
from retigrade.training.lesion_maps import MAP_SIDE, SIDE, find_lesions, prepare_annotated
from retigrade.training.lesion_supervision import annotated_apart
from retigrade.training.segmentation import Annotated, SegmentationNetwork

FINDER, MAPS = "finder.safetensors", "lesion-maps.npy"
_MOST = 2000  # photographs that nobody annotated, by which memory stays bounded
_SURE = 0.5  # of a cell, how much of its fullest quarter a lesion must cover to count as one
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """The teacher, the labelled and the annotated photographs, and where the finder goes; the command's arguments."""

    teacher: Path
    """A segmentation network that the first, third, ... of the annotated photographs taught."""
    data: tuple[Path, ...]
    splits: Path
    lesions: Path
    out: Path
    steps: int = 7000
    backbone: str = "mobilenetv2_100"
    """Of the teacher."""
    seed: int = 1


def main(arguments: Teaching) -> None:
    """Teach, say how well it finds, and let it look at every photograph that trains."""
    manifest = narrow(read_manifest(list(arguments.data), skip_unreadable=True), arguments.splits)
    train = read_splits(arguments.splits, manifest).part(TRAIN)
    annotated = annotated_apart(manifest, train, arguments.lesions)
    known, others = (prepare_annotated(annotated[begin::2], kinds=1) for begin in (0, 1))
    fabric = open_fabric(accelerator="auto")
    teacher = SegmentationNetwork.read(arguments.teacher, backbone=arguments.backbone).to(fabric.device)
    rng = np.random.default_rng(arguments.seed)
    sharp = _sharp([manifest.entries[index] for index in rng.permutation(train)])[:_MOST]
    if not sharp:
        raise DataError(f"no photograph that trains has more than {SIDE // 2} pixels, and others show no small lesion")
    seen = _seen(teacher, sharp, fabric=fabric)
    make_folder(arguments.out)
    finder = fit_finder(known, seen, steps=arguments.steps, seed=arguments.seed, fabric=fabric)
    for name, some in (("that it learned from", known), ("of the others", others)):
        found, truth = find_lesions(finder, some.photos, fabric=fabric), _lesions(some.masks)
        precision = average_precision(found, truth)
        _log.info("annotated photographs %s (%d): average precision %.3f", name, len(truth), precision)
    finder.save(arguments.out / FINDER)
    maps = np.zeros((len(manifest), MAP_SIDE, MAP_SIDE, 1), np.uint8)
    for index in train:
        photo = canonical(manifest.entries[index], size=SIDE)
        maps[index] = find_lesions(finder, photo[None], fabric=fabric)[0]
    with replacing(arguments.out / MAPS) as temporary, temporary.open("wb") as file:
        np.save(file, maps)


def average_precision(found: Pixels, truth: Pixels) -> float:
    """Of finding the cells where a lesion is, by how surely it is found: both uint8 (n, s, s, 1)."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth.ravel() > 0, found.ravel()))


def _sharp(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if max(entry.width, entry.height) > SIDE // 2]


def _seen(teacher: SegmentationNetwork, entries: Sequence[Entry], *, fabric: Fabric) -> Annotated:
    """What a segmentation network sees of microaneurysms on photographs, as masks."""
    photos = np.stack([canonical(entry, size=SIDE) for entry in entries])
    masks = np.empty((*photos.shape[:3], 1), np.uint8)
    for place, photo in enumerate(photos):
        x = torch.from_numpy(photo[None]).to(fabric.device).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            retina = F.interpolate(cells_of(x).retina, scale_factor=2)  # the teacher's cells are half as large
            with fabric.autocast():
                found = teacher(x.contiguous(memory_format=torch.channels_last))[:, :1].sigmoid() * retina
        cells = (found[0, 0].float() * 255).round().byte().cpu().numpy()
        masks[place, ..., 0] = cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return Annotated(photos, masks, photos[:0])


def _lesions(masks: Pixels) -> Pixels:
    """In which cells of 8 pixels lesions are, uint8 (n, s, s, k) -> (n, s/8, s/8, k)."""
    n, side, _, kinds = masks.shape
    quarter, cells = CELL // 2, side // (2 * CELL)
    shares = masks.reshape(n, side // quarter, quarter, side // quarter, quarter, kinds).mean((2, 4)) / 255
    fullest = shares.reshape(n, cells, CELL, cells, CELL, kinds).max((2, 4))
    return np.asarray(fullest > _SURE, np.uint8)


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Teaching)
