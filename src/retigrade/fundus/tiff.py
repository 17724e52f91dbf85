"""TIFF 6.0 and BigTIFF, and EXIF, which is written in it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from retigrade.fundus.header import MAX_PIXELS, Header, HeaderError, check_size, cut_short, damaged

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLE_FORMAT = 256, 257, 258, 259, 274, 339
_STRIPS, _TILES, _TILE_SIDES = (273, 279), (324, 325), (322, 323)
TIFF_LAYOUTS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
# None, CCITT, LZW, JPEG, deflate (two codes) and PackBits: of any other, OpenCV makes black without a word.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
_TIFF_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}


@dataclass(frozen=True, slots=True)
class _Directory:
    """The first image file directory; entries: tag -> (type, count, where the value or its offset stands)."""

    data: bytes
    order: str
    big: bool
    entries: dict[int, tuple[int, int, int]]

    def values(self, tag: int, default: int | None = None) -> list[int]:
        """All values of an unsigned tag; IndexError where they lie outside the file."""
        if tag not in self.entries:
            if default is None:
                raise damaged("TIFF", f"no tag {tag}")
            return [default]
        kind, count, at = self.entries[tag]
        if kind not in _TIFF_TYPES or count == 0:
            raise damaged("TIFF", f"bad tag {tag}")
        dtype = np.dtype(self.order + _TIFF_TYPES[kind])
        if count * dtype.itemsize > (8 if self.big else 4):
            (at,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), self.data, at)
        if at + count * dtype.itemsize > len(self.data):
            raise IndexError(at)
        values: list[int] = np.frombuffer(self.data, dtype, count, at).tolist()
        return values


def _directory(data: bytes) -> _Directory:
    order, big = TIFF_LAYOUTS[data[:4]]
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    first = start + (8 if big else 2)
    if first + count * entry.size > len(data):
        raise IndexError(first)
    entries: dict[int, tuple[int, int, int]] = {}
    for at in range(first, first + count * entry.size, entry.size):
        tag, kind, values = entry.unpack_from(data, at)
        entries[tag] = kind, values, at + entry.size - (8 if big else 4)
    return _Directory(data, order, big, entries)


def read_tiff(data: bytes) -> Header:
    """Read what a TIFF declares; raises HeaderError, struct.error or IndexError where it is not whole."""
    directory = _directory(data)
    width, height = directory.values(_WIDTH)[0], directory.values(_HEIGHT)[0]
    check_size(width, height)
    if max(directory.values(_BITS, 1)) > 16 or directory.values(_SAMPLE_FORMAT, 1)[0] not in (1, 4):
        raise HeaderError("the TIFF holds signed, floating-point or 32-bit samples, save it with 8 or 16 bits")
    if (compression := directory.values(_COMPRESSION, 1)[0]) not in _COMPRESSIONS:
        raise HeaderError(f"the TIFF is compressed in a way that cannot be read ({compression}), save it with LZW")
    tiled = _TILES[0] in directory.entries
    if tiled and directory.values(_TILE_SIDES[0])[0] * directory.values(_TILE_SIDES[1])[0] > MAX_PIXELS:
        raise damaged("TIFF", "tiles larger than any picture")
    offsets, counts = (directory.values(tag) for tag in (_TILES if tiled else _STRIPS))
    if len(offsets) != len(counts):
        raise damaged("TIFF", "the pieces of the picture do not add up")
    if any(offset + count > len(data) for offset, count in zip(offsets, counts, strict=True)):
        raise cut_short("TIFF")
    return Header("TIFF", width, height, _orientation(directory), False, data)


def _orientation(directory: _Directory) -> int:
    orientation = directory.values(_ORIENTATION, 1)[0]
    return orientation if 1 <= orientation <= 8 else 1


def exif_orientation(exif: bytes) -> int:
    """Orientation from an EXIF block; 1 where it cannot be read, as metadata is no reason to refuse pixels."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        return _orientation(_directory(exif)) if exif[:4] in TIFF_LAYOUTS else 1
    except (HeaderError, struct.error, IndexError, OverflowError):
        return 1
