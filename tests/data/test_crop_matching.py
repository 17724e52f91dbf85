"""The training cut must be independent of the grade, and never show what the camera did not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retigrade.arrays import Pixels
from retigrade.data.crop_matching import CropMatching, cut_depths

SIDE = 60


def cut_photo(top: int, bottom: int) -> Pixels:
    photo = np.full((SIDE, SIDE, 3), 120, np.uint8)
    photo[:top] = 0
    photo[SIDE - bottom :] = 0
    return photo


def test_a_cut_is_what_is_black_above_and_below() -> None:
    assert cut_depths(cut_photo(6, 12)) == pytest.approx((0.1, 0.2))
    assert cut_depths(np.zeros((SIDE, SIDE, 3), np.uint8)) == (0.0, 0.0)


def test_grades_share_one_distribution_of_cuts() -> None:
    rng = np.random.default_rng(0)
    whole = [cut_photo(0, 0) for _ in range(160)] + [cut_photo(7, 7) for _ in range(40)]
    diseased = [cut_photo(int(n), int(n)) for n in rng.integers(4, 9, 200)]
    grades = np.repeat([0, 2], 200)
    matching = CropMatching.of_photos([*whole, *diseased], grades)
    depth = np.concatenate([matching.draw(np.arange(400), rng).sum(axis=1).reshape(2, -1) for _ in range(20)], axis=1)
    before = np.array([0.2 * 2 * 7 / SIDE, np.mean([cut_depths(photo) for photo in diseased]) * 2])
    after = depth.mean(axis=1)
    assert abs(before[0] - before[1]) > 0.1
    assert abs(after[0] - after[1]) < 0.01
    quantiles = np.quantile(depth, [0.1, 0.25, 0.5, 0.75, 0.9], axis=1)
    assert np.abs(quantiles[:, 0] - quantiles[:, 1]).max() < 0.03


@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14), st.integers(0, 4)), min_size=1, max_size=25),
    st.integers(0, 99),
)
def test_a_cut_hides_at_least_what_the_camera_hid(rows: list[tuple[int, int, int]], seed: int) -> None:
    photos = [cut_photo(top, bottom) for top, bottom, _ in rows]
    matching = CropMatching.of_photos(photos, np.array([grade for *_, grade in rows]))
    drawn = matching.draw(np.arange(len(rows)), np.random.default_rng(seed))
    own = np.array([cut_depths(photo) for photo in photos])
    assert (drawn >= own - 1e-9).all()
    assert (drawn.sum(axis=1) < 1).all()
