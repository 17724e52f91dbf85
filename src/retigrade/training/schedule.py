"""How the weights move: optimizer, learning-rate schedule, and the moving average that grades."""

from __future__ import annotations

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from retigrade.training.recipe import Recipe

_WARM_UP = 10.0  # steps after which the moving average forgets about as slowly as the recipe says


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; norms and biases are not decayed."""
    moving = [value for value in network.parameters() if value.requires_grad]
    weights = [value for value in moving if value.ndim > 1]
    norms_and_biases = [value for value in moving if value.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": norms_and_biases, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int) -> LRScheduler:
    """The recipe's learning rate over all epochs of `steps` steps each."""
    if recipe.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    total = recipe.epochs * steps + 1
    return OneCycleLR(
        optimizer,
        recipe.lr,
        total_steps=total,
        pct_start=max(0.2, 2 / total),  # a rise of less than one step would divide by zero
        div_factor=10,
        final_div_factor=100,
    )


def make_moving_average(network: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """The exponential moving average of the weights, which forgets faster in the first steps; None without one."""
    if not recipe.ema_decay:
        return None
    return ModelEmaV3(
        network, decay=recipe.ema_decay, use_warmup=True, warmup_gamma=_WARM_UP, warmup_power=1.0, foreach=True
    )
