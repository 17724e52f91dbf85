from __future__ import annotations

import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from retigrade.synthetic import Phantom


@pytest.fixture(scope="module")
def pixels(eye: Phantom) -> Pixels:
    return np.ascontiguousarray(eye.pixels[::3, ::3])


def test_there_are_the_twelve() -> None:
    assert list(CORRUPTIONS) == [
        "blur", "noise", "jpeg", "brightness", "contrast", "colour cast", "shadow", "dust", "crop", "rotation", "flip",
        "rescale",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_each_is_pure_repeatable_and_changes_something(name: str, severity: int, pixels: Pixels) -> None:
    before = pixels.copy()
    first, second = (CORRUPTIONS[name](pixels, severity, np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(pixels, before)
    if not (name == "rescale" and min(pixels.shape[:2]) <= (300, 224, 160, 120, 90)[severity - 1]):
        assert first.shape != pixels.shape or np.any(first != pixels)


@pytest.mark.parametrize("name", ["blur", "noise", "jpeg", "contrast", "dust"])
def test_severities_get_worse(name: str, pixels: Pixels) -> None:
    distances = [
        np.abs(CORRUPTIONS[name](pixels, severity, np.random.default_rng(0)).astype(float) - pixels).mean()
        for severity in (1, 3, 5)
    ]
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", ["brightness", "contrast", "colour cast", "shadow", "dust"])
def test_black_stays_black(name: str) -> None:
    black = np.zeros((40, 60, 3), np.uint8)
    assert not CORRUPTIONS[name](black, 5, np.random.default_rng(0)).any()


def test_flips_are_five_and_keep_every_pixel(pixels: Pixels) -> None:
    flipped = [CORRUPTIONS["flip"](pixels, severity, np.random.default_rng(0)) for severity in SEVERITIES]
    assert len({one.tobytes() for one in flipped}) == 5
    assert {int(one.sum(dtype=np.int64)) for one in flipped} == {int(pixels.sum(dtype=np.int64))}


def test_rotation_keeps_the_whole_picture(pixels: Pixels) -> None:
    turned = CORRUPTIONS["rotation"](pixels, 5, np.random.default_rng(0))
    assert turned.shape[:2] == pixels.shape[1::-1]
    assert turned.mean() == pytest.approx(pixels.mean(), rel=0.02)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", [0, 6])
def test_other_severities_are_refused(name: str, severity: int, pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="severity must be one of 1, 2, 3, 4, 5"):
        CORRUPTIONS[name](pixels, severity, np.random.default_rng(0))
