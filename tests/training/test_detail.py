"""Photos that were enlarged are told from those that were not, by the detail that they lack."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from retigrade.arrays import Pixels
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.training.cells import Detail, cells_of

SIDE = 192


def eye(number: int) -> Pixels:
    """A drawn eye with a sensor's noise."""
    rng = np.random.default_rng(number)
    pixels = cv2.resize(draw_eye(grade=Grade.SEVERE, size=2 * SIDE, rng=rng).pixels, (SIDE, SIDE)).astype(np.float32)
    noisy = pixels + rng.normal(0, 3, pixels.shape) * (pixels.max(axis=2, keepdims=True) > 12)
    return np.asarray(noisy.clip(0, 255), np.uint8)


def enlarged(pixels: Pixels, times: float) -> Pixels:
    small = cv2.resize(pixels, None, fx=1 / times, fy=1 / times, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def measured(photos: list[Pixels]) -> torch.Tensor:
    return cells_of(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float()).fine_detail


def test_the_more_a_photo_was_enlarged_the_less_fine_detail_it_has() -> None:
    pixels = eye(1)
    levels = measured([pixels, *(enlarged(pixels, times) for times in (1.5, 2, 3))])
    assert (levels.diff() < 0).all()
    assert levels[2] < levels[0] - 0.3


def test_darkness_around_the_retina_and_brightness_do_not_matter() -> None:
    pixels = eye(2)
    speckled, dimmed = pixels.copy(), np.asarray(pixels * 0.6, np.uint8)
    speckled[:8, :8] = np.random.default_rng(1).integers(0, 12, (8, 8, 3))
    plain, other, dim = measured([pixels, speckled, dimmed])
    assert other == pytest.approx(float(plain), abs=1e-4)
    assert dim == pytest.approx(float(plain), abs=0.1)


def test_a_picture_of_one_colour_is_finite() -> None:
    assert torch.isfinite(measured([np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in (0, 120)])).all()


def test_fitted_it_trusts_photos_that_were_not_enlarged() -> None:
    known = [eye(number) for number in range(6)]
    photos = [*known, *(enlarged(each, 2) for each in known)]
    detail = Detail.fit(measured(photos).numpy(), np.array([False] * 6 + [True] * 6))
    new = eye(9)
    trust = detail.likely(measured([new, enlarged(new, 2)]))
    assert detail.slope > 0
    assert trust[0] > 0.9
    assert trust[1] < 0.1
