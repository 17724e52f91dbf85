"""Training on a CPU is faster and learns the same: gradients are plain torch's, and nothing outlasts the block."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from retigrade.training.cpu import fast_arithmetic, keep_memory

DENORMAL = 1e-39


def convolution(channels: int = 6, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    plain: dict[str, object] = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": channels, "bias": False}
    return nn.Conv2d(channels, channels, **plain | options)  # type: ignore[arg-type]


def learned(layer: nn.Conv2d, *, sides: tuple[int, int] = (9, 9), half: bool = False) -> tuple[Tensor, ...]:
    """What a layer answers, and its gradients to photographs and weights."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, layer.in_channels, *sides, generator=generator).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = layer(x)
    weight = layer.weight
    given = torch.randn(out.shape, generator=generator).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, (x, weight), given)


def quick(layer: nn.Conv2d) -> bool:
    """Whether the layer goes the quicker way here."""
    return layer(torch.zeros(1, layer.in_channels, 9, 9)).grad_fn.name() == "_DepthwiseBackward"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("sides", [(9, 9), (8, 8), (7, 12)])
def test_strided_depthwise_gradients_are_those_of_torch(
    sides: tuple[int, int], padding: int, kernel: int, half: bool
) -> None:
    layer = convolution(kernel_size=kernel, padding=padding)
    expected = learned(layer, sides=sides, half=half)
    with fast_arithmetic(bfloat16=True):
        assert quick(layer)
        found = learned(layer, sides=sides, half=half)
    tolerance = {"atol": 1e-2, "rtol": 1e-2} if half else {"atol": 1e-5, "rtol": 1e-5}
    for ours, torchs in zip(found, expected, strict=True):
        assert ours.dtype == torchs.dtype
        torch.testing.assert_close(ours, torchs, **tolerance)


def test_a_batch_in_channels_last_has_the_same_gradients() -> None:
    layer = convolution().to(memory_format=torch.channels_last)
    expected = learned(layer)
    with fast_arithmetic(bfloat16=True):
        for ours, torchs in zip(learned(layer), expected, strict=True):
            torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2},
        {"bias": True},
        {"groups": 2},
        {"groups": 1},
        {"stride": 1},
        {"stride": (2, 1)},
        {"stride": 1, "padding": "same"},
    ],
    ids=str,
)
def test_every_other_convolution_is_left_to_torch(options: dict[str, object]) -> None:
    layer = convolution(**options)
    expected = learned(layer)
    with fast_arithmetic(bfloat16=True):
        assert not quick(layer)
        found = learned(layer)
    assert all(map(torch.equal, found, expected))


def test_relu6_of_every_finite_half_number_is_that_of_torch() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    normal = (every.abs() >= torch.finfo(torch.bfloat16).tiny) | (every == 0)  # others are taken for nothing
    every = every[every.isfinite() & normal]
    given = torch.linspace(-1, 1, len(every)).to(torch.bfloat16)

    def answers() -> tuple[Tensor, Tensor]:
        x = every.clone().requires_grad_()
        out = nn.ReLU6(inplace=True)(x * 1)
        return out.detach(), *torch.autograd.grad(out, x, given)

    expected = answers()
    with fast_arithmetic(bfloat16=True):
        assert nn.ReLU6(inplace=True)(every.clone().requires_grad_() * 1).grad_fn.name() == "_ReLU6Backward"
        found = answers()
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torchs, atol=0, rtol=0)


def test_a_network_learns_the_same() -> None:
    def step() -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), convolution(8), nn.ReLU(), convolution(8))
        network(torch.randn(2, 3, 21, 21)).square().sum().backward()
        return [weight.grad for weight in network.parameters() if weight.grad is not None]

    expected = step()
    with fast_arithmetic(bfloat16=True):
        found = step()
    assert len(found) == 3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_numbers_near_nothing_are_nothing_in_the_block_alone() -> None:
    tiny = torch.full((64,), DENORMAL)
    assert (tiny * 1).all()
    with fast_arithmetic(bfloat16=True):
        assert not (tiny * 1).any()
    assert (tiny * 1).all()
    with pytest.raises(ValueError, match="inside"), fast_arithmetic(bfloat16=True):
        raise ValueError("inside")
    assert (tiny * 1).all()
    assert not quick(convolution())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_is_kept_for_the_next_step() -> None:
    # In a process of its own: what other tests have left in this one's memory decides where a tensor finds room.
    code = """
import resource, torch
from retigrade.training.cpu import keep_memory
keep_memory()
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).sum()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fetched = [int(line) for line in done.stdout.split()]
    assert fetched[-1] < 100  # of 16,384 pages


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    keep_memory()
