"""Samples of any depth and colour space to 8-bit sRGB, which is what the network learned from."""

from __future__ import annotations

import io
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from retigrade.arrays import Pixels
from retigrade.fundus.header import Header, Primaries

_ROWS = 256  # converted at a time, so that no second picture of full size is made
_DEPTHS = (10, 12, 14, 16)
_ALMOST = 2  # levels by which a profile may differ from sRGB and be taken for it
_SRGB_GAMMA = 1 / 2.2
# White, red, green and blue: x and y each, of sRGB (IEC 61966-2-1).
_SRGB_POINTS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_LINEAR_STEPS = 4095

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def to_srgb(samples: Samples, header: Header) -> tuple[Pixels, tuple[str, ...]]:
    """Convert uint8 or uint16 (h, w, 3) RGB samples as `header` says; may change `samples` in place.

    Returns uint8 (h, w, 3) sRGB, and sentences on what could not be done or had to be guessed.
    """
    notes: list[str] = []
    highest = 255
    if samples.dtype == np.uint16:
        highest, guessed = _highest(int(samples.max()), header.used_bits)
        if guessed:
            notes.append(f"{highest.bit_length()} of the 16 bits of its samples are in use, taken as the full range")
    pixels: Pixels | None = None
    if header.primaries is not None and not _is_srgb(header.primaries):
        try:
            pixels = _from_primaries(samples, header.primaries, highest)
        except ValueError:
            notes.append("its gamma and primaries cannot be used, its colours are taken as sRGB")
    if pixels is None and samples.dtype == np.uint16:
        pixels = np.asarray(cv2.convertScaleAbs(samples, alpha=255 / highest), np.uint8)
    elif pixels is None:
        pixels = np.asarray(samples, np.uint8)
    if header.profile is not None:
        try:
            transform = _transform(header.profile)
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("its colour profile cannot be used, its colours are taken as sRGB")
        else:
            if transform is not None:
                _apply(transform, pixels)
    return pixels, tuple(notes)


def _highest(brightest: int, declared: int | None) -> tuple[int, bool]:
    """The value that stands for full light, and whether it is a guess.

    Files of 10, 12 or 14 bits store them at either end of 16. What the brightest sample fits into decides, unless the
    file says that all 16 are in use.
    """
    used = next(bits for bits in _DEPTHS if brightest < 1 << bits)
    if declared in _DEPTHS and used <= declared:
        return (1 << declared) - 1, False
    return (1 << used) - 1, used < 16


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile's RGB to sRGB; None where they are the same or the picture has no colours.

    Raises PyCMSError, OSError or ValueError: no usable RGB profile.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space == "GRAY":
        return None
    if space != "RGB":
        raise ValueError(space)
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION,  # without a cache, threads may share it
    )  # fmt: skip
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    seen = grid.copy()
    _apply(transform, seen)
    return transform if np.abs(seen.astype(int) - grid).max() > _ALMOST else None


def _apply(transform: ImageCms.ImageCmsTransform, pixels: Pixels) -> None:
    """Convert uint8 (h, w, 3) in place."""
    for top in range(0, len(pixels), _ROWS):
        rows = Image.fromarray(np.ascontiguousarray(pixels[top : top + _ROWS]))
        pixels[top : top + _ROWS] = np.asarray(transform.apply(rows))


def _is_srgb(primaries: Primaries) -> bool:
    """Whether they say no more than that the picture is sRGB, whose curve is written as a power of 1 / 2.2."""
    points = primaries.chromaticities or _SRGB_POINTS
    return abs(primaries.gamma / _SRGB_GAMMA - 1) < 0.05 and bool(np.allclose(points, _SRGB_POINTS, atol=0.005))


def _from_primaries(samples: Samples, primaries: Primaries, highest: int) -> Pixels:
    """To sRGB by the power and the primaries of a PNG (its third edition, 11.3.2.1 and 11.3.2.2)."""
    values = np.minimum(np.arange(np.iinfo(samples.dtype).max + 1) / highest, 1)
    light = (values ** (1 / primaries.gamma)).astype(np.float32)
    if primaries.chromaticities is None or np.allclose(primaries.chromaticities, _SRGB_POINTS, atol=0.005):
        return np.asarray(_encoded(light)[samples], np.uint8)
    matrix = np.linalg.solve(_to_xyz(_SRGB_POINTS), _to_xyz(primaries.chromaticities))
    encoded = _encoded(np.linspace(0, 1, _LINEAR_STEPS + 1))
    pixels = np.empty(samples.shape, np.uint8)
    for top in range(0, len(samples), _ROWS):
        linear = cv2.transform(light[samples[top : top + _ROWS]], matrix)
        pixels[top : top + _ROWS] = encoded[np.rint(np.clip(linear, 0, 1) * _LINEAR_STEPS).astype(np.uint16)]
    return pixels


def _encoded(light: npt.NDArray[np.floating]) -> Pixels:
    """Linear light of 0 to 1 to sRGB's 0 to 255 (IEC 61966-2-1)."""
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(curve * 255), np.uint8)


def _to_xyz(points: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """The matrix from linear RGB of these chromaticities to XYZ relative to their own white.

    Raises ValueError where they lie on one line.
    """
    if not all(points[1::2]):
        raise ValueError("a chromaticity of zero")
    white, *primaries = ((x / y, 1.0, (1 - x - y) / y) for x, y in zip(points[::2], points[1::2], strict=True))
    columns = np.array(primaries).T
    scale = np.linalg.solve(columns, np.array(white))
    return np.asarray(columns * scale, np.float64)
