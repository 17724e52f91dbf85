"""One picture for one eye, whatever its file's shape and size, and the same for training as for grading."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.bundle import Bundle, Outputs
from retigrade.data.cache import canonical
from retigrade.data.manifest import Entry
from retigrade.fundus.crop import circle, crop, decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.field import Field, find_field
from retigrade.grader import load
from retigrade.icdr import Grade, Status
from retigrade.synthetic import Phantom, draw_eye
from tiny_bundle import SIZE as TINY
from tiny_bundle import write_tiny_bundle

SIZE = 224


def photo(pixels: Pixels) -> Photo:
    return Photo(pixels=pixels, width=pixels.shape[1], height=pixels.shape[0], sha256="0" * 64)


def prepared(pixels: Pixels) -> Pixels:
    seen = photo(pixels)
    return crop(seen, find_field(seen), size=SIZE)


def difference(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference within the circle, of 255."""
    return float(np.abs(one[circle(SIZE)].astype(int) - other[circle(SIZE)]).mean())


@pytest.mark.parametrize("size", [64, 224, 300])
def test_a_square_of_the_size_asked_for(eye: Phantom, size: int) -> None:
    pixels = crop(photo(eye.pixels), eye.field, size=size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert not pixels[~circle(size)].any()


def test_the_circle_is_centred_and_almost_fills_the_square() -> None:
    inside = circle(SIZE)
    np.testing.assert_array_equal(inside, inside.T)
    np.testing.assert_array_equal(inside, inside[::-1, ::-1])
    assert inside.mean() == pytest.approx(np.pi / 4 * 0.985**2, abs=0.002)
    with pytest.raises(ValueError, match="read-only"):
        inside[0, 0] = True


def test_black_outside_the_circle_even_where_the_frame_is_lit() -> None:
    white = np.full((300, 400, 3), 255, np.uint8)
    pixels = crop(photo(white), Field(cx=0.5, cy=0.5, rx=0.3, ry=0.4), size=SIZE)
    np.testing.assert_array_equal(pixels.min(axis=2) == 255, circle(SIZE))
    np.testing.assert_array_equal(pixels.max(axis=2) == 0, ~circle(SIZE))


def test_black_where_the_frame_cut_the_disc_off() -> None:
    white = np.full((300, 400, 3), 255, np.uint8)
    pixels = crop(photo(white), Field(cx=0.5, cy=0.5, rx=0.45, ry=0.625), size=SIZE)
    rows = np.flatnonzero(pixels.any(axis=(1, 2)))
    assert (rows[0], rows[-1]) == pytest.approx((0.1 * SIZE, 0.9 * SIZE), abs=2)
    middle = pixels[SIZE // 2]
    assert middle[circle(SIZE)[SIZE // 2]].min() == 255


def test_a_photo_smaller_than_the_square_is_enlarged(eyes: dict[Grade, Phantom]) -> None:
    phantom = eyes[Grade.NONE]
    small = cv2.resize(phantom.pixels, (160, 160), interpolation=cv2.INTER_AREA)
    enlarged = crop(photo(small), phantom.field, size=SIZE)
    assert difference(enlarged, crop(photo(phantom.pixels), phantom.field, size=SIZE)) < 3


@pytest.mark.parametrize(("aspect", "cut"), [(1.5, 0.0), (1.5, 0.1), (1.78, 0.05)])
@pytest.mark.parametrize("grade", [Grade.NONE, Grade.PROLIFERATIVE])
def test_a_squeezed_frame_gives_the_same_picture(grade: Grade, aspect: float, cut: float) -> None:
    phantom = draw_eye(grade=grade, size=400, aspect=aspect, cut=cut, rng=np.random.default_rng(4))
    squeezed = cv2.resize(phantom.pixels, (400, 400), interpolation=cv2.INTER_AREA)
    assert difference(prepared(squeezed), prepared(phantom.pixels)) < 1.5


@pytest.mark.parametrize("crop", [0.06, 0.12])
def test_a_frame_trimmed_of_its_black_gives_the_same_picture(eye: Phantom, crop: float) -> None:
    trim = int(crop * eye.pixels.shape[1])
    assert difference(prepared(eye.pixels[:, trim:-trim]), prepared(eye.pixels)) < 1.5


def test_a_reduced_decode_gives_nearly_the_same_picture(tmp_path: Path) -> None:
    phantom = draw_eye(grade=Grade.MODERATE, size=1280, aspect=1.5, rng=np.random.default_rng(7))
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), phantom.pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    full, reduced = decode(path), decode(path, min_side=decode_side(SIZE))
    assert reduced.pixels.shape == (320, 480, 3)
    one, other = (crop(seen, find_field(seen), size=SIZE) for seen in (full, reduced))
    assert difference(one, other) < 1.5


def test_training_and_grading_see_identical_pixels(
    tmp_path: Path, eye: Phantom, photo_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Pixels] = []
    run = Bundle.run

    def watched(self: Bundle, photos: Pixels) -> Outputs:
        seen.append(photos.copy())
        return run(self, photos)

    monkeypatch.setattr(Bundle, "run", watched)
    grader = load(write_tiny_bundle(tmp_path / "tiny.onnx"), threads=1)
    for name in ("eye.png", "eye.jpg"):
        path = photo_path(eye, name)
        assert grader.grade(path).status is Status.GRADED
        entry = Entry(
            path=path,
            name=name,
            grade=Grade.NONE,
            patient=name,
            eye=None,
            source="",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            width=960,
            height=640,
        )
        np.testing.assert_array_equal(seen.pop()[0], canonical(entry, size=TINY))
