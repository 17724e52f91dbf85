"""What training minimises: cross-entropy with soft targets, and the squared error of the expected grade."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor

from retigrade.icdr import GRADES
from retigrade.training.network import NetworkOutput
from retigrade.training.recipe import Recipe


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


def grading_loss(logits: Tensor, targets: Tensor, *, ordinal: float) -> Tensor:
    """Cross-entropy with soft targets plus `ordinal` times the squared error of the expected grade.

    logits, targets: (n, 5), rows of targets sum to 1.
    """
    loss = F.cross_entropy(logits, targets)
    if ordinal:
        scale = torch.arange(len(GRADES), device=logits.device, dtype=logits.dtype)
        loss = loss + ordinal * F.mse_loss(logits.softmax(1) @ scale, targets @ scale)
    return loss
