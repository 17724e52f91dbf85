"""A step that runs across the retina is one of the file, and no eye has one."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.fundus.bands import STEP, step
from retigrade.fundus.crop import circle, crop
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import Field
from retigrade.fundus.quality import TORN, QualityLimits, assess
from retigrade.icdr import GRADES, Grade, Status
from retigrade.synthetic import Phantom

SIZE = 224
ROUND = Field(cx=0.5, cy=0.5, rx=0.4, ry=0.4)


@pytest.fixture(scope="module")
def canonical(eyes: Mapping[Grade, Phantom]) -> Mapping[Grade, Pixels]:
    def of(phantom: Phantom) -> Pixels:
        height, width = phantom.pixels.shape[:2]
        return crop(Photo(pixels=phantom.pixels, width=width, height=height, sha256="0"), phantom.field, size=SIZE)

    return {grade: of(phantom) for grade, phantom in eyes.items()}


def shifted(pixels: Pixels, *levels: int, row: int = 100, column: int = 0) -> Pixels:
    """Brighter, darker or tinted from a place on, as after a changed bit."""
    changed = pixels.astype(int)
    changed[row : row + 5, column:] += levels
    changed[row + 5 :] += levels
    changed[~circle(len(pixels))] = 0
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("grade", GRADES)
def test_no_eye_has_one(canonical: Mapping[Grade, Pixels], grade: Grade) -> None:
    assert step(canonical[grade]) < STEP - 0.05


@pytest.mark.parametrize("levels", [(14, 14, 14), (-14, -14, -14), (20, 0, 0), (0, 0, -40)])
@pytest.mark.parametrize("column", [0, 112, 150])
def test_what_follows_a_changed_bit_has(
    canonical: Mapping[Grade, Pixels], levels: tuple[int, int, int], column: int
) -> None:
    assert step(shifted(canonical[Grade.MODERATE], *levels, column=column)) > STEP


@pytest.mark.parametrize("size", [160, 300])
def test_at_any_size_of_the_network(canonical: Mapping[Grade, Pixels], size: int) -> None:
    plain = cv2.resize(canonical[Grade.NONE], (size, size), interpolation=cv2.INTER_AREA)
    assert step(np.asarray(plain, np.uint8)) < STEP
    assert step(shifted(np.asarray(plain, np.uint8), 16, 16, 16, row=size // 2)) > STEP


def test_the_frames_own_cut_is_none(canonical: Mapping[Grade, Pixels]) -> None:
    cut = canonical[Grade.NONE].copy()
    cut[:30] = cut[-30:] = 0
    assert step(cut) < STEP


def test_a_shadow_that_fades_is_none(canonical: Mapping[Grade, Pixels]) -> None:
    shade = np.linspace(1, 0.4, SIZE)[:, None, None]
    assert step((canonical[Grade.NONE] * shade).astype(np.uint8)) < STEP


def test_nothing_is_seen_in_black(canonical: Mapping[Grade, Pixels]) -> None:
    assert step(np.zeros_like(canonical[Grade.NONE])) == 0


def test_it_is_not_graded_and_the_reason_says_why(canonical: Mapping[Grade, Pixels]) -> None:
    limits = QualityLimits(eye_needed=-1e9, eye_needed_rimless=-1e9, reject_limit=1e9)
    assert assess(canonical[Grade.NONE], ROUND, limits).status is Status.GRADED
    found = assess(shifted(canonical[Grade.NONE], 14, 14, 14), ROUND, limits)
    assert (found.status, found.reasons) == (Status.UNGRADABLE, (TORN,))
