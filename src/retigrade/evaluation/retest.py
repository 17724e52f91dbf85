"""How much the answer changes when an eye is photographed again, nothing having changed in it.

Pairs are a photograph and what a second press of the shutter could have made of it: mirrored, turned and moved,
exposed otherwise, compressed again. Real pairs of one eye on one day are rare in public data; where a folder has them,
give both. What the pairs differ by is the noise beyond which alone a change over time may be claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np

from retigrade.arrays import Pixels
from retigrade.data.manifest import Entry
from retigrade.errors import PhotoError
from retigrade.evaluation.corruptions import brightness, crop, recompress, rotation
from retigrade.evaluation.robustness import round_disc
from retigrade.fundus.crop import decode_side
from retigrade.fundus.decode import decode
from retigrade.grader import Grader
from retigrade.icdr import GRADES
from retigrade.metrics.estimate import Estimate, Record

QUANTILE = 0.98
"""Share of the pairs whose difference stays within the noise: a change claimed of nothing in at most 2 %."""
_QUALITY = 80  # of the second JPEG file
RETESTED = 400
"""Photographs of which a second one is made and graded."""
FEWEST_PAIRS = 50
"""Below so many pairs the outermost two percent are one photograph or none, and no noise is given."""


class Retest(Record):
    """What pairs of one eye differ by.

    pairs: those of which both photographs were graded. expected_grade: the difference of the expected grades, 0 to 4,
    that 98 % of the pairs stay within. same_grade: the share of pairs with one and the same grade.
    """

    pairs: int
    expected_grade: float
    same_grade: Estimate


def measure_retest(grader: Grader, entries: Sequence[Entry], *, seed: int = 0, jobs: int = 1) -> Retest | None:
    """Grade each photograph and a second one made of it; None where fewer than 50 pairs were graded.

    seed: of the second photographs. jobs: photographs at work at once.
    """

    def pair(place: int) -> tuple[float, float, bool] | None:
        try:
            photo = round_disc(decode(entries[place].path, min_side=decode_side(grader.bundle.metadata.input_size)))
        except PhotoError:
            return None
        again = photograph_again(photo.pixels, np.random.default_rng([seed, place]))
        height, width = again.shape[:2]
        gradings = [
            grader.grade_photo(one, heat=False)
            for one in (photo, replace(photo, pixels=again, width=width, height=height))
        ]
        first, second = gradings
        if first.probabilities is None or second.probabilities is None:
            return None
        expected = [float(grading.probabilities @ np.arange(len(GRADES))) for grading in gradings]  # type: ignore[operator]
        return expected[0], expected[1], first.grade == second.grade

    with ThreadPoolExecutor(jobs) as pool:
        return noise_of(found for found in pool.map(pair, range(len(entries))) if found is not None)


def photograph_again(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return what a second photograph of the same eye could look like; pixels: uint8 (h, w, 3) RGB."""
    again = pixels
    if rng.random() < 0.5:
        again = np.ascontiguousarray(again[:, ::-1])
    for change in (rotation, crop, brightness):
        again = change(again, 1, rng)
    blurred = np.asarray(cv2.GaussianBlur(again, (0, 0), 0.001 * min(again.shape[:2]) + 0.1), np.uint8)
    return recompress(blurred, _QUALITY)


def noise_of(pairs: Iterable[tuple[float, float, bool]]) -> Retest | None:
    """Return what pairs of expected grades, with whether the grades are the same, differ by; None of too few."""
    table = list(pairs)
    if len(table) < FEWEST_PAIRS:
        return None
    differences = np.array([abs(first - second) for first, second, _ in table])
    same = float(np.mean([alike for _, _, alike in table]))
    return Retest(
        pairs=len(table),
        expected_grade=float(np.quantile(differences, QUANTILE, method="higher")),
        same_grade=Estimate.proportion(same, len(table)),
    )
