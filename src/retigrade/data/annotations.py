"""Photographs on which experts have marked every lesion, to measure thermal maps against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags
from retigrade.errors import DataError, PhotoError
from retigrade.fundus.decode import Photo, decode, decode_bytes
from retigrade.inputs import Walk
from retigrade.locate import stem

KINDS = {"microaneurysm": 1, "haemorrhage": 2, "hard exudate": 4, "soft exudate": 8}
"""The bits of a mask that are lesions; 16 is the optic disc."""
LESIONS = 1 | 2 | 4 | 8
"""All of them."""

_MARGIN = 7 / 1072
"""By which lesions are dilated, in frame widths: 7 pixels of IDRiD's photographs at a quarter of their size."""


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedPhoto:
    """A photograph and its lesions: the mask has the bits of `KINDS`, uint8 (h, w), as large as the photo's pixels."""

    path: Path
    photo: Photo
    mask: npt.NDArray[np.uint8] | Flags

    @property
    def lesions(self) -> Flags:
        """Where there is any lesion: bool (h, w)."""
        return np.asarray((self.mask & LESIONS) > 0)

    @property
    def dilated(self) -> Flags:
        """The lesions with a margin, for a map need not hit the very pixel: bool (h, w)."""
        return self.dilated_of(LESIONS)

    def dilated_of(self, bits: int) -> Flags:
        """The lesions of some kinds with a margin: bool (h, w)."""
        radius = max(1, round(_MARGIN * self.mask.shape[1]))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        return np.asarray(cv2.dilate(((self.mask & bits) > 0).astype(np.uint8), disc), bool)


def find_annotated(folder: Path) -> tuple[tuple[Path, Path], ...]:
    """List the photographs in `photos/` with their masks in `masks/`, of the same name and ending in .png.

    Raises DataError where there is none, or a photograph has no mask.
    """
    photos = [item.path for item in Walk().photographs(folder / "photos") if item.path.parent == folder / "photos"]
    if not photos:
        raise DataError(
            f"{folder}: no photographs in {folder / 'photos'}; masks go beside them into {folder / 'masks'}"
        )
    pairs = tuple((path, folder / "masks" / f"{stem(path.name)}.png") for path in photos)
    if missing := [mask for _, mask in pairs if not mask.is_file()]:
        raise DataError(f"{missing[0]}: no such file ({len(missing)} of {len(photos)} photographs have no mask)")
    return pairs


def read_annotated(folder: Path) -> Iterator[AnnotatedPhoto]:
    """Read them one by one, those without a lesion left out.

    Raises DataError where one cannot be read or a mask is of another size than its photograph.
    """
    for path, mask in find_annotated(folder):
        try:
            photo = decode(path)
            bits = decode_bytes(mask.read_bytes(), name=mask.name).pixels[..., 0]
        except PhotoError as error:
            raise DataError(str(error)) from error
        except OSError as error:
            raise DataError(f"{mask}: cannot be read ({error.strerror})") from error
        if bits.shape != photo.pixels.shape[:2]:
            raise DataError(f"{mask}: is {bits.shape[::-1]} pixels, its photograph {photo.pixels.shape[1::-1]}")
        if (bits & LESIONS).any():
            yield AnnotatedPhoto(path, photo, bits)
