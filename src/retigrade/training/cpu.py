"""What makes training on a CPU fast without changing what is learned."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor
from torch.overrides import TorchFunctionMode

Precision = Literal["bf16-mixed", "32-true"]
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last as 64-bit Arm names it
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt(3)
_RESERVE = 256 * 2**20
_RELU6 = {"min_val": 0.0, "max_val": 6.0, "inplace": True}  # as torch.nn.ReLU6 asks for it
_SIX = 0x40C0  # 6 in bfloat16


def cpu_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """bfloat16 where the processor has the instructions; elsewhere it is emulated, and float32 is faster."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux: nothing says that there are such instructions
        return "32-true"
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return "bf16-mixed" if flags & _BFLOAT16_FLAGS else "32-true"


def keep_memory() -> None:
    """Keep freed memory in this process, where the C library is glibc.

    Every step allocates and frees the same gigabyte; handing it back to the system and having it zeroed again
    costs a third of the step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never: what a step frees may exceed the two gigabytes that fit in an int
        mallopt(_TOP_PAD, _RESERVE)


@contextmanager
def fast_arithmetic(*, bfloat16: bool | None = None) -> Iterator[None]:
    """Take numbers near nothing for nothing; in bfloat16, do two operations that have slow kernels by faster ways.

    Vanishing moments, as denormal numbers, make Adam a hundred times slower on a CPU. bfloat16: None where the
    processor has it.
    """
    faster = cpu_precision() == "bf16-mixed" if bfloat16 is None else bfloat16
    torch.set_flush_denormal(True)
    try:
        with _Quick() if faster else nullcontext():
            yield
    finally:
        torch.set_flush_denormal(False)


class _Quick(TorchFunctionMode):
    """Sends the depthwise convolutions of stride 2 and the ReLU6 in bfloat16 that a CPU computes the faster way."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and len(args) == 7 and not kwargs and args[0].device.type == "cpu":
            x, weight, bias, stride, padding, dilation, groups = args
            plain = bias is None and isinstance(padding, tuple) and dilation == (1, 1)
            if plain and stride == (2, 2) and groups == len(weight) > 1:
                if torch.is_autocast_enabled("cpu"):
                    kind = torch.get_autocast_dtype("cpu")
                    x, weight = x.to(kind), weight.to(kind)
                return _Depthwise.apply(x, weight, padding)
        if func is F.hardtanh and kwargs == _RELU6 and args[0].device.type == "cpu" and args[0].dtype is torch.bfloat16:
            return _ReLU6.apply(args[0])
        return func(*args, **(kwargs or {}))


class _ReLU6(torch.autograd.Function):
    """ReLU6 of finite bfloat16 numbers, in place: their bits, read as integers, are in the same order.

    The same numbers, nine times as fast as clamping them as numbers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.view(torch.int16).clamp_(0, _SIX)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], y, 0.0, 6.0)
        return found


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 2 whose gradient to its input is that of stride 1, with zeros between.

    The same numbers, more than ten times as fast as oneDNN's own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return torch.conv2d(x, weight, None, 2, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (few,) = gradients
        x, weight = ctx.saved_tensors
        rows, columns = (
            x.shape[2 + axis] + 2 * ctx.padding[axis] - weight.shape[2 + axis] + 1 for axis in (0, 1)
        )  # of the same convolution at stride 1
        shape = (*few.shape[:2], rows, columns)
        whole = torch.empty(shape, dtype=few.dtype, memory_format=torch.channels_last).zero_()
        whole[:, :, ::2, ::2] = few
        return _gradient(whole, x, weight, 1, ctx.padding, of=0), _gradient(few, x, weight, 2, ctx.padding, of=1), None


def _gradient(given: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], *, of: int) -> Tensor:
    """The gradient of a depthwise convolution to its input (of=0) or its weight (of=1)."""
    wanted = [of == 0, of == 1, False]
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        given, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), wanted
    )
    return found[of]
