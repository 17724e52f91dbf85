"""TIFF 6.0 and BigTIFF, and EXIF, which is written in it."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import simplejpeg  # type: ignore[import-untyped]

from retigrade.fundus import header as limits
from retigrade.fundus.header import (
    Header,
    HeaderError,
    check_size,
    cut_short,
    damaged,
    several,
    unreadable_kind,
)
from retigrade.fundus.lzw import check_lzw

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLE_FORMAT = 256, 257, 258, 259, 274, 339
_SUBFILE, _OLD_SUBFILE, _MAX_SAMPLE, _JPEG_TABLES, _PROFILE, _DNG = 254, 255, 281, 347, 34675, 50706
_PHOTOMETRIC, _SAMPLES, _ROWS_PER_STRIP, _PLANAR = 262, 277, 278, 284
_YCBCR, _SEPARATE = 6, 2
_STRIPS, _TILES, _TILE_SIDES = (273, 279), (324, 325), (322, 323)
TIFF_LAYOUTS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
# None, CCITT, LZW, JPEG, deflate (two codes) and PackBits: of any other, OpenCV makes black without a word.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
_LZW, _JPEG, _DEFLATED = 5, 7, (8, 32946)
_TIFF_TYPES = {1: "u1", 3: "u2", 4: "u4", 7: "u1", 16: "u8"}
_REDUCED, _MASK = 1, 4
# Sizes, samples, compression, pieces and what they mean: all that decoding needs.
_NEEDED = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 334, 338, 339, 347, 529, 530, 531, 532}
)  # fmt: skip
_MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class _Directory:
    """An image file directory.

    entries: tag -> (type, count, where the value or its offset stands). start: where it stands itself. next: where the
    following one does, 0 at the end.
    """

    data: bytes
    order: str
    big: bool
    entries: dict[int, tuple[int, int, int]]
    start: int
    next: int

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


def _directory(data: bytes, start: int | None = None) -> _Directory:
    """Read the directory at `start`, or the first one."""
    order, big = TIFF_LAYOUTS[data[:4]]
    offset = struct.Struct(order + ("Q" if big else "I"))
    if start is None:
        (start,) = offset.unpack_from(data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    first = start + (8 if big else 2)
    end = first + count * entry.size
    if end > len(data):
        raise IndexError(first)
    entries: dict[int, tuple[int, int, int]] = {}
    for at in range(first, end, entry.size):
        tag, kind, values = entry.unpack_from(data, at)
        entries[tag] = kind, values, at + entry.size - (8 if big else 4)
    # Some writers leave out the offset that ends the last directory.
    following = offset.unpack_from(data, end)[0] if end + offset.size <= len(data) else 0
    return _Directory(data, order, big, entries, start, following)


def _photograph(data: bytes) -> _Directory:
    """Return the directory of the one page that is neither a preview nor a mask.

    Raises HeaderError where there are several of them, or none.
    """
    directory = _directory(data)
    visited: set[int] = set()
    pages: list[_Directory] = []
    while True:
        visited.add(directory.start)
        if not directory.values(_SUBFILE, 0)[0] & (_REDUCED | _MASK) and directory.values(_OLD_SUBFILE, 1)[0] != 2:
            pages.append(directory)
        if directory.next == 0 or directory.next in visited or len(visited) >= _MAX_PAGES:
            break
        directory = _directory(data, directory.next)
    if len(pages) > 1:
        raise several(len(pages), "pages")
    if not pages:
        raise HeaderError("the TIFF holds a preview only, not the photograph")
    return pages[0]


def read_tiff(data: bytes) -> Header:
    """Read what a TIFF declares and check its pieces; raises HeaderError, struct.error or IndexError if not whole."""
    directory = _photograph(data)
    if _DNG in directory.entries:
        raise unreadable_kind("camera raw")
    width, height = directory.values(_WIDTH)[0], directory.values(_HEIGHT)[0]
    check_size(width, height)
    bits = max(directory.values(_BITS, 1))
    if bits > 16 or directory.values(_SAMPLE_FORMAT, 1)[0] not in (1, 4):
        raise HeaderError("the TIFF holds signed, floating-point or 32-bit samples, save it with 8 or 16 bits")
    if (compression := directory.values(_COMPRESSION, 1)[0]) not in _COMPRESSIONS:
        raise HeaderError(f"the TIFF is compressed in a way that cannot be read ({compression}), save it with LZW")
    tiled = _TILES[0] in directory.entries
    if tiled and directory.values(_TILE_SIDES[0])[0] * directory.values(_TILE_SIDES[1])[0] > limits.MAX_PIXELS:
        raise damaged("TIFF", "tiles larger than any picture")
    offsets, counts = (directory.values(tag) for tag in (_TILES if tiled else _STRIPS))
    if len(offsets) != len(counts) or sum(counts) > len(data):  # each piece is copied, so they may not overlap
        raise damaged("TIFF", "the pieces of the picture do not add up")
    if any(offset + count > len(data) for offset, count in zip(offsets, counts, strict=True)):
        raise cut_short("TIFF")
    pieces = [data[offset : offset + count] for offset, count in zip(offsets, counts, strict=True)]
    if compression in _DEFLATED:
        _check_deflated(pieces)
    elif compression == _LZW:
        check_lzw(pieces, _lengths(directory, len(pieces)))
    elif compression == _JPEG:
        most = math.prod(directory.values(tag)[0] for tag in _TILE_SIDES) if tiled else width * height
        _check_jpegs(pieces, bytes(directory.values(_JPEG_TABLES, 0)), most=most)
    highest = max(directory.values(_MAX_SAMPLE, 0)) if _MAX_SAMPLE in directory.entries else 0
    return Header(
        "TIFF", width, height, _orientation(directory), _bare(directory), bits=bits,
        used_bits=highest.bit_length() or None,
        profile=bytes(directory.values(_PROFILE)) if _PROFILE in directory.entries else None,
        components=directory.values(_SAMPLES, 1)[0],
    )  # fmt: skip


def _bare(directory: _Directory) -> bytes:
    """The file with one directory, of no more than what the pixels need, at its end.

    So the decoders see the page that was chosen, and nothing that they would only warn about.
    """
    data, order, room = directory.data, directory.order, 8 if directory.big else 4
    kept = [at for tag, (_, _, at) in sorted(directory.entries.items()) if tag in _NEEDED]
    entries = b"".join(data[at - room - 4 : at + room] for at in kept)
    padding = bytes(-len(data) % 8)
    start = struct.pack(order + ("Q" if directory.big else "I"), len(data) + len(padding))
    count = struct.pack(order + ("Q" if directory.big else "H"), len(kept))
    at = 8 if directory.big else 4
    return b"".join((data[:at], start, memoryview(data)[at + room :], padding, count, entries, bytes(room)))


def _lengths(directory: _Directory, count: int) -> list[int]:
    """Bytes of each piece once decompressed, as far as the tags tell; 0 where they do not."""
    if directory.values(_PHOTOMETRIC, 1)[0] == _YCBCR:  # colour may be stored at less than every pixel
        return [0] * count
    width, height = directory.values(_WIDTH)[0], directory.values(_HEIGHT)[0]
    planes = directory.values(_SAMPLES, 1)[0] if directory.values(_PLANAR, 1)[0] == _SEPARATE else 1
    bits = directory.values(_BITS, 1)[0] * directory.values(_SAMPLES, 1)[0] // planes
    if _TILES[0] in directory.entries:
        across, down = (directory.values(tag)[0] for tag in _TILE_SIDES)
        return [-(-across * bits // 8) * down] * count
    rows = min(directory.values(_ROWS_PER_STRIP, height)[0], height)
    strips = -(-height // rows) if rows else 0
    if strips * planes != count:
        raise damaged("TIFF", "the pieces of the picture do not add up")
    last = height - (strips - 1) * rows
    return [-(-width * bits // 8) * (last if strip == strips - 1 else rows) for strip in range(strips)] * planes


def _check_deflated(pieces: list[bytes]) -> None:
    """Raise HeaderError where a piece's checksum is wrong: libtiff does not look at the last one's."""
    for piece in pieces:
        inflate = zlib.decompressobj()
        try:
            while piece and not inflate.eof:
                inflate.decompress(piece, 2**24)
                piece = inflate.unconsumed_tail
        except zlib.error:
            raise damaged("TIFF", "wrong checksum") from None
        if not inflate.eof:
            raise cut_short("TIFF")


def _check_jpegs(pieces: list[bytes], tables: bytes, *, most: int) -> None:
    """Raise HeaderError where a piece that is a JPEG is not whole: libtiff lets it pass. most: pixels it may have."""
    for piece in pieces:
        whole = tables[:-2] + piece[2:] if len(tables) > 4 else piece
        try:
            if whole.count(b"\xff\xda") > limits.MAX_SCANS:
                raise ValueError
            if math.prod(simplejpeg.decode_jpeg_header(whole)[:2]) > 2 * most:  # blocks may go over the edge
                raise ValueError
            simplejpeg.decode_jpeg(whole, "GRAY")
        except ValueError:
            raise damaged("TIFF", "its compressed data are corrupt") from None


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
