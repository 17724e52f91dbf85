"""Photographs that show the same view of one eye: byte for byte, re-encoded, resized, re-cropped, or shot again.

Fundus photographs all look alike from afar, and one camera's frame, dust and reflections look alike from near. What
tells an eye is its vessels: a band of the green channel, its contrast made even, looked at away from every edge of the
retina. A coarse sketch of that band finds candidates; the fine one, shifted until it fits, confirms them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats, Pixels
from retigrade.data.groups import Groups, connected_components, positions_by_key
from retigrade.errors import NotAFundus
from retigrade.fundus.crop import LIT, crop, decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.field import WHOLE_FRAME, Field, find_field
from retigrade.progress import RunProgress

_SIDE = 192  # of the canonical field from which both scales are drawn
_COARSE = 48
_FINE = 128
_LARGEST_SHIFT = 16  # in fine pixels: an eighth of the field
# Measured on the public APTOS, IDRiD and EyePACS photographs, every pair near the limits looked at: the same view
# reaches 0.35 coarse and 0.71 fine at least, another eye 0.67 fine at most.
_CANDIDATE = 0.32
_SAME = 0.70
_FINE_STEPS = 127  # fine sketches are kept as int8: a quarter of the memory, no measurable change
_BLOCK = 1024

Complexes = npt.NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs, by index, first < second, that show the same.

    exact: their bytes or their pixels are equal. likeness: correlation of their vessels, at most 1.
    """

    first: int
    second: int
    exact: bool
    likeness: float


@dataclass(frozen=True, slots=True, eq=False)
class _Sketch:
    """What is kept of one photograph: digests of bytes and pixels, coarse and fine vessels, each of unit length."""

    sha256: str
    pixels: bytes
    coarse: Floats
    fine: npt.NDArray[np.int8]


def find_duplicates(photographs: Sequence[Path], *, progress: RunProgress | None = None) -> Groups:
    """Group the photographs that show the same view of one eye, as indices into `photographs`.

    progress: hears of each step. Raises UnreadablePhoto where one cannot be decoded.
    """
    pairs = find_pairs(photographs, progress=progress)
    return connected_components(((pair.first, pair.second) for pair in pairs), size=len(photographs))


def find_pairs(photographs: Sequence[Path], *, progress: RunProgress | None = None) -> tuple[Pair, ...]:
    """Find the pairs that link exact and near duplicates, as indices into `photographs`.

    Of equal photographs each is paired with the first alone, and the first stands for all when near ones are sought.
    progress: hears of each step. Raises UnreadablePhoto where one cannot be decoded.
    """
    progress = progress or RunProgress()
    with ThreadPoolExecutor() as pool:
        sketches = list(
            progress.track(pool.map(_sketch, photographs), "looking for duplicates", total=len(photographs))
        )
    by_bytes = positions_by_key(sketch.sha256 for sketch in sketches)
    by_pixels = positions_by_key(sketch.pixels for sketch in sketches)
    equal = connected_components([*by_bytes, *by_pixels], size=len(sketches))
    exact = [Pair(group[0], other, exact=True, likeness=1.0) for group in equal for other in group[1:]]
    copies = {pair.second for pair in exact}
    kept = [index for index in range(len(sketches)) if index not in copies]
    near = [
        Pair(kept[first], kept[second], exact=False, likeness=likeness)
        for first, second, likeness in _near([sketches[index] for index in kept])
    ]
    return tuple(sorted([*exact, *near], key=lambda pair: (pair.first, pair.second)))


def _sketch(path: Path) -> _Sketch:
    photo = decode(path, min_side=decode_side(_SIDE))
    picture = crop(photo, _field(photo), size=_SIDE)
    size = np.array(photo.pixels.shape)
    return _Sketch(
        sha256=photo.sha256,
        pixels=hashlib.sha256(size.tobytes() + photo.pixels.tobytes()).digest(),
        coarse=_vessels(picture, side=_COARSE, finest=None, coarsest=2, even=5),
        fine=_packed(_vessels(picture, side=_FINE, finest=1, coarsest=6, even=12)),
    )


