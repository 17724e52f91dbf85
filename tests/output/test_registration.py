from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.icdr import Grade
from retigrade.output.registration import register
from retigrade.synthetic import draw_eye


@cache
def eye(seed: int, grade: Grade = Grade.NONE) -> Pixels:
    return draw_eye(grade=grade, rng=np.random.default_rng(seed), size=400).pixels


def moved(pixels: Pixels, *, degrees: float, shift: tuple[float, float], scale: float) -> tuple[Pixels, np.ndarray]:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[:, 2] += shift
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height)), np.uint8), matrix


@pytest.mark.parametrize(("degrees", "shift", "scale"), [(0, (0, 0), 1.0), (6, (12, -8), 1.0), (-11, (-20, 15), 0.93)])
def test_an_eye_photographed_again_is_laid_where_it_was(
    degrees: float, shift: tuple[float, float], scale: float
) -> None:
    fixed = eye(3)
    moving, there = moved(fixed, degrees=degrees, shift=shift, scale=scale)
    found = register(moving, fixed)
    assert found is not None
    back = np.vstack([found.matrix, [0, 0, 1]]) @ np.vstack([there, [0, 0, 1]])
    corners = np.array([[80, 80, 1], [320, 80, 1], [200, 200, 1], [80, 320, 1]]).T
    assert np.abs((back @ corners - corners)[:2]).max() < 3
    aligned = found.align(moving, width=fixed.shape[1], height=fixed.shape[0])
    assert np.abs(aligned[150:250, 150:250].astype(int) - fixed[150:250, 150:250]).mean() < 8


def test_lesions_that_came_do_not_hinder() -> None:
    assert register(eye(3, Grade.SEVERE), eye(3)) is not None


def test_another_eye_is_refused() -> None:
    assert register(eye(4), eye(3)) is None


def test_pictures_without_landmarks_are_refused() -> None:
    blank = np.full((300, 300, 3), 90, np.uint8)
    assert register(blank, eye(3)) is None
