"""Text that a camera printed beside the retina is seen, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.fundus.burned_in import has_text
from retigrade.fundus.decode import Photo, decode
from retigrade.icdr import GRADES, Grade
from retigrade.synthetic import draw_eye


def photo(pixels: Pixels) -> Photo:
    return Photo(pixels, pixels.shape[1], pixels.shape[0], "")


@pytest.mark.parametrize("aspect", [1.3, 1.5])
@pytest.mark.parametrize("text", ["DOE JANE", "1960-01-01", "ID 12345 OD"])
@pytest.mark.parametrize("place", [(8, 24), (8, 470)])
def test_text_in_a_corner(aspect: float, text: str, place: tuple[int, int]) -> None:
    pixels = draw_eye(grade=Grade.MODERATE, size=480, aspect=aspect, rng=np.random.default_rng(1)).pixels.copy()
    cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (230, 230, 230), 1, cv2.LINE_AA)
    assert has_text(photo(pixels))


@pytest.mark.parametrize("notch", [False, True])
@pytest.mark.parametrize("grade", GRADES)
def test_eye_without_text(grade: Grade, notch: bool) -> None:
    eye = draw_eye(grade=grade, size=480, aspect=1.4, notch=notch, rng=np.random.default_rng(int(grade)))
    assert not has_text(photo(eye.pixels))


def test_no_eye_at_all() -> None:
    assert not has_text(photo(np.zeros((200, 300, 3), np.uint8)))


@pytest.mark.slow
def test_real_photographs_are_seldom_taken_for_text(real_data: Path) -> None:
    paths = sorted(path for path in real_data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[::97][:60]
    if not paths:
        pytest.skip("no photographs below the data folder")
    assert sum(has_text(decode(path, min_side=512)) for path in paths) <= len(paths) // 10
