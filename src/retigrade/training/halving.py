"""A first convolution that sees photos twice as large as it learned from, and makes them smaller in the same step.

Made smaller beforehand, a photo is read and written once more, which costs more than the convolution. The means of
2 x 2 pixels that it would see are those of the squares in cells of 4 x 4 pixels, so one convolution finds these and
another, over cells, does what the first one did.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from retigrade.errors import UsageError
from retigrade.training.cells import CELL

_SQUARE = 2  # pixels across what becomes one, and squares across a cell
_COLOURS = 3
_SQUARES = _COLOURS * _SQUARE**2
_CHANNELS = 16  # the squares of a cell and four of nothing: processors take so many at once


class _Place(NamedTuple):
    """Where a kernel lies over the cells that it sees: squares beside and behind it, cells before the one it is of."""

    beside: int
    behind: int
    before: int

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> Self:
        across = convolution.kernel_size[0]
        padded = (across - _SQUARE) // 2 if isinstance(convolution, Conv2dSame) else int(convolution.padding[0])
        before = -(-padded // _SQUARE)
        beside = before * _SQUARE - padded
        return cls(beside, -(beside + across) % _SQUARE, before)


class HalvingConvolution(nn.Module):
    """Photos, float (N, 3, 2 S, 2 S) of 0..255 RGB, to what a convolution makes of them at (S, S), normalised."""

    def __init__(self, convolution: nn.Conv2d, *, mean: Tensor, deviation: Tensor) -> None:
        """mean, deviation: of three colours, 0..255. Raises UsageError where the convolution skips no pixels."""
        super().__init__()
        if convolution.stride != (_SQUARE, _SQUARE) or convolution.in_channels != _COLOURS or convolution.groups != 1:
            raise UsageError("photos are made smaller in a first convolution of every second pixel alone")
        place, nothing = _Place.of(convolution), _CHANNELS - _SQUARES
        each = torch.eye(_SQUARES).view(_SQUARES, _COLOURS, _SQUARE, _SQUARE)
        means = each.repeat_interleave(_SQUARE, 2).repeat_interleave(_SQUARE, 3) / _SQUARE**2
        with torch.no_grad():
            wide = F.pad(convolution.weight, (place.beside, place.behind, place.beside, place.behind))
            kernels = F.pad(F.pixel_unshuffle(wide, _SQUARE), (0, 0, 0, 0, 0, nothing))
            self.squares = nn.Conv2d(_COLOURS, _CHANNELS, CELL, stride=CELL)
            self.squares.weight.copy_(F.pad(means / deviation.view(1, _COLOURS, 1, 1), (0, 0, 0, 0, 0, 0, 0, nothing)))
            offsets = -(mean / deviation).flatten().repeat_interleave(_SQUARE**2)
            self.squares.get_parameter("bias").copy_(F.pad(offsets, (0, nothing)))
            self.cells = nn.Conv2d(_CHANNELS, convolution.out_channels, kernels.shape[-1], bias=False)
            self.cells.weight.copy_(kernels)
        self._around = (place.before, kernels.shape[-1] - 1 - place.before) * 2

    def forward(self, photos: Tensor) -> Tensor:
        """Return the feature map."""
        seen: Tensor = self.cells(F.pad(self.squares(photos), self._around))
        return seen


def weights_before(cells: Tensor, convolution: nn.Conv2d) -> Tensor:
    """The weights of the convolution that a `HalvingConvolution` was made of, from its `cells.weight`.

    convolution: of the same shape and padding.
    """
    place, across = _Place.of(convolution), convolution.kernel_size[0]
    kept = slice(place.beside, place.beside + across)
    return F.pixel_shuffle(cells[:, :_SQUARES], _SQUARE)[:, :, kept, kept]


def colours_of(squares: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of three colours, 0..255, that a `HalvingConvolution` scales by: of its `squares`."""
    first = torch.arange(_COLOURS) * _SQUARE**2
    deviation = 1 / (_SQUARE**2 * squares[first, torch.arange(_COLOURS), 0, 0])
    return -offsets[first] * deviation, deviation