def _field(photo: Photo) -> Field:
    """The disc, or the whole frame: a picture without a disc can still be a copy of another."""
    try:
        return find_field(photo)
    except NotAFundus:
        return WHOLE_FRAME


def _vessels(picture: Pixels, *, side: int, finest: float | None, coarsest: float, even: float) -> Floats:
    """Band-passed green of even contrast, float32 (side, side), mean 0 and length 1, 0 near every edge of the retina.

    finest, coarsest: the standard deviations of the two blurs whose difference is the band; even: that of the window
    in which contrast is made even. All in pixels of the result.
    """
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    lit = (small.max(axis=2) > LIT).astype(np.uint8)
    radius = max(1, round(side * 0.05))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inside = cv2.erode(lit, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(np.float32)
    area = float(inside.sum())
    if area == 0:
        return np.zeros((side, side), dtype=np.float32)
    weight, green = lit.astype(np.float32), small[..., 1].astype(np.float32)
    detail = green if finest is None else _blur(green, weight, finest)
    band = (detail - _blur(green, weight, coarsest)) * inside
    contrast = np.sqrt(_blur(band * band, inside, even))
    flat = np.clip(band / (contrast + 1), -2.5, 2.5) * inside
    flat = (flat - flat.sum() / area) * inside
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), dtype=np.float32)


def _blur(values: Floats, weight: Floats, deviation: float) -> Floats:
    """Gaussian mean of the values that count."""
    mean = cv2.GaussianBlur(values * weight, (0, 0), deviation)
    return np.asarray(mean / np.maximum(cv2.GaussianBlur(weight, (0, 0), deviation), 0.01))


def _packed(vessels: Floats) -> npt.NDArray[np.int8]:
    peak = max(float(np.abs(vessels).max()), 1e-6)
    return np.asarray(np.round(vessels * (_FINE_STEPS / peak)), dtype=np.int8)


def _near(sketches: Sequence[_Sketch]) -> Iterator[tuple[int, int, float]]:
    """Confirmed pairs, by position, with their likeness."""
    for first, seconds in _candidates(sketches):
        here = np.conj(_spectra([sketches[first]]))
        for at in range(0, len(seconds), _BLOCK):
            block = seconds[at : at + _BLOCK]
            likeness = _best_shift(here * _spectra([sketches[second] for second in block]))
            for second, value in zip(block, likeness, strict=True):
                if value >= _SAME:
                    yield first, int(second), min(float(value), 1.0)


def _candidates(sketches: Sequence[_Sketch]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """For each photograph the later ones whose coarse sketches correlate with it, if any."""
    if not sketches:
        return
    flat = np.stack([sketch.coarse.ravel() for sketch in sketches])
    for start in range(0, len(flat), _BLOCK):
        close = flat[start : start + _BLOCK] @ flat[start:].T > _CANDIDATE
        for row in range(len(close)):
            seconds = np.flatnonzero(close[row, row + 1 :]) + start + row + 1
            if len(seconds):
                yield start + row, seconds


def _spectra(sketches: Sequence[_Sketch]) -> Complexes:
    fine = np.stack([sketch.fine for sketch in sketches]).astype(np.float32)
    length = np.maximum(np.linalg.norm(fine, axis=(1, 2), keepdims=True), 1e-6)
    return np.asarray(np.fft.rfft2(fine / length), dtype=np.complex64)


def _best_shift(product: Complexes) -> Floats:
    """The highest correlation within the largest shift, from cross spectra (n, side, side / 2 + 1)."""
    surface = np.fft.irfft2(product, s=(_FINE, _FINE))
    reach = np.r_[-_LARGEST_SHIFT : _LARGEST_SHIFT + 1]
    return np.asarray(surface[:, reach[:, None], reach].max(axis=(1, 2)), dtype=np.float32)
