"""Lesion supervision: teach the high-resolution head where lesions are, from photographs that experts annotated.

Stages of whole photographs do not say which places the evidence is to come from; a few annotated photographs do. The
high-resolution head learns to complete the evidence of the last feature map's head, so that together they tell places
of lesions from clear ones, and finds nothing on healthy retinas, while it keeps to the logits that were (Hinton,
Vinyals and Dean, 2015). What it says otherwise all the same, the head of the
last feature map takes back by ridge regression: so the grade rests on the same photographs as before, and the maps,
which still average to the logits, on the right places (Ross, Hughes and Doshi-Velez, "Right for the Right Reasons",
IJCAI 2017).
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
from torch import Tensor

from retigrade.arrays import Floats, Integers, Pixels
from retigrade.data.annotations import AnnotatedPhoto, read_annotated
from retigrade.data.duplicates import find_pairs
from retigrade.data.groups import connected_components
from retigrade.data.manifest import Manifest
from retigrade.errors import UsageError
from retigrade.fundus.canonical import canonical_view
from retigrade.training.dataset import TrainingData
from retigrade.training.network import HighResolutionHead, Network

_MOST = 3072  # photographs whose logits are kept, by which memory stays bounded
_STEPS, _BATCH, _ANNOTATED_BATCH = 400, 48, 24
_LR, _WEIGHT_DECAY = 4e-3, 1e-3
_PULL = 0.1  # of the ridge regression, for each photograph
_LESIONS, _HEALTHY, _LOGITS_KEPT = 0.5, 0.25, 0.3  # weights: of lesions, of healthy retinas, of logits kept
_TOUCHED = 0.01  # of a cell: how much of it a lesion must cover to count
_CLEAR = 0.02  # of a cell: how much of a lesion's margin a clear one may hold

_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """Annotated photographs, prepared: photos uint8 (n, S, S, 3); lesions, margins and retina float32 (n, S, S), 0..1.

    margins: lesions dilated a little. digests: SHA-256 of the photographs' files.
    """

    photos: Pixels
    lesions: Floats
    margins: Floats
    retina: Floats
    digests: tuple[str, ...]


def prepare_lesions(annotated: Iterable[AnnotatedPhoto], *, size: int) -> Lesions:
    """Prepare annotated photographs as the network sees them. Raises NotAFundus where one has no retinal disc."""
    photos, lesions, margins, retinas, digests = [], [], [], [], []
    for item in annotated:
        view = canonical_view(item.photo, size=size)
        mask, retina = view.to_canonical(item.lesions.astype(np.float32))
        margin, _ = view.to_canonical(item.dilated.astype(np.float32))
        photos.append(view.canonical)
        lesions.append(mask)
        margins.append(margin)
        retinas.append(retina.astype(np.float32))
        digests.append(item.photo.sha256)
    return Lesions(np.stack(photos), np.stack(lesions), np.stack(margins), np.stack(retinas), tuple(digests))


def annotated_apart(manifest: Manifest, train: Integers, folder: Path) -> list[AnnotatedPhoto]:
    """The annotated photographs of a folder that show no eye of a manifest but those that train, int64 indices."""
    unseen = np.setdiff1d(np.arange(len(manifest)), train)
    return without_eyes_of([manifest.paths[index] for index in unseen], list(read_annotated(folder)))


def without_eyes_of(others: Sequence[Path], annotated: Sequence[AnnotatedPhoto]) -> list[AnnotatedPhoto]:
    """Leave out the annotated photographs that show the same eye as one of the others, which must stay unseen."""
    first = len(others)
    pairs = find_pairs([*others, *(item.path for item in annotated)])
    linked = connected_components(((pair.first, pair.second) for pair in pairs), size=first + len(annotated))
    known = {index - first for group in linked if group[0] < first for index in group if index >= first}
    return [item for place, item in enumerate(annotated) if place not in known]


def supervise_lesions(
    network: Network, data: TrainingData, lesions: Lesions, *, seed: int, device: torch.device
) -> None:
    """Train the network's high-resolution head in place, and let the head of the last feature map take back the rest.

    The training photographs keep their logits as far as the latter can. Raises UsageError for a network without the
    former.
    """
    head = network.high_resolution
    if head is None:
        raise UsageError("lesion supervision needs a high-resolution head, which this recipe or backbone has not")
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    kept = data.train[torch.randperm(len(data.train), generator=generator)[:_MOST].numpy()]
    known = _predict(network, head, data.photos, kept, device=device)
    turned = _turned(lesions)
    annotated = _predict(network, head, turned.photos, np.arange(len(turned.photos)), device=device)
    places = _places(turned, side=annotated.feature_map.shape[-1])
    healthy = torch.from_numpy(data.grades[kept] == 0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=_STEPS + 1)
    head.train()
    for _ in range(_STEPS):
        some = torch.randint(0, len(kept), (_BATCH,), generator=generator)
        few = torch.randint(0, len(turned.photos), (_ANNOTATED_BATCH,), generator=generator)
        both = torch.cat([known.feature_map[some], annotated.feature_map[few]]).float()
        evidence = head(both.to(device)).float().cpu()
        loss = _moved(evidence[:_BATCH], known.coarse[some], known.high_resolution[some])
        shown = _disease_evidence(evidence[_BATCH:]) + annotated.coarse_evidence[few]
        loss = loss + _LESIONS * _missed(shown, places.touched[few], places.weight[few])
        if healthy[some].any():
            loss = loss + _HEALTHY * F.softplus(_disease_evidence(evidence[:_BATCH][healthy[some]])).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    head.eval()
    _take_back(network, head, known, device=device)


class _Predicted(NamedTuple):
    """Of n photographs: an early feature map float16 (n, C, s, s), each head's logits (n, 5), the pooled features.

    coarse_evidence: for disease at each place, as the last feature map's head alone has it, (n, s, s).
    """

    feature_map: Tensor
    coarse_evidence: Tensor
    coarse: Tensor
    high_resolution: Tensor
    features: Tensor


class _Places(NamedTuple):
    """Of each cell (n, s, s): 1 where a lesion touches it; and its weight, 0 where it is neither clear nor touched."""

    touched: Tensor
    weight: Tensor


def _predict(
    network: Network, head: HighResolutionHead, photos: Pixels, indices: Integers, *, device: torch.device
) -> _Predicted:
    batches = []
    with torch.no_grad():
        for begin in range(0, len(indices), 32):
            part = torch.from_numpy(photos[indices[begin : begin + 32]]).to(device)
            x = part.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
            feature_map, output = network.forward_with_feature_map(x)
            near = output.high_resolution
            logits = (output.logits - near).cpu(), near.cpu()
            coarse = _disease_evidence(output.maps - head(feature_map).float()).cpu()
            batches.append(_Predicted(feature_map.half().cpu(), coarse, *logits, output.features.cpu()))
    return _Predicted(*(torch.cat(column) for column in zip(*batches, strict=True)))


def _take_back(network: Network, head: HighResolutionHead, known: _Predicted, *, device: torch.device) -> None:
    """Add to the last feature map's head what the high-resolution head no longer says, as far as the former knows it.

    Both are linear in what they pool, so it is a regression of logits on features.
    """
    with torch.no_grad():
        parts = [
            head(known.feature_map[begin : begin + _BATCH].float().to(device)).mean((2, 3)).float().cpu()
            for begin in range(0, len(known.feature_map), _BATCH)
        ]
        lost = (known.high_resolution - torch.cat(parts)).double()
        features = F.pad(known.features.double(), (0, 1), value=1.0)
        pull = _PULL * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
        pull[-1, -1] = 1e-6 * len(features)  # the bias is free
        weights = torch.linalg.solve(features.T @ features + pull, features.T @ lost).T.float()
    network.add_to_head(weights[:, -1], weights[:, :-1])


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
    counted = (touched | (cells(lesions.margins) < _CLEAR)) & (cells(lesions.retina) > 0.5)
    return _Places(touched.float(), counted.float())


def _disease_evidence(evidence: Tensor) -> Tensor:
    """The evidence for disease at each place: (n, 5, s, s) to (n, s, s)."""
    return evidence[:, 1:].mean(1) - evidence[:, 0]


def _moved(evidence: Tensor, coarse: Tensor, before: Tensor) -> Tensor:
    """How far the logits have moved from what they were."""
    logits = evidence.mean((2, 3))
    target = (coarse + before).softmax(1)
    divergence = F.kl_div((coarse + logits).log_softmax(1), target, reduction="batchmean")
    return divergence + _LOGITS_KEPT * F.mse_loss(logits, before)


def _missed(evidence: Tensor, touched: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of telling touched cells from clear ones, both kinds counting half."""
    hit, clear = touched * weight, (1 - touched) * weight
    share = 0.5 * hit / hit.sum().clamp(min=1) + 0.5 * clear / clear.sum().clamp(min=1)
    return (F.binary_cross_entropy_with_logits(evidence, touched, reduction="none") * share).sum()
