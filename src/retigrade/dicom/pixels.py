"""One frame of DICOM pixel data to RGB, whatever its transfer syntax and photometric interpretation.

JPEG, lossy or lossless, goes through the decoder that reads JPEG files, so that a photograph has the same pixels either
way; everything else through pydicom with pylibjpeg (JPEG 2000, RLE) and pyjpegls. A colour profile is converted to
sRGB, as in other pictures. VOI windows and overlays are left alone: the network learned from samples as stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from retigrade.arrays import Pixels
from retigrade.dicom.dataset import hushed, integer_of, items_of, text_of
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.colour import to_srgb
from retigrade.fundus.decode import MEMORY, Photo, decode_bytes
from retigrade.fundus.header import MAX_PIXELS, Header
from retigrade.fundus.jpeg import LOSSLESS

_NATIVE = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
}
_JPEG = {
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    # Retired, yet met: JPEG spectral selection and full progression, Huffman-coded (PS3.5, 2016 and earlier).
    uid.UID("1.2.840.10008.1.2.4.53"),
    uid.UID("1.2.840.10008.1.2.4.55"),
}
# Which decoder reads what; named, so that what else is installed beside us changes nothing.
_PLUGINS = {
    uid.RLELossless: "pylibjpeg",
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys(
        (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), "pylibjpeg"
    ),
}
READABLE = (*sorted(_NATIVE), *sorted(_JPEG), *_PLUGINS)
"""The transfer syntaxes that are read."""

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_DECODING = 12  # bytes a pixel, and a byte of its samples: what decoding takes at most
_UNSHIFTED: Any = {"correct_unused_bits": False}  # pydicom's own way with bits that are not stored at the low end
_ITEM = b"\xfe\xff\x00\xe0"
_ENCODED_MARGIN = 2**16  # bytes by which an encoded frame may exceed twice its decoded size

Refuse = Callable[[str], UnreadablePhoto]


def decode_frame(dataset: FileDataset, frame: int, *, name: str, sha256: str, min_side: int | None = None) -> Photo:
    """Decode one frame, counted from 1; `sha256` is of the file's bytes, `min_side` as in `retigrade.fundus.decode`.

    Samples of more than 8 bits are scaled to 8, palettes and YBR become RGB. Raises UnreadablePhoto: a transfer syntax
    or photometric interpretation that is not read, pixel data that is absent, of the wrong length or damaged.
    """

    def refuse(reason: str) -> UnreadablePhoto:
        return UnreadablePhoto(f"{name}: {reason}")

    layout = _Layout(dataset, refuse)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _NATIVE and syntax not in _JPEG and syntax not in _PLUGINS:
        known = uid.UID(syntax).name
        raise refuse(f"the transfer syntax {known if known == syntax else f'{known} ({syntax})'} cannot be read")
    if "PixelData" not in dataset:
        raise refuse("the DICOM file holds no pixel data")
    if syntax in _JPEG:
        data = _encoded(dataset, frame, layout, refuse)
        return replace(_decoded_jpeg(data, layout, name=name, min_side=min_side, refuse=refuse), sha256=sha256)
    with MEMORY.reserved(_DECODING * layout.rows * layout.columns * (layout.allocated or 8) // 8):
        pixels, notes = to_srgb(_decoded(dataset, frame, layout, refuse), _colours(dataset, layout))
    return Photo(pixels=pixels, width=layout.columns, height=layout.rows, sha256=sha256, notes=notes)


def _colours(dataset: FileDataset, layout: _Layout) -> Header:
    """What `to_srgb` goes by: the colour profile, at the top or in an optical path (PS3.3, C.11.15)."""
    profiles = [item.get("ICCProfile") for item in (dataset, *items_of(dataset, "OpticalPathSequence"))]
    profile = next((value for value in profiles if isinstance(value, bytes) and value), None)
    return Header("DICOM", layout.columns, layout.rows, 1, b"", profile=profile)


class _Layout:
    """How the samples lie, checked: each value one that the decoders are known to read rightly."""

    def __init__(self, dataset: FileDataset, refuse: Refuse) -> None:
        self.rows, self.columns = integer_of(dataset, "Rows") or 0, integer_of(dataset, "Columns") or 0
        self.frames = integer_of(dataset, "NumberOfFrames") or 1
        self.photometric = text_of(dataset, "PhotometricInterpretation") or "nothing"
        self.samples = integer_of(dataset, "SamplesPerPixel")
        self.allocated, self.stored = integer_of(dataset, "BitsAllocated"), integer_of(dataset, "BitsStored")
        high = integer_of(dataset, "HighBit")
        if not 0 < self.rows * self.columns <= MAX_PIXELS:
            raise refuse(f"declares {self.columns} x {self.rows} pixels, which are not read")
        if self.photometric not in _COLOURS:
            raise refuse(f"the photometric interpretation {self.photometric} cannot be read")
        if self.samples != (1 if self.photometric == "PALETTE COLOR" else 3):
            raise refuse(f"declares {self.samples} samples per pixel beside {self.photometric}")
        if self.allocated not in (8, 16) or not self.stored or not 1 <= self.stored <= self.allocated:
            raise refuse(f"declares {self.stored} bits stored of {self.allocated}, 8 and up to 16 of 16 are read")
        if high is not None and not self.stored - 1 <= high < self.allocated:
            raise refuse(f"declares high bit {high} of {self.stored} bits stored")
        self.shift = 0 if high is None else high + 1 - self.stored
        if integer_of(dataset, "PixelRepresentation") not in (0, None):
            raise refuse("declares signed samples, which no photograph has")

    @property
    def frame_bytes(self) -> int:
        """Of one frame, decoded."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples or 0
        return self.rows * self.columns * samples * (self.allocated or 0) // 8


