"""Teach the fine evidence where lesions are, from photographs on which experts marked them.

Stages of whole photographs do not say which places the evidence is to come from; a few photographs with marks do. The
head of the fine evidence learns to tell marked places from unmarked ones, and finds nothing on healthy retinas, while
the logits stay what they were (Hinton, Vinyals and Dean, 2015): the grade rests on the same photographs as before, and
the maps, which still average to the logits, on the right places (Ross, Hughes and Doshi-Velez, "Right for the Right
Reasons", IJCAI 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor, nn

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.data.annotations import AnnotatedPhoto
from retigrade.data.duplicates import find_pairs
from retigrade.data.groups import connected_components
from retigrade.fundus.canonical import canonical_view
from retigrade.training.dataset import TrainingData
from retigrade.training.network import Network

_MOST = 2048  # photographs whose logits are kept, by which memory stays bounded
_STEPS, _BATCH, _MARKED_BATCH = 400, 48, 24
_RATE, _WEIGHT_DECAY = 4e-3, 1e-3
_PLACES, _HEALTHY, _FINE = 0.5, 0.25, 0.3  # weights: of marked places, of healthy retinas, of the fine logits kept
_TOUCHED = 0.01  # of a cell: how much of it a lesion must cover to count
_CLEAR = 0.02  # of a cell: how much of a lesion's margin an unmarked one may hold

_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """Marked photographs, prepared: photos uint8 (n, S, S, 3); lesions, margins and retina float32 (n, S, S), 0..1.

    margins: lesions dilated a little. digests: SHA-256 of the photographs' files.
    """

    photos: Pixels
    lesions: Floats
    margins: Floats
    retina: Floats
    digests: tuple[str, ...]


def prepare_lesions(annotated: Iterable[AnnotatedPhoto], *, size: int) -> Lesions:
    """Prepare marked photographs as the network sees them. Raises NotAFundus where one has no retinal disc."""
    photos, lesions, margins, retinas, digests = [], [], [], [], []
    for one in annotated:
        view = canonical_view(one.photo, size=size)
        own, retina = view.to_canonical(one.lesions.astype(np.float32))
        margin, _ = view.to_canonical(one.dilated.astype(np.float32))
        photos.append(view.canonical)
        lesions.append(own)
        margins.append(margin)
        retinas.append(retina.astype(np.float32))
        digests.append(one.photo.sha256)
    return Lesions(np.stack(photos), np.stack(lesions), np.stack(margins), np.stack(retinas), tuple(digests))


def not_of_an_eye_in(others: Sequence[Path], annotated: Sequence[AnnotatedPhoto]) -> list[AnnotatedPhoto]:
    """Leave out the marked photographs that show the same eye as one of the others, which must stay unseen."""
    first = len(others)
    pairs = find_pairs([*others, *(photo.path for photo in annotated)])
    linked = connected_components(((pair.first, pair.second) for pair in pairs), size=first + len(annotated))
    known = {index - first for group in linked if group[0] < first for index in group if index >= first}
    return [one for place, one in enumerate(annotated) if place not in known]


def supervise_lesions(
    network: Network, lesson: TrainingData, lesions: Lesions, *, seed: int, device: torch.device
) -> None:
    """Train the head of the network's fine evidence in place; all else stays as it is.

    The lesson's training photographs keep their logits. Raises ValueError for a network without fine evidence.
    """
    if network.fine is None:
        raise ValueError("there is no fine evidence to teach; train with a recipe that has it")
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    kept = lesson.train[torch.randperm(len(lesson.train), generator=generator)[:_MOST].numpy()]
    known = _look_at(network, lesson.photos, kept, device=device)
    turned = _turned(lesions)
    annotated = _look_at(network, turned.photos, np.arange(len(turned.photos)), device=device)
    places = _places(turned, side=annotated.early.shape[-1])
    healthy = torch.from_numpy(lesson.grades[kept] == 0)
    head: nn.Module = network.fine
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS + 1)
    head.train()
    for _ in range(_STEPS):
        some = torch.randint(0, len(kept), (_BATCH,), generator=generator)
        few = torch.randint(0, len(turned.photos), (_MARKED_BATCH,), generator=generator)
        found = head(torch.cat([known.early[some], annotated.early[few]]).float().to(device)).float().cpu()
        loss = _moved(found[:_BATCH], known.coarse[some], known.fine[some])
        loss = loss + _PLACES * _missed(_evidence(found[_BATCH:]), places.touched[few], places.weight[few])
        if healthy[some].any():
            loss = loss + _HEALTHY * F.softplus(_evidence(found[:_BATCH][healthy[some]])).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    head.eval()


class _Looks(NamedTuple):
    """Of n photographs: the early field float16 (n, C, s, s), and the coarse and the fine part of the logits (n, 5)."""

    early: Tensor
    coarse: Tensor
    fine: Tensor


class _Places(NamedTuple):
    """Of each cell (n, s, s): 1 where a lesion touches it; and its weight, 0 where it is neither clear nor touched."""

    touched: Tensor
    weight: Tensor


def _look_at(network: Network, photos: Pixels, indices: Integers, *, device: torch.device) -> _Looks:
    looks = []
    with torch.no_grad():
        for begin in range(0, len(indices), 32):
            part = torch.from_numpy(photos[indices[begin : begin + 32]]).to(device)
            early, answer = network.look(part.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last))
            looks.append(_Looks(early.half().cpu(), (answer.logits - answer.fine).cpu(), answer.fine.cpu()))
    return _Looks(*(torch.cat(column) for column in zip(*looks, strict=True)))


def _turned(lesions: Lesions) -> Lesions:
    """All eight turns and reflections of each."""

    def all_ways(pictures: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
        turns = [np.rot90(pictures, quarter, axes=(1, 2)) for quarter in range(4)]
        return np.concatenate([*turns, *(turn[:, :, ::-1] for turn in turns)])

    return Lesions(
        all_ways(lesions.photos),
        all_ways(lesions.lesions),
        all_ways(lesions.margins),
        all_ways(lesions.retina),
        lesions.digests * 8,
    )


def _places(lesions: Lesions, *, side: int) -> _Places:
    def cells(masks: Floats) -> Tensor:
        small = [cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA) for mask in masks]
        return torch.from_numpy(np.stack(small))

    touched = cells(lesions.lesions) > _TOUCHED
    told = (touched | (cells(lesions.margins) < _CLEAR)) & (cells(lesions.retina) > 0.5)
    return _Places(touched.float(), told.float())


def _evidence(found: Tensor) -> Tensor:
    """The evidence for disease at each place: (n, 5, s, s) to (n, s, s)."""
    return found[:, 1:].mean(1) - found[:, 0]


def _moved(found: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
    """How far the logits have moved from what they were."""
    logits = found.mean((2, 3))
    before = (coarse + fine).softmax(1)
    return F.kl_div((coarse + logits).log_softmax(1), before, reduction="batchmean") + _FINE * F.mse_loss(logits, fine)


def _missed(evidence: Tensor, touched: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of telling touched cells from clear ones, both kinds counting half."""
    own, other = touched * weight, (1 - touched) * weight
    share = 0.5 * own / own.sum().clamp(min=1) + 0.5 * other / other.sum().clamp(min=1)
    return (F.binary_cross_entropy_with_logits(evidence, touched, reduction="none") * share).sum()
