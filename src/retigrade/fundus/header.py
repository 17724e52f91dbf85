"""What a picture file declares of itself, the limits on that, and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PIXELS = 120_000_000
MIN_SIDE = 32
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 2_400_000_000  # scans times pixels: a dozen passes over the largest picture, a minute at most
# In arithmetic, Huffman or LZW code such a run is a lost piece of the file, and no decoder objects: the longest in
# encodings of fundus photographs, black surrounds included, has 7 bytes.
ZEROS = bytes(64)


class HeaderError(ValueError):
    """The file is no picture, damaged or outside the limits; its text finishes the sentence "eye.jpg: ..."."""


@dataclass(frozen=True, slots=True)
class Primaries:
    """How a PNG without a profile says that its samples are to be seen.

    gamma: samples are light to this power, 1 / 2.2 for sRGB. chromaticities: x and y of white, red, green and blue,
    or None where the file does not say.
    """

    gamma: float
    chromaticities: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """A whole picture file, not yet decoded.

    width, height: pixels as stored. orientation: 1 to 8, the meaning of EXIF tag 274. body: the bytes to hand to the
    decoder. bits: per sample, at most 16. used_bits: of them in use by the file's own account, None where it does not
    say. profile: the embedded ICC profile. scans: how often a decoder passes over the picture; a JPEG of more than one
    keeps its coefficients in memory. process: the JPEG's, the second byte of its frame marker.
    """

    format: str
    width: int
    height: int
    orientation: int
    body: bytes
    bits: int = 8
    used_bits: int | None = None
    profile: bytes | None = None
    primaries: Primaries | None = None
    scans: int = 1
    process: int = 0
    components: int = 3

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


def several(count: int, things: str) -> HeaderError:
    """The error of a file with more pictures than one verdict can cover."""
    return HeaderError(f"holds {count} {things}, one verdict cannot cover them: save each as a file of its own")


def unreadable_kind(kind: str) -> HeaderError:
    """The error of a picture of a kind that cannot be read: it names the kind and the way out."""
    if kind == "DICOM":
        return HeaderError("a DICOM file; `retigrade grade` reads those where its extra dicom is installed")
    return HeaderError(f"{kind} pictures cannot be read, convert it to JPEG or PNG")
