"""What kind of picture a file is and what it declares of itself, read before any pixel is allocated.

Small parsers for PNG (third edition), WebP (RFC 9649) and BMP; JPEG and TIFF have modules of their own. Each checks
the declared size against the limits as soon as it knows it, and then that the file is whole. Pillow reads the pixels,
but not this: it skips the checksums of a PNG's pixels, allocates a WebP before its size can be judged, fills a BMP's
missing runs with black, and puts Python warnings about odd metadata on the terminal.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from retigrade.fundus.header import (
    ZEROS,
    Header,
    HeaderError,
    Primaries,
    check_size,
    cut_short,
    damaged,
    several,
    unreadable_kind,
)
from retigrade.fundus.jpeg import read_jpeg
from retigrade.fundus.tiff import TIFF_LAYOUTS, exif_orientation, read_tiff

READABLE = frozenset({"JPEG", "PNG", "TIFF", "WebP", "BMP"})
SNIFF_BYTES = 132

_RAW = "camera raw"
# Where a kind's signature stands, the signature, the kind; the first that fits is the kind.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"CR\x02", _RAW),
    *((0, layout, "TIFF") for layout in TIFF_LAYOUTS),
    (8, b"WEBP", "WebP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftypcrx", _RAW),
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"v/1\x01", "OpenEXR"),
    *((0, start, "PNM") for start in (b"P4\n", b"P5\n", b"P6\n", b"P7\nWIDTH")),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIRO", _RAW),
    (0, b"IIU\0", _RAW),
    (128, b"DICM", "DICOM"),
)


def sniff(head: bytes) -> str | None:
    """Name the kind of picture that a file's first SNIFF_BYTES bytes belong to; None where it is no picture.

    The kinds in READABLE can be decoded here. The others are pictures too, but of a kind that cannot be read.
    """
    for at, signature, kind in _SIGNATURES:
        if head.startswith(signature, at) and (kind != "WebP" or head.startswith(b"RIFF")):
            return kind
    # Two letters alone would make a text that starts with "BM" a picture.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


def read_header(data: bytes) -> Header:
    """Read what `data`, a whole file, declares, and check that it is a picture, within the limits and complete.

    Raises HeaderError otherwise.
    """
    kind = sniff(data[:SNIFF_BYTES])
    if kind is None:
        raise HeaderError("not a picture in a format that can be read (JPEG, PNG, TIFF, WebP or BMP)")
    if kind not in READABLE:
        raise unreadable_kind(kind)
    try:
        return _PARSERS[kind](data)
    except HeaderError:
        raise
    except (struct.error, IndexError, OverflowError):
        raise cut_short(kind) from None
    except (ValueError, ArithmeticError):
        raise damaged(kind, "what it says of itself cannot be") from None


# PNG ------------------------------------------------------------------------------------------------------------------

_PALETTE = 3
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PROFILE_LIMIT = 2**24


def _png(data: bytes) -> Header:
    length, kind, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13:
        raise damaged("PNG", "no IHDR chunk")
    check_size(width, height)
    # Only the chunks that make the pixels go to the decoder: it warns about faults in the others. Transparency of one
    # colour key is no border but an accident in a photograph, so it is not among them.
    needed = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS"} if colour == _PALETTE else set())
    view = memoryview(data)
    body, chunks, at = [view[:8]], dict[bytes, bytes](), 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise cut_short("PNG")
        if kind in needed:
            if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise damaged("PNG", f"wrong checksum at byte {at}")
            body.append(view[at:end])
        elif not kind[0] & 0x20:  # an upper-case first letter: the picture cannot be read without it
            raise damaged("PNG", f"unknown chunk at byte {at}")
        chunks.setdefault(kind, data[at + 8 : end - 4] if kind not in needed else b"")
        at = end
    if b"IDAT" not in chunks:
        raise damaged("PNG", "it holds no picture")
    if (frames := int.from_bytes(chunks.get(b"acTL", b"")[:4], "big")) > 1:
        raise several(frames, "frames of an animation")
    return Header(
        "PNG", width, height, exif_orientation(chunks.get(b"eXIf", b"")), b"".join(body), bits=bits,
        used_bits=max(chunks.get(b"sBIT", b""), default=None),
        profile=_png_profile(chunks[b"iCCP"]) if b"iCCP" in chunks else None,
        primaries=None if {b"iCCP", b"sRGB"} & chunks.keys() else _png_primaries(chunks),
    )  # fmt: skip


def check_png_rows(body: bytes) -> None:
    """Raise HeaderError where the compressed data of a PNG, checked by `read_header`, are fewer than its rows take."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", body, 16)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    # First column and row and the steps between them, of the only pass or of Adam7's seven.
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes)
    lacking = sum(rows * (1 + -(-columns * samples * bits // 8)) for columns, rows in sizes if columns)
    inflate, at = zlib.decompressobj(), 8
    while at < len(body) and lacking > 0:
        length, kind = struct.unpack_from(">I4s", body, at)
        piece = body[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
        while piece and not inflate.eof:
            lacking -= len(inflate.decompress(piece, 2**24))
            piece = inflate.unconsumed_tail
    if lacking > 0:
        raise damaged("PNG", "rows are missing")


def _png_profile(chunk: bytes) -> bytes:
    """The profile of an iCCP chunk; no bytes, which are no profile either, where it cannot be unpacked."""
    try:
        return zlib.decompressobj().decompress(chunk[chunk.index(b"\0") + 2 :], _PROFILE_LIMIT)
    except (ValueError, zlib.error):
        return b""


def _png_primaries(chunks: dict[bytes, bytes]) -> Primaries | None:
    """What gAMA and cHRM say; None where there is no gAMA, as chromaticities alone say too little."""
    gamma, points = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    if len(gamma) != 4 or gamma == bytes(4):
        return None
    chromaticities = tuple(value / 1e5 for value in struct.unpack(">8I", points)) if len(points) == 32 else None
    return Primaries(int.from_bytes(gamma, "big") / 1e5, chromaticities)


# WebP -----------------------------------------------------------------------------------------------------------------

_ANIMATED = 0x02
_NEEDED_BYTES = 6


def _webp(data: bytes) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise cut_short("WebP")
    at, width, height, orientation, pixels = 12, 0, 0, 1, False
    profile: bytes | None = None
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise cut_short("WebP")
        chunk = data[at + 8 : at + 8 + min(length, 16)]
        if kind == b"VP8X":
            if chunk[0] & _ANIMATED:
                raise HeaderError("the WebP is an animation, not a photograph")
            width, height = (1 + int.from_bytes(chunk[i : i + 3], "little") for i in (4, 7))
        elif kind == b"VP8L":
            bits = int.from_bytes(chunk[1:5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", chunk, 6))
        elif kind == b"ICCP":
            profile = data[at + 8 : at + 8 + length]
        elif kind == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        if kind[:3] == b"VP8":
            check_size(width, height)
        if kind in (b"VP8 ", b"VP8L"):
            pixels = True
            if length < 16:
                raise cut_short("WebP")
            if data.find(ZEROS, at + 8, at + 8 + length) >= 0:
                raise damaged("WebP", "a piece of it was overwritten with zeros")
        at += 8 + length + length % 2
    if not pixels:
        raise damaged("WebP", "it holds no picture")
    return Header("WebP", width, height, orientation, data, profile=profile)


def shortened_webp(data: bytes) -> bytes:
    """The picture of a WebP alone, without its last bytes, for a test of damage.

    A decoder of the whole picture needs all of them; one that was led astray by a changed bit ends before, or past
    the end, which it says. The encoder's own padding takes up to three bytes.
    """
    at = 12
    while data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    length = int.from_bytes(data[at + 4 : at + 8], "little") - _NEEDED_BYTES
    body = b"WEBP" + data[at : at + 4] + struct.pack("<I", length) + data[at + 8 : at + 8 + length] + bytes(length % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# BMP ------------------------------------------------------------------------------------------------------------------

_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_BMP_RLE = (1, 2)


def _bmp(data: bytes) -> Header:
    pixels, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = stored = 0
    else:
        width, height, _, depth, compression, stored = struct.unpack_from("<iiHHII", data, 18)
    height = abs(height)  # negative where the rows run from the top
    check_size(width, height)
    rows = stored if compression in _BMP_RLE else (width * depth + 31) // 32 * 4 * height
    if pixels + rows > len(data):
        raise cut_short("BMP")
    return Header("BMP", width, height, 1, data)


_PARSERS: dict[str, Callable[[bytes], Header]] = {
    "JPEG": read_jpeg,
    "PNG": _png,
    "TIFF": read_tiff,
    "WebP": _webp,
    "BMP": _bmp,
}
