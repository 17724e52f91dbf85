"""Whether a photo shows more than it would at half its size, or was enlarged to it."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch expects)
from torch import Tensor

from retigrade.arrays import Flags, Reals
from retigrade.training.segmentation import retina_in_cells

_LEAST = 1e-3  # of 255, beside what there is: a picture of one colour has neither
_STRICT = 100.0  # inverse strength of the penalty on the slope


def fine_detail(photos: Tensor) -> Tensor:
    """How much a photo loses at half its size, beside what that loses at half of its own: a ratio's logarithm, (N,).

    photos: float (N, 3, S, S) of 0..255 RGB.
    """
    retina = retina_in_cells(photos)
    grey = photos.mean(1, keepdim=True)
    half = F.avg_pool2d(grey, 2)
    fine, coarse = ((_lost(*each, retina) + _LEAST).log() for each in ((grey, half), (half, F.avg_pool2d(half, 2))))
    return fine - coarse


def _lost(grey: Tensor, smaller: Tensor, retina: Tensor) -> Tensor:
    """The mean difference of a picture from itself made smaller and enlarged again: (N,)."""
    again = F.interpolate(smaller, scale_factor=2.0, mode="nearest")
    cell = grey.shape[-1] // retina.shape[-1]
    return (F.avg_pool2d((grey - again).abs(), cell) * retina).mean((1, 2, 3))


class Detail(NamedTuple):
    """The fine detail at which it is as likely as not that a photo was not enlarged, and how soon that is plain."""

    middle: float
    slope: float

    @classmethod
    def fit(cls, measured: Reals, enlarged: Flags) -> Self:
        """By logistic regression, both kinds weighing the same; measured: `fine_detail`, (n,), of some of each kind."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=_STRICT, class_weight="balanced").fit(measured[:, None], ~enlarged)
        slope = float(model.coef_[0, 0])
        return cls(-float(model.intercept_[0]) / slope, slope)

    def __call__(self, photos: Tensor) -> Tensor:
        """How likely photos, as of `fine_detail`, were not enlarged: 0..1, (N,)."""
        return (self.slope * (fine_detail(photos) - self.middle)).sigmoid()
