"""What training minimises, and how the recipe moves the weights there."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor, nn

from retigrade.icdr import GRADES
from retigrade.training.network import NetworkOutput
from retigrade.training.recipe import Recipe


def loss_of(answer: NetworkOutput, targets: Tensor, recipe: Recipe) -> Tensor:
    """How far an answer for n photographs is from their targets, float32 (n, 5).

    The recipe's share of it is of the fine evidence by itself, so that this learns to tell the grade unaided.
    """
    loss = _distance(answer.logits, targets, ordinal=recipe.ordinal)
    if recipe.fine:
        loss = loss + recipe.fine * _distance(answer.fine, targets, ordinal=recipe.ordinal)
    return loss


def _distance(logits: Tensor, targets: Tensor, *, ordinal: float) -> Tensor:
    """Cross-entropy with soft targets plus `ordinal` times the squared error of the expected grade."""
    loss = F.cross_entropy(logits, targets)
    if ordinal:
        scale = torch.arange(len(GRADES), device=logits.device, dtype=logits.dtype)
        loss = loss + ordinal * F.mse_loss(logits.softmax(1) @ scale, targets @ scale)
    return loss


def optimizer_of(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; norms and biases are not decayed."""
    weights = [value for value in network.parameters() if value.ndim > 1]
    rest = [value for value in network.parameters() if value.ndim <= 1]  # norms and biases are not decayed
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.rate, fused=True)


def schedule_of(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's learning rate over all steps of all epochs."""
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    total = recipe.epochs * steps + 1
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.rate,
        total_steps=total,
        pct_start=max(0.2, 2 / total),  # a rise of less than one step would divide by zero
        div_factor=10,
        final_div_factor=100,
    )