def _encoded(dataset: FileDataset, frame: int, layout: _Layout, refuse: Refuse) -> bytes:
    """Return one frame's compressed bytes."""
    try:
        with hushed():
            whole = _is_whole(dataset.PixelData)
            data = get_frame(dataset.PixelData, frame - 1, number_of_frames=layout.frames)
    except Exception as problem:  # whatever a damaged offset table or item makes of it
        raise refuse(f"the compressed pixel data has no frame {frame} ({problem})") from None
    if not whole:
        raise refuse("the compressed pixel data is damaged (its items are not as long as they say)")
    if len(data) > 2 * layout.frame_bytes + _ENCODED_MARGIN:
        raise refuse(f"its compressed frame of {len(data)} bytes is larger than the pixels that it declares")
    return data


def _is_whole(data: bytes) -> bool:
    """Whether pixel data is items, one behind the other, up to its end (PS3.5, A.4): no byte was lost or added."""
    at = 0
    while data[at : at + 4] == _ITEM and at + 8 <= len(data):
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return at == len(data)


def _decoded(dataset: FileDataset, frame: int, layout: _Layout, refuse: Refuse) -> Pixels:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _PLUGINS:
        data = _encoded(dataset, frame, layout, refuse)
        if syntax == uid.RLELossless:
            _check_rle(data, layout, refuse)
        elif (size := _stream_size(data)) != (layout.columns, layout.rows):
            raise refuse(f"declares {layout.columns} x {layout.rows} pixels, and its compressed data {size}")
    else:
        expected, length = layout.frames * layout.frame_bytes, len(dataset.PixelData)
        if length not in (expected, expected + expected % 2):
            raise refuse(f"the pixel data has {length} bytes where its header declares {expected}")
    try:
        samples, found = get_decoder(syntax).as_array(
            dataset,
            index=frame - 1,
            decoding_plugin=_PLUGINS.get(syntax, ""),
            raw=layout.shift > 0,
            **_UNSHIFTED if layout.shift else {},
        )
        if layout.shift:
            samples = samples >> layout.shift
            if str(found["photometric_interpretation"]).startswith("YBR_FULL"):
                samples = convert_color_space(samples, "YBR_FULL", "RGB")
        if layout.photometric == "PALETTE COLOR":
            with hushed():
                samples = apply_color_lut(samples, dataset)
            return _as_bytes(samples[..., :3], 8 * samples.dtype.itemsize, layout, refuse)
    except UnreadablePhoto:
        raise
    except Exception as problem:  # the decoders raise what they like for damaged data
        text = (str(problem) or type(problem).__name__).splitlines()
        raise refuse(f"the pixel data is damaged ({' '.join(' '.join(text).split())[:160]})") from None
    return _as_bytes(samples, layout.stored or 8, layout, refuse)


def _as_bytes(samples: npt.NDArray[np.generic], bits: int, layout: _Layout, refuse: Refuse) -> Pixels:
    """Scale samples of `bits` bits to 8; uint8 or uint16 (rows, columns, 3) to uint8."""
    if samples.shape != (layout.rows, layout.columns, 3) or samples.dtype not in (np.uint8, np.uint16):
        raise refuse(f"its pixels decode to {samples.shape} {samples.dtype}, not to what its header declares")
    if bits == 8 and samples.dtype == np.uint8:
        return np.ascontiguousarray(samples, np.uint8)
    top = 2**bits - 1
    table = np.round(np.minimum(np.arange(2 ** (8 * samples.dtype.itemsize)), top) * (255 / top)).astype(np.uint8)
    return np.asarray(table[samples], np.uint8)


