"""What training minimises: cross-entropy with soft targets, and the squared error of the expected grade."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor

from retigrade.icdr import GRADES
from retigrade.training.network import NetworkOutput
from retigrade.training.recipe import Recipe

_LESIONS_COUNT = 4.0  # times as much as places without


def training_loss(output: NetworkOutput, targets: Tensor, recipe: Recipe) -> Tensor:
    """The loss of a network's output for n photographs against targets, float32 (n, 5): a scalar.

    `recipe.high_resolution` times the loss of the high-resolution head by itself is added, so that this head learns to
    tell the grade unaided.
    """
    loss = grading_loss(output.logits, targets, ordinal=recipe.ordinal)
    if recipe.high_resolution:
        own = grading_loss(output.high_resolution, targets, ordinal=recipe.ordinal)
        loss = loss + recipe.high_resolution * own
    return loss


def lesion_loss(lesions: tuple[Tensor, ...], maps: Tensor) -> Tensor:
    """How far logits of lesions at places are from maps that say where they are: a scalar.

    lesions: (n, k, s, s) each, of feature maps of several sizes. maps: float32 (n, k, S, S), 0..1; a place of a
    feature map has what its cells have at most. Cross-entropy, lesions counting more, summed over kinds; the smaller
    the feature map, the less it counts.
    """
    loss = maps.new_zeros(())
    for logits in lesions:
        wanted = F.adaptive_max_pool2d(maps, logits.shape[2:])
        weight = logits.new_full((), _LESIONS_COUNT)
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted, pos_weight=weight, reduction="none")
        loss = loss + each.mean((0, 2, 3)).sum() * (logits.shape[-1] / lesions[0].shape[-1]) ** 0.5
    return loss


def grading_loss(logits: Tensor, targets: Tensor, *, ordinal: float) -> Tensor:
    """Cross-entropy with soft targets plus `ordinal` times the squared error of the expected grade.

    logits, targets: (n, 5), rows of targets sum to 1.
    """
    loss = F.cross_entropy(logits, targets)
    if ordinal:
        scale = torch.arange(len(GRADES), device=logits.device, dtype=logits.dtype)
        loss = loss + ordinal * F.mse_loss(logits.softmax(1) @ scale, targets @ scale)
    return loss
