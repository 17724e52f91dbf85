"""Whether a photo shows more than it would at half its size, or was enlarged to it."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import Tensor

from retigrade.arrays import Flags, Reals

_STRICT = 100.0  # inverse strength of the penalty on the slope


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
