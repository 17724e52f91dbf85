"""The photographs as each protocol shows them to a network, kept as memory-mapped arrays."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np

from retigrade.arrays import Pixels
from retigrade.data.cache import cached, decode_listed, prepared
from retigrade.data.manifest import Entry, Manifest
from retigrade.fundus.field import lit
from retigrade.paper.config import Preparation

_GAIN, _MIDDLE = 4, 128
_BLUR = 1 / 60  # of the side, which is a thirtieth of the disc's radius


class View(StrEnum):
    """How a photograph becomes a square."""

    SQUEEZED = "squeezed"
    CANONICAL = "canonical"


def pictures(manifest: Manifest, *, view: View, preparation: Preparation, size: int, folder: Path) -> Pixels:
    """Return every photograph in one view and preparation: uint8 (N, size, size, 3), memory-mapped.

    The array is made at the first call and read back at later ones. Raises DataError where a photograph has no retinal
    disc (for the canonical view) or changed since, UsageError where the folder cannot be written.
    """
    plain = _plain(manifest, view=view, size=size, folder=folder)
    if preparation is Preparation.COLOUR:
        return plain
    place = {entry.name: index for index, entry in enumerate(manifest.entries)}
    path = folder / f"{view}-{preparation}-{manifest.fingerprint[:16]}-{size}.npy"
    return cached(path, lambda entry: gaussian(plain[place[entry.name]]), manifest, size=size)


def squeezed(entry: Entry, *, size: int) -> Pixels:
    """The whole frame resized to a square, whatever its aspect: uint8 (size, size, 3)."""
    pixels = decode_listed(entry, size=size).pixels
    shrinks = min(pixels.shape[:2]) > size
    kernel = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=kernel), np.uint8)


def gaussian(pixels: Pixels) -> Pixels:
    """The photograph minus its own Gaussian blur, times 4, plus 128, inside the disc, and black outside: uint8.

    The blur's deviation is a thirtieth of the disc's radius (Graham, "Kaggle Diabetic Retinopathy Detection competition
    report", 2015), which is how the copy of APTOS 2019 that the publication cites was filtered.
    """
    side = pixels.shape[0]
    values = pixels.astype(np.float32)
    detail = (values - cv2.GaussianBlur(values, (0, 0), side * _BLUR)) * _GAIN + _MIDDLE
    inside = np.zeros(pixels.shape[:2], np.uint8)
    outlines, _ = cv2.findContours(lit(pixels).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(inside, outlines, -1, 1, cv2.FILLED)
    return np.asarray(np.clip(np.rint(detail), 0, 255).astype(np.uint8) * inside[..., None])


def _plain(manifest: Manifest, *, view: View, size: int, folder: Path) -> Pixels:
    if view is View.CANONICAL:
        return prepared(manifest, size=size, folder=folder)
    path = folder / f"{view}-{manifest.fingerprint[:16]}-{size}.npy"
    return cached(path, lambda entry: squeezed(entry, size=size), manifest, size=size)
