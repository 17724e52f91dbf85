"""A photograph together with its canonical picture, and values carried from one to the other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retigrade.arrays import Flags, Floats, Pixels
from retigrade.fundus.crop import circle, crop
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import Field, find_field


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalView:
    """One photograph as decoded, its field, and its canonical picture, uint8 (S, S, 3)."""

    photo: Photo
    field: Field
    canonical: Pixels

    @property
    def disc(self) -> Flags:
        """Where the retinal disc lies in the photo's pixels: bool (h, w)."""
        height, width = self.photo.pixels.shape[:2]
        rows = ((np.arange(height) + 0.5) / height - self.field.cy) / self.field.ry
        columns = ((np.arange(width) + 0.5) / width - self.field.cx) / self.field.rx
        return np.asarray(rows[:, None] ** 2 + columns[None] ** 2 < 1)

    def to_canonical(self, values: Floats) -> tuple[Floats, Flags]:
        """Carry values of the photo's pixels, float32 (h, w), to the canonical picture.

        Returns the values there, float32 (S, S), and where there is retina, bool (S, S).
        """
        size, field = len(self.canonical), self.field
        height, width = values.shape
        place = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
        columns, rows = (field.cx + field.rx * place) * width - 0.5, (field.cy + field.ry * place) * height - 0.5
        across, down = (
            np.broadcast_to(columns, (size, size)).copy(),
            np.broadcast_to(rows[:, None], (size, size)).copy(),
        )
        carried = cv2.remap(values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left, top, right, bottom = np.array(field.window) * (width, height, width, height) - 0.5
        in_frame = (across > left) & (across < right) & (down > top) & (down < bottom)
        return np.asarray(carried, np.float32), in_frame & circle(size)


def canonical_view(photo: Photo, *, size: int) -> CanonicalView:
    """Find the field of a photo and make its canonical picture of `size` pixels; raises NotAFundus."""
    field = find_field(photo)
    return CanonicalView(photo, field, crop(photo, field, size=size))
