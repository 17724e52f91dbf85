"""What a picture file declares about itself, read before any pixel is allocated.

Small parsers for JPEG (ITU-T T.81), PNG (third edition), TIFF 6.0 and BigTIFF, WebP (RFC 9649) and BMP. Each checks
the declared size against the limits as soon as it knows it, and then that the file is whole: the C libraries
behind OpenCV fill what is missing with grey, or complain on stderr, and neither may happen here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from retigrade.fundus.header import Header, HeaderError, check_size, cut_short, damaged
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


def unreadable_kind(kind: str) -> HeaderError:
    """The error of a picture of a kind that cannot be read: it names the kind and the way out."""
    if kind == "DICOM":
        return HeaderError("DICOM cannot be read here, export the photograph as JPEG or PNG")
    return HeaderError(f"{kind} pictures cannot be read, convert it to JPEG or PNG")


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
    except (struct.error, IndexError, OverflowError):
        raise cut_short(kind) from None


# JPEG -----------------------------------------------------------------------------------------------------------------

_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(data: bytes) -> Header:
    at, width, height, orientation = 2, 0, 0, 0
    markers: npt.NDArray[np.intp] | None = None
    while True:
        while data[at] == data[at + 1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
        filler, marker, length = *data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _EOI and filler == 0xFF:
            break
        if filler != 0xFF or marker < 0xC0 or 0xD0 <= marker <= _SOI or length < 2:
            raise damaged("JPEG", f"no valid marker at byte {at}")
        if at + 2 + length > len(data):
            raise cut_short("JPEG")
        if marker in _FRAMES and not width:
            height, width = struct.unpack_from(">HH", data, at + 5)
            check_size(width, height)
        elif marker == _APP1 and not orientation and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
        if marker == _SOS:
            markers = _markers(data, at) if markers is None else markers
            following = int(np.searchsorted(markers, at))
            if following == len(markers):
                raise cut_short("JPEG")
            at = int(markers[following])
    if not width or markers is None:
        raise damaged("JPEG", "it holds no picture")
    return Header("JPEG", width, height, orientation or 1, False, data)


def _markers(data: bytes, start: int) -> npt.NDArray[np.intp]:
    """Where, from `start` on, a byte 0xFF ends a scan: it starts neither a stuffed byte nor fill nor a restart."""
    view = np.frombuffer(data, np.uint8)[start:]
    at = np.flatnonzero(view[:-1] == 0xFF)
    code = view[at + 1]
    markers: npt.NDArray[np.intp] = at[(code != 0) & (code != 0xFF) & (code & 0xF8 != 0xD0)] + start
    return markers


# PNG ------------------------------------------------------------------------------------------------------------------

_PALETTE, _WITH_ALPHA = 3, (4, 6)


def _png(data: bytes) -> Header:
    length, kind, width, height, _, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13:
        raise damaged("PNG", "no IHDR chunk")
    check_size(width, height)
    # Only the chunks that make the pixels go to libpng: it warns on stderr about faults in the others, such as colour
    # profiles. Transparency of one colour key is no border but an accident in a photograph, so it is not among them.
    needed = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS"} if colour == _PALETTE else set())
    view = memoryview(data)
    body, kinds, orientation, at = [view[:8]], set(), 1, 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise cut_short("PNG")
        if kind in needed:
            if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise damaged("PNG", f"wrong checksum at byte {at}")
            body.append(view[at:end])
            kinds.add(kind)
        elif kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : end - 4])
        elif not kind[0] & 0x20:  # an upper-case first letter: the picture cannot be read without it
            raise damaged("PNG", f"unknown chunk at byte {at}")
        at = end
    if b"IDAT" not in kinds:
        raise damaged("PNG", "it holds no picture")
    return Header("PNG", width, height, orientation, colour in _WITH_ALPHA or b"tRNS" in kinds, b"".join(body))


# WebP -----------------------------------------------------------------------------------------------------------------

_ANIMATED, _TRANSPARENT = 0x02, 0x10


def _webp(data: bytes) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise cut_short("WebP")
    at, width, height, orientation, alpha, pixels = 12, 0, 0, 1, False, False
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise cut_short("WebP")
        chunk = data[at + 8 : at + 8 + min(length, 16)]
        if kind == b"VP8X":
            if chunk[0] & _ANIMATED:
                raise HeaderError("the WebP is an animation, not a photograph")
            alpha = bool(chunk[0] & _TRANSPARENT)
            width, height = (1 + int.from_bytes(chunk[i : i + 3], "little") for i in (4, 7))
        elif kind == b"VP8L":
            pixels = True
            bits = int.from_bytes(chunk[1:5], "little")
            alpha = alpha or bool(bits >> 28 & 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            pixels = True
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", chunk, 6))
        elif kind == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        if kind[:3] == b"VP8":
            check_size(width, height)
        at += 8 + length + length % 2
    if not pixels:
        raise damaged("WebP", "it holds no picture")
    return Header("WebP", width, height, orientation, alpha, data)


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
    # The fourth byte of a BMP's pixel is unused far oftener than it is transparency, so it is not read as such.
    return Header("BMP", width, height, 1, False, data)


_PARSERS: dict[str, Callable[[bytes], Header]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": read_tiff,
    "WebP": _webp,
    "BMP": _bmp,
}
