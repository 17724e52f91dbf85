"""How much the answer changes when an eye is photographed again, nothing having changed in it.

Pairs are a photograph and what a second press of the shutter could have made of it: mirrored, turned and moved,
exposed otherwise, compressed again. Real pairs of one eye are rare in public data; those that a data set has are
measured beside them. What the pairs differ by is the noise beyond which alone a change over time may be claimed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from retigrade.arrays import Pixels, Reals
from retigrade.data.manifest import Entry
from retigrade.errors import PhotoError
from retigrade.evaluation.corruptions import brightness, crop, recompress, rotation
from retigrade.evaluation.predictions import Predictions
from retigrade.evaluation.robustness import round_disc
from retigrade.fundus.crop import decode_side
from retigrade.fundus.decode import decode
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.icdr import GRADES
from retigrade.metrics.estimate import Estimate, Record
from retigrade.progress import RunProgress

QUANTILE = 0.98
"""Share of the pairs whose difference stays within the noise: a change claimed of nothing in at most 2 %."""
_QUALITY = 80  # of the second JPEG file
RETESTED = 400
"""Photographs of which a second one is made and graded."""
FEWEST_PAIRS = 100
"""Below so many pairs a half of them has less than one beyond the noise, and no noise is given."""


class Retest(Record):
    """What pairs of one eye differ by.

    pairs: those of which both photographs were graded. expected_grade: the difference of the expected grades, 0 to 4,
    that 98 % of the pairs stay within. same_grade: the share of pairs with one and the same grade. beyond: the share of
    pairs beyond the noise of the other half of them, measured both ways: of changes claimed where there is none.
    claimed: the noise that the bundle states, None where it states none; beyond_claimed: the share of pairs beyond it.
    real_pairs: pairs of the data set's own, of one eye photographed twice; real_beyond: the share of them beyond the
    noise of the others.
    """

    pairs: int
    expected_grade: float
    same_grade: Estimate
    beyond: Estimate
    claimed: float | None
    beyond_claimed: Estimate
    real_pairs: int
    real_beyond: Estimate


@dataclass(frozen=True, slots=True)
class PairOfGradings:
    """The expected grades, 0 to 4, of two photographs of one eye, and whether their grades are the same."""

    first: float
    second: float
    same_grade: bool

    @classmethod
    def of(cls, first: Grading, second: Grading) -> PairOfGradings | None:
        """Take two gradings; None where one has no grade."""
        if first.probabilities is None or second.probabilities is None:
            return None
        expected = [float(p @ np.arange(len(GRADES))) for p in (first.probabilities, second.probabilities)]
        return cls(expected[0], expected[1], first.grade == second.grade)


def measure_retest(
    grader: Grader,
    entries: Sequence[Entry],
    *,
    real: Sequence[PairOfGradings] = (),
    seed: int = 0,
    jobs: int = 1,
    progress: RunProgress | None = None,
) -> Retest | None:
    """Grade each photograph and a second one made of it; None where fewer than 100 pairs were graded.

    real: pairs of the data set's own. seed: of the second photographs. jobs: photographs at work at once. progress:
    hears how it goes.
    """

    def pair(place: int) -> PairOfGradings | None:
        try:
            photo = round_disc(decode(entries[place].path, min_side=decode_side(grader.bundle.metadata.input_size)))
        except PhotoError:
            return None
        again = photograph_again(photo.pixels, np.random.default_rng([seed, place]))
        height, width = again.shape[:2]
        second = replace(photo, pixels=again, width=width, height=height)
        return PairOfGradings.of(grader.grade_photo(photo, heat=False), grader.grade_photo(second, heat=False))

    with ThreadPoolExecutor(jobs) as pool:
        pairs = (progress or RunProgress()).track(
            pool.map(pair, range(len(entries))),
            "photographing again",
            total=len(entries),
            kind=lambda found: "without a grade" if found is None else "graded twice",
        )
        made = [found for found in pairs if found is not None]
    return noise_of(made, real=real, claimed=grader.bundle.metadata.retest_noise, seed=seed)


def photograph_again(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return what a second photograph of the same eye could look like; pixels: uint8 (h, w, 3) RGB."""
    again = pixels
    if rng.random() < 0.5:
        again = np.ascontiguousarray(again[:, ::-1])
    for change in (rotation, crop, brightness):
        again = change(again, 1, rng)
    blurred = np.asarray(cv2.GaussianBlur(again, (0, 0), 0.001 * min(again.shape[:2]) + 0.1), np.uint8)
    return recompress(blurred, _QUALITY)


def real_pairs(predictions: Predictions) -> Iterator[PairOfGradings]:
    """Yield the pairs of gradings of one eye photographed twice that a labelled set holds.

    That is where two photographs are of one patient, eye and day, or, where nobody knows the patient, show the same
    view by their vessels. Equal answers of the same picture in two files are left out.
    """
    together: dict[object, list[Grading]] = {}
    for (entry, grading), group in zip(predictions.pairs, predictions.labelled.groups.tolist(), strict=True):
        if entry.patient == entry.name:
            together.setdefault(group, []).append(grading)
        elif entry.eye is not None:
            together.setdefault((entry.patient, entry.eye, entry.date), []).append(grading)
    for gradings in together.values():
        for first, second in combinations(gradings, 2):
            found = PairOfGradings.of(first, second)
            if found is not None and first.sha256 != second.sha256 and found.first != found.second:
                yield found


def noise_of(
    pairs: Sequence[PairOfGradings],
    *,
    real: Sequence[PairOfGradings] = (),
    claimed: float | None = None,
    seed: int = 0,
) -> Retest | None:
    """Return what pairs of gradings differ by; None of fewer than 100.

    real: pairs of the data set's own. claimed: the noise that the bundle states. seed: of the halves.
    """
    if len(pairs) < FEWEST_PAIRS:
        return None
    differences, of_real = _differences(pairs), _differences(real)
    halves = np.array_split(np.random.default_rng(seed).permutation(len(pairs)), 2)
    beyond = sum(
        int((differences[measured] > _noise(differences[fitted])).sum()) for fitted, measured in (halves, halves[::-1])
    )
    noise = _noise(differences)
    return Retest(
        pairs=len(pairs),
        expected_grade=noise,
        same_grade=Estimate.proportion(float(np.mean([pair.same_grade for pair in pairs])), len(pairs)),
        beyond=Estimate.proportion(beyond / len(pairs), len(pairs)),
        claimed=claimed,
        beyond_claimed=Estimate.of(math.nan) if claimed is None else _share_beyond(differences, claimed),
        real_pairs=len(real),
        real_beyond=_share_beyond(of_real, noise),
    )


def _differences(pairs: Sequence[PairOfGradings]) -> Reals:
    return np.array([abs(pair.first - pair.second) for pair in pairs], np.float64)


def _noise(differences: Reals) -> float:
    """Return the difference that a further pair exceeds in at most 2 %: the conformal quantile of these."""
    rank = math.ceil((len(differences) + 1) * QUANTILE)
    return float(np.sort(differences)[min(rank, len(differences)) - 1])


def _share_beyond(differences: Reals, noise: float) -> Estimate:
    if not len(differences):
        return Estimate.of(math.nan)
    return Estimate.proportion(float((differences > noise).mean()), len(differences))
