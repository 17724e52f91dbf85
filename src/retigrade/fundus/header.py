"""The header of a picture file: what it declares, the limits on that, and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PIXELS = 120_000_000
MIN_SIDE = 32


class HeaderError(ValueError):
    """The file is no picture, damaged or outside the limits; its text finishes the sentence "eye.jpg: ..."."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole picture file, not yet decoded.

    width, height: pixels as stored. orientation: 1 to 8, the meaning of EXIF tag 274. alpha: transparency is stored.
    body: the bytes to hand to the decoder.
    """

    format: str
    width: int
    height: int
    orientation: int
    alpha: bool
    body: bytes

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def check_size(width: int, height: int) -> None:
    """Raise HeaderError where a picture of this size is outside the limits."""
    if width * height > MAX_PIXELS:
        raise HeaderError(
            f"declares {width} x {height} pixels, more than the {MAX_PIXELS // 10**6} megapixels that are read"
        )
    if min(width, height) < MIN_SIDE:
        raise HeaderError(f"{width} x {height} pixels are too few, each side needs at least {MIN_SIDE}")


def cut_short(kind: str) -> HeaderError:
    """The error of a file that ends too early."""
    return HeaderError(f"the {kind} is cut short, copy the file again from its source")


def damaged(kind: str, what: str) -> HeaderError:
    """The error of a file that contradicts itself."""
    return HeaderError(f"the {kind} is damaged ({what}), copy the file again from its source")
