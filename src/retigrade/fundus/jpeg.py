"""The structure of a JPEG (ITU-T T.81): its frame, its scans, and whether they are all there.

The decoder is handed a copy without metadata and without the bytes that stand between segments, so that what it
complains about is damage. Whether the data of a scan suffice is for the strict decoder to say; that no scan is
missing is counted here, as a progressive JPEG without its last scans decodes to a coarse picture without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from retigrade.fundus import header as limits
from retigrade.fundus.header import Header, HeaderError, check_size, cut_short, damaged, several, unreadable_kind
from retigrade.fundus.tiff import exif_orientation

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
_DHT, _JPG, _DAC, _DQT, _DRI, _JPEG_LS = 0xC4, 0xC8, 0xCC, 0xDB, 0xDD, 0xF7
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, _JPG, _DAC}
_PROGRESSIVE, LOSSLESS = (0xC2, 0xCA), 0xC3
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_NEEDED = _FRAMES | {_DHT, _DAC, _DQT, _DRI, _APP0, _APP14}
_EXIF, _ICC, _GAIN_MAP = b"Exif\0\0", b"ICC_PROFILE\0", b"hdrgm"
_MAX_STRAY = 64  # bytes between two segments; more is damage


def read_jpeg(data: bytes) -> Header:
    """Read what a JPEG declares and check that all its scans are there.

    A missing end marker is put back and bytes between segments are left out: neither loses a pixel.
    Raises HeaderError, struct.error or IndexError where it is not whole.
    """
    view = memoryview(data)
    frame: _Frame | None = None
    body: list[bytes | memoryview] = [view[:2]]
    profile: dict[int, bytes] = {}
    orientation, scans, at = 0, 0, 2
    ends: npt.NDArray[np.intp] | None = None
    while True:
        at = _next_marker(data, at, lenient=scans > 0)
        if at == len(data) or data[at + 1] == _EOI:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if (marker <= _SOI and marker not in _NEEDED) or length < 2:
            raise damaged("JPEG", f"no valid marker at byte {at}")
        end = at + 2 + length
        if end > len(data):
            raise cut_short("JPEG")
        content = view[at + 4 : end]
        if marker == _JPEG_LS:
            raise unreadable_kind("JPEG-LS")
        if marker in _FRAMES:
            if frame is not None:
                raise damaged("JPEG", "two frames")
            frame = _Frame(marker, bytes(content))
        elif marker == _APP1 and not orientation and bytes(content[:6]) == _EXIF:
            orientation = exif_orientation(bytes(content[6:]))
        elif marker == _APP2 and bytes(content[:12]) == _ICC:
            profile[content[12]] = bytes(content[14:])
        if marker in _NEEDED:
            body.append(view[at:end])
        at = end
        if marker == _SOS:
            if frame is None:
                raise damaged("JPEG", "a scan before its frame")
            frame.count(bytes(content))
            scans += 1
            if scans > limits.MAX_SCANS or scans * frame.width * frame.height > limits.MAX_SCANNED_PIXELS:
                raise HeaderError(f"a JPEG of more than {scans - 1} scans, too many for a photograph: save it anew")
            ends = _scan_ends(data, at) if ends is None else ends
            following = int(np.searchsorted(ends, at))
            start, at = end - 2 - length, int(ends[following]) if following < len(ends) else len(data)
            body.append(view[start:at])
    if frame is None or not scans:
        raise damaged("JPEG", "it holds no picture")
    frame.check_complete()
    if pictures := sum(1 for _ in _following(data, at, frame)):
        raise several(1 + pictures, "JPEG pictures")
    return Header(
        "JPEG", frame.width, frame.height, orientation or 1, b"".join([*body, b"\xff\xd9"]), scans=scans,
        profile=b"".join(profile[part] for part in sorted(profile)) or None,
        process=frame.process, components=len(frame.missing),
    )  # fmt: skip


class _Frame:
    """Size, process and components of a frame, and what of their coefficients no scan has brought yet."""

    def __init__(self, process: int, content: bytes) -> None:
        precision, self.height, self.width, components = struct.unpack_from(">BHHB", content)
        if process in _HIERARCHICAL:
            raise unreadable_kind("hierarchical JPEG")
        check_size(self.width, self.height)
        if precision != 8:
            raise unreadable_kind(f"{precision}-bit JPEG")
        self.process = process
        # Bits below the point that each of the 64 coefficients still lacks; 255 where it has not been sent at all.
        self.missing = {content[6 + 3 * index]: np.full(64, 255, np.uint8) for index in range(components)}

    def count(self, scan: bytes) -> None:
        """Take note of what a scan brings, from its header (T.81 B.2.3)."""
        components = scan[0]
        if len(scan) < 4 + 2 * components:
            raise damaged("JPEG", "a scan header that is too short")
        first, last, points = scan[1 + 2 * components : 4 + 2 * components]
        if self.process not in _PROGRESSIVE:
            first, last, points = 0, 63, 0
        for index in range(components):
            if scan[1 + 2 * index] not in self.missing:
                raise damaged("JPEG", "a scan of an unknown component")
            self.missing[scan[1 + 2 * index]][first : last + 1] = points & 15

    def check_complete(self) -> None:
        """Raise HeaderError where a scan is missing."""
        if any(bits.any() for bits in self.missing.values()):
            raise HeaderError("part of the JPEG is missing (not all of its scans), copy the file again from its source")


def _next_marker(data: bytes, at: int, *, lenient: bool) -> int:
    """Where the next marker stands, past fill bytes and a few stray ones; the file's end where `lenient` and none is.

    A zero or a restart after 0xFF is no marker here.
    """
    for start in range(at, min(at + _MAX_STRAY, len(data) - 1)):
        if data[start] == 0xFF and data[start + 1] >= 0xC0 and data[start + 1] != 0xFF:
            if not 0xD0 <= data[start + 1] <= _SOI:
                return start
            break
    if lenient and at >= len(data) - 2:
        return len(data)
    if at >= len(data) - 2:
        raise cut_short("JPEG")
    raise damaged("JPEG", f"no valid marker at byte {at}")


def _scan_ends(data: bytes, start: int) -> npt.NDArray[np.intp]:
    """Where, from `start` on, a byte 0xFF ends a scan: it starts neither a stuffed byte nor fill nor a restart."""
    view = np.frombuffer(data, np.uint8)[start:]
    at = np.flatnonzero(view[:-1] == 0xFF)
    code = view[at + 1]
    ends: npt.NDArray[np.intp] = at[(code != 0) & (code != 0xFF) & (code & 0xF8 != 0xD0)] + start
    return ends


def _following(data: bytes, at: int, first: _Frame) -> Iterator[int]:
    """Yield where, behind the first picture, another coloured one of at least half its size stands.

    Smaller ones are previews, grey ones depth or gain maps; a gain map in colour says so.
    """
    while (at := data.find(b"\xff\xd8\xff", at)) >= 0:
        start, at = at, at + 2
        while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"", b"\xda", b"\xd9"):
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at + 1] in _FRAMES and length >= 17:
                height, width = struct.unpack_from(">HH", data, at + 5)
                large = 2 * width >= first.width and 2 * height >= first.height
                if large and data[at + 9] == 3 and _GAIN_MAP not in data[start:at]:
                    yield start
                break
            at += 2 + length
