"""The device to train on, and the precision that it is fast in."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric

from retigrade.training.cpu import Precision, cpu_precision, keep_memory


def open_fabric(*, accelerator: str = "auto") -> Fabric:
    """Return the device to train on, in bfloat16 where it has the instructions; under torchrun, this process's share.

    accelerator: `auto`, `cpu` or `gpu`.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    machines = int(os.environ.get("WORLD_SIZE", "1")) // here
    # Some backbones carry layers that the pooled head passes by.
    strategy = "ddp_find_unused_parameters_true" if here * machines > 1 else "auto"
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=machines,
        strategy=strategy,
        precision=gpu_precision() if on_gpu else cpu_precision(),
    )
    if fabric.device.type == "cpu":
        keep_memory()
    else:
        torch.backends.cudnn.benchmark = True  # batches are of two sizes at most, so its trials pay off
    fabric.launch()
    return fabric


def gpu_precision() -> Precision:
    """bfloat16 where the GPU has it."""
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
