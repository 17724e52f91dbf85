"""Lesions of annotated photographs are pasted on healthy ones: in their light, as blurred as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retigrade.data.annotations import KINDS, AnnotatedPhoto
from retigrade.errors import UsageError
from retigrade.fundus.canonical import canonical_view
from retigrade.fundus.decode import Photo
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from retigrade.training.copy_paste import LesionBank

SIZE = 224
PASTED = (Grade.MILD, Grade.MODERATE)


def photo_of(grade: Grade, number: int) -> AnnotatedPhoto:
    """A drawn eye and what it has of lesions."""
    eye = draw_eye(grade=grade, size=600, rng=np.random.default_rng(number))
    height, width = eye.pixels.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[eye.masks["haemorrhage"]] |= KINDS["haemorrhage"]
    mask[eye.masks["hard_exudate"]] |= KINDS["hard exudate"]
    mask[eye.masks["microaneurysm"]] |= KINDS["microaneurysm"]
    return AnnotatedPhoto(Path(f"{number}.png"), Photo(eye.pixels, width, height, str(number)), mask)


@pytest.fixture(scope="module")
def bank() -> LesionBank:
    return LesionBank.of([photo_of(Grade.SEVERE, number) for number in range(3)], PASTED, size=SIZE)


@pytest.fixture(scope="module")
def healthy() -> np.ndarray:
    return canonical_view(photo_of(Grade.NONE, 9).photo, size=SIZE).canonical


@pytest.mark.parametrize(("grade", "faintest", "largest"), [(Grade.MILD, 0.05, 1 / 10), (Grade.MODERATE, 0.1, 1 / 4)])
def test_lesions_are_copied_with_soft_edges(bank: LesionBank, grade: Grade, faintest: float, largest: float) -> None:
    assert bank.lesions[grade]
    for lesion in (lesion for lesions in bank.lesions[grade] for lesion in lesions):
        assert lesion.dtype == np.float32
        assert max(lesion.shape[:2]) < SIZE * largest
        edge = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
        assert np.abs(np.log(lesion)).max() > faintest
        assert np.abs(np.log(edge)).mean() < 0.25 * np.abs(np.log(lesion)).max()


@pytest.mark.parametrize(("grade", "least"), [(Grade.MILD, 5), (Grade.MODERATE, 20)])
def test_a_healthy_eye_gets_lesions_and_stays_itself_elsewhere(
    bank: LesionBank, healthy: np.ndarray, grade: Grade, least: int
) -> None:
    before = healthy.copy()
    for seed in range(5):
        given = bank.paste(healthy, grade, np.random.default_rng(seed))
        assert given.dtype == np.uint8
        assert given.shape == healthy.shape
        changed = np.abs(given.astype(int) - healthy).max(axis=2) > 10
        assert least < changed.sum() < 0.2 * changed.size
        assert not given[healthy.max(axis=2) == 0].any()  # nothing on the black around the retina
    np.testing.assert_array_equal(healthy, before)


def test_a_lesion_takes_the_light_of_where_it_lies(bank: LesionBank) -> None:
    bright, dark = (np.full((SIZE, SIZE, 3), value, np.uint8) for value in (160, 40))
    first, second = (bank.paste(ground, Grade.MODERATE, np.random.default_rng(4)) / ground for ground in (bright, dark))
    clipped = (first * 160 > 254) | (second * 40 > 254)
    assert np.abs(first - second)[~clipped].max() < 1.5 / 40


def test_the_same_draw_pastes_the_same(bank: LesionBank, healthy: np.ndarray) -> None:
    pasted = [bank.paste(healthy, Grade.MODERATE, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(pasted[0], pasted[1])
    assert not np.array_equal(pasted[0], pasted[2])


def test_lesions_are_as_blurred_as_the_photograph(bank: LesionBank) -> None:
    ground = np.full((SIZE, SIZE, 3), 120, np.uint8)

    def sharpness(side: int | None) -> float:
        given = bank.paste(ground, Grade.MILD, np.random.default_rng(3), side=side).astype(float)
        return float(np.abs(np.diff(given, axis=0)).max())

    assert sharpness(SIZE) == sharpness(2 * SIZE) == sharpness(None)
    assert sharpness(SIZE // 4) < 0.7 * sharpness(None)


@pytest.mark.parametrize(("grade", "kind"), [(Grade.MILD, "microaneurysm"), (Grade.MODERATE, "haemorrhage or exudate")])
def test_without_lesions_there_is_nothing_to_paste(healthy: np.ndarray, grade: Grade, kind: str) -> None:
    with pytest.raises(UsageError, match=f"no {kind} is large and clear"):
        LesionBank.of([photo_of(Grade.NONE, 9)], [grade], size=SIZE)
    with pytest.raises(ValueError, match="no lesions to paste that make a photograph mild"):
        LesionBank({}).paste(healthy, Grade.MILD, np.random.default_rng(0))
