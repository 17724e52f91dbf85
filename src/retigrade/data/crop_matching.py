"""Crops training photographs so that the frame's cut no longer tells the grade.

Clinics' cameras differ by stage: in the public sets most healthy discs are whole and most diseased ones are cut off
at top and bottom. Here each photograph is cut to the depth that its rank among the photographs of its own grade has
in one common distribution, the deepest of all grades at every rank. No photograph can be uncut, so this is the
shallowest distribution that every grade can reach; afterwards all grades share it and the cut carries nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np

from retigrade.arrays import Integers, Pixels, Reals
from retigrade.fundus.crop import LIT

_RANKS = np.linspace(0, 1, 401)
_DEEPER = 0.2  # share of photographs that are cut deeper still, alike for all grades
_DEEPEST = 0.21  # of the disc's height, at top and at bottom
_UNEVEN = 0.02  # how much deeper than the other side either may be cut


def cut_depths(pixels: Pixels) -> tuple[float, float]:
    """How much of a canonical picture is black above and below the retina's middle, in fractions of its side.

    pixels: uint8 (S, S, 3).
    """
    side = pixels.shape[0]
    middle = pixels[:, side * 3 // 8 : side * 5 // 8].max(axis=2)
    rows = np.flatnonzero(np.percentile(middle, 75, axis=1) > LIT)
    if len(rows) == 0:
        return 0.0, 0.0
    return rows[0] / side, 1 - (rows[-1] + 1) / side


class CropMatching:
    """Draws, for any photograph of one training part, a cut that is independent of the grade."""

    def __init__(self, depths: Reals, grades: Integers) -> None:
        """depths: float64 (N, 2), the `cut_depths` of N photographs; grades: int64 (N,), 0..4."""
        self._grades = grades
        self._depth = depths.max(axis=1)
        self._sorted = {grade: np.sort(self._depth[grades == grade]) for grade in np.unique(grades)}
        self._common = np.max([np.quantile(of_grade, _RANKS) for of_grade in self._sorted.values()], axis=0)

    @classmethod
    def of_photos(cls, photos: Iterable[Pixels], grades: Integers) -> Self:
        """Measure the cuts of N canonical pictures, uint8 (S, S, 3), and match them; grades: int64 (N,), 0..4."""
        return cls(np.array([cut_depths(pixels) for pixels in photos]).reshape(-1, 2), grades)

    def draw(self, positions: Integers, rng: np.random.Generator) -> Reals:
        """Draw cuts for some photographs: float64 (n, 2), fractions of the side hidden at top and at bottom."""
        # Both sides as deep as the deeper one: a photograph's own unevenness would tell its camera, and so its grade.
        depth = np.maximum(self._depth[positions], np.interp(self._ranks(positions, rng), _RANKS, self._common))
        deeper = rng.random(len(positions)) < _DEEPER
        depth = np.where(deeper, np.maximum(depth, rng.uniform(0, _DEEPEST, len(positions))), depth)
        return np.asarray(depth[:, None] + rng.uniform(0, _UNEVEN, (len(positions), 2)))

    def _ranks(self, positions: Integers, rng: np.random.Generator) -> Reals:
        """Each photograph's rank by depth within its grade, 0..1, drawn at random among equals."""
        ranks = np.empty(len(positions))
        for place, position in enumerate(positions):
            depths = self._sorted[self._grades[position]]
            low, high = np.searchsorted(depths, self._depth[position] + np.array([-1e-3, 1e-3]))
            ranks[place] = rng.uniform(low, max(high, low + 1)) / len(depths)
        return ranks
