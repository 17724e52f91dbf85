"""What cells of a photo show before any network looks at them: whether they are retina, and how fine their detail is.

One convolution of fixed kernels finds all of it, in every other cell across and down, at a fraction of what it costs to
make the photo smaller again and again. A photo that was enlarged shows hardly more than it would at half its size.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor

from retigrade.arrays import Flags, Reals

CELL = 4
"""Pixels across a cell."""
_EVERY = 2  # which cells are looked at, across and down
_RIM = 5  # of these, half of which at the rim are no retina
_DARK = 12  # of 255
_LEAST = 1e-3  # of 255, beside what there is: a picture of one colour has neither
_HALF = CELL // 2
_STRICT = 100.0  # inverse strength of the penalty on the slope of `Detail`


class Cells(NamedTuple):
    """Of N photos, by `cells_of`.

    retina: which cells of 8 pixels are of the retina, its rim left out, 1 or 0, (N, 1, S/8, S/8). fine_detail: how much
    a photo loses at half its size, beside what that loses at half of its own, a ratio's logarithm, (N,).
    """

    retina: Tensor
    fine_detail: Tensor


def _kernels() -> tuple[Tensor, int]:
    """(k, 3, 4, 4), and how many of them say what is lost at half the size: then those of a quarter, and light last.

    A cell has four squares of 2 x 2 pixels. What is lost at half the size is measured on the pixels of two of them,
    across the diagonal, what is lost once more by what all four differ from the cell.
    """
    squares = torch.zeros(2, 2, CELL, CELL)
    pixels = torch.zeros(CELL, CELL, CELL, CELL)
    for row in range(CELL):
        for column in range(CELL):
            squares[row // _HALF, column // _HALF, row, column] = 1 / _HALF**2
            pixels[row, column, row, column] = 1
    fine = [
        pixels[row, column] - squares[row // _HALF, column // _HALF]
        for row in range(CELL)
        for column in range(CELL)
        if row // _HALF == column // _HALF
    ]
    light = torch.full((1, CELL, CELL), 1 / CELL**2)
    coarse = squares.flatten(0, 1) - light
    grey = torch.cat([torch.stack(fine), coarse, light]) / 3
    return grey[:, None].repeat(1, 3, 1, 1), len(fine)


_KERNELS, _FINE = _kernels()


def cells_of(photos: Tensor) -> Cells:
    """Look at photos, float (N, 3, S, S) of 0..255 RGB."""
    seen = F.conv2d(photos, _KERNELS.to(photos.device), stride=_EVERY * CELL)
    dark = (seen[:, -1:] <= _DARK).float()
    retina = 1 - F.max_pool2d(dark, _RIM, stride=1, padding=_RIM // 2)
    lost = (seen[:, :-1].abs() * retina).mean((2, 3))
    fine, coarse = ((part.mean(1) + _LEAST).log() for part in (lost[:, :_FINE], lost[:, _FINE:]))
    return Cells(retina, fine - coarse)


class Detail(NamedTuple):
    """The fine detail at which it is as likely as not that a photo was not enlarged, and how soon that is plain."""

    middle: float
    slope: float

    @classmethod
    def fit(cls, measured: Reals, enlarged: Flags) -> Self:
        """By logistic regression, both kinds weighing the same; measured: of `Cells`, (n,), of some of each kind."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=_STRICT, class_weight="balanced").fit(measured[:, None], ~enlarged)
        slope = float(model.coef_[0, 0])
        return cls(-float(model.intercept_[0]) / slope, slope)

    def likely(self, measured: Tensor) -> Tensor:
        """How likely photos, by their `fine_detail`, (N,), were not enlarged: 0..1, (N,)."""
        return (self.slope * (measured - self.middle)).sigmoid()