def _check_rle(data: bytes, layout: _Layout, refuse: Refuse) -> None:
    """Refuse a frame whose runs would grow beyond its planes, before they do (PS3.5, annex G)."""
    if len(data) < 64:
        raise refuse("the RLE data is cut short")
    count, *offsets = struct.unpack("<16I", data[:64])
    planes = (layout.samples or 0) * (layout.allocated or 0) // 8
    if count != planes:
        raise refuse(f"the RLE data has {count} segments where {planes} are declared")
    plane, ends = layout.rows * layout.columns, [*offsets[1:count], len(data)]
    for start, end in zip(offsets, ends, strict=False):
        at, length = start, 0
        if not 64 <= start <= end <= len(data):
            raise refuse("the RLE data is damaged (an offset leads nowhere)")
        while at < end and length <= plane + 1:
            code = data[at]
            if code < 128:
                at, length = at + code + 2, length + code + 1
            else:
                at, length = at + (1 if code == 128 else 2), length + (0 if code == 128 else 257 - code)
        if not plane <= length <= plane + 1 or at > end + 1:
            raise refuse("the RLE data is damaged (a segment is not as long as its plane)")


def _stream_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that a JPEG 2000 or JPEG-LS stream declares; None where it is neither."""
    at = data.find(b"\xff\x4f\xff\x51", 0, 2**12)  # JPEG 2000, bare or in a JP2 box: SOC, then SIZ
    if at >= 0 and len(data) >= at + 24:
        right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
        return right - left, bottom - top
    at = data.find(b"\xff\xf7", 0, 2**16)  # JPEG-LS: SOF55
    if data[:2] == b"\xff\xd8" and at >= 0 and len(data) >= at + 9:
        height, width = struct.unpack_from(">2H", data, at + 5)
        return width, height
    return None


# JPEG -----------------------------------------------------------------------------------------------------------------

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # APP14 with colour transform 0


def _decoded_jpeg(data: bytes, layout: _Layout, *, name: str, min_side: int | None, refuse: Refuse) -> Photo:
    """Decode a JPEG frame; what the stream says of its colours goes before what the header says."""
    if layout.photometric == "PALETTE COLOR":
        raise refuse("a palette picture within JPEG cannot be read")
    stream, process, precision, marked = _told_colours(data, is_rgb=layout.photometric == "RGB", refuse=refuse)
    if precision > 8:
        raise refuse(f"JPEG with {precision} bits a sample cannot be read; save it uncompressed, as with dcmdjpeg")
    photo = decode_bytes(stream, name=name, min_side=None if process == LOSSLESS else min_side)
    if (photo.width, photo.height) != (layout.columns, layout.rows):
        raise refuse(
            f"declares {layout.columns} x {layout.rows} pixels, and its JPEG has {photo.width} x {photo.height}"
        )
    if process == LOSSLESS and layout.photometric.startswith("YBR_FULL") and not marked:
        pixels = np.asarray(convert_color_space(photo.pixels, "YBR_FULL", "RGB"), np.uint8)
        return replace(photo, pixels=pixels)
    return photo


def _told_colours(data: bytes, *, is_rgb: bool, refuse: Refuse) -> tuple[bytes, int, int, bool]:
    """Return the stream as a JPEG decoder takes its colours rightly, its process, bits a sample, and whether it names
    its colours.

    A decoder without JFIF or Adobe marker takes three components for YCbCr unless they are called R, G and B; where the
    header says RGB, an Adobe marker tells it. EXIF is left out: a DICOM picture lies as its header says.
    """
    if data[:2] != b"\xff\xd8":
        raise refuse("its compressed pixel data is no JPEG")
    kept, marked, at = [data[:2]], False, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at : at + 2 + length]
        if marker in _FRAME_MARKERS:
            break
        if marker != 0xE1:
            kept.append(segment)
        marked = marked or segment[4:9] == b"JFIF\0" or (segment[4:9] == b"Adobe" and len(segment) >= 16)
        at += 2 + length
    else:
        raise refuse("the JPEG in it is damaged (no frame)")
    if len(segment) < 10 or segment[9] not in (1, 3):
        raise refuse("the JPEG in it is damaged (not three colours)")
    if segment[9] != 3:
        raise refuse("its JPEG is grey and its header declares colours")
    names = bytes(segment[10::3][:3]).lower()
    if (is_rgb or names == b"rgb") and not marked and marker != LOSSLESS:
        kept.insert(1, _ADOBE_RGB)
    return b"".join((*kept, data[at:])), marker, segment[4], marked
