"""Picture files of every kind, written by hand where no library writes them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def encode(rgb: npt.NDArray[np.generic], suffix: str, *options: int) -> bytes:
    bgr = rgb[..., ::-1] if rgb.ndim == 3 and rgb.shape[2] == 3 else rgb
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), list(options))
    assert ok
    return data.tobytes()


def lossless(rgb: npt.NDArray[np.generic], suffix: str) -> bytes:
    return encode(rgb, suffix, *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(raw: bytes, width: int, height: int, *, depth: int = 8, colour: int = 2, between: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + between + packed + chunk(b"IEND", b"")


def rows(image: Image) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in image)


def tiff(
    image: npt.NDArray[np.generic],
    *more: npt.NDArray[np.generic],
    orientation: int = 1,
    order: str = "<",
    big: bool = False,
    kinds: Sequence[int] = (),
    extra: Mapping[int, tuple[int, Sequence[int]]] = MappingProxyType({}),
) -> bytes:
    """An uncompressed TIFF or BigTIFF, a strip a page; four channels are RGB and unassociated alpha.

    kinds: the NewSubfileType of each page, 1 for a preview. extra: further tags of every page, (type, values).
    """
    room = 8 if big else 4
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    data = magic + (struct.pack(order + "HHQ", 8, 0, 0) if big else struct.pack(order + "I", 0))
    link = len(data) - room
    for index, page in enumerate((image, *more)):
        height, width, samples = page.shape
        pixels = page.astype(page.dtype.newbyteorder(order)).tobytes()
        tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [page.itemsize * 8] * samples), 259: (3, [1])}
        tags |= {262: (3, [2]), 274: (3, [orientation]), 277: (3, [samples]), 278: (4, [height])}
        tags |= {273: (4, [len(data)]), 279: (4, [len(pixels)]), **extra}
        tags |= {338: (3, [2])} if samples == 4 else {}
        tags |= {254: (4, [kinds[index]])} if kinds else {}
        data += pixels
        directory = len(data)
        after = directory + (8 if big else 2) + len(tags) * (20 if big else 12) + room
        entries, tail = b"", b""
        for tag, (kind, values) in sorted(tags.items()):
            body = struct.pack(f"{order}{len(values)}{ {3: 'H', 4: 'I', 7: 'B'}[kind] }", *values)
            if len(body) > room:
                tail, body = tail + body, struct.pack(order + ("Q" if big else "I"), after + len(tail))
            entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values)) + body.ljust(room, b"\0")
        offset = struct.pack(order + ("Q" if big else "I"), directory)
        data = data[:link] + offset + data[link + room :]
        data += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
        link = len(data)
        data += b"\0" * room + tail
    return data


def with_orientation(stored: Image, suffix: str, orientation: int) -> bytes:
    block = exif(orientation)
    if suffix == ".tif":
        return tiff(stored, orientation=orientation)
    data = lossless(stored, suffix) if suffix == ".webp" else encode(stored, suffix)
    if suffix == ".jpg":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block + data[2:]
    if suffix == ".png":
        return data[:-12] + chunk(b"eXIf", block) + data[-12:]
    size = struct.pack("<I", stored.shape[1] - 1)[:3] + struct.pack("<I", stored.shape[0] - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0x08) + size + data[12:]
    body += b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless_jpeg(rgb: Image) -> bytes:
    """A JPEG of process 14 (SOF3) with the first predictor, in RGB."""
    height, width, _ = rgb.shape
    values = rgb.astype(np.int64)
    before = np.empty_like(values)
    before[:, 1:], before[1:, 0], before[0, 0] = values[:, :-1], values[:-1, 0], 128
    difference = (values - before).reshape(-1)
    size = np.array([int(abs(value)).bit_length() for value in difference])
    suffix = np.where(difference >= 0, difference, difference + (1 << size) - 1)
    # The Huffman code of a size has four bits, 0000 to 1000.
    bits = "".join(format(s << s | e, f"0{4 + s}b") for s, e in zip(size.tolist(), suffix.tolist(), strict=True))
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes((name, 0x11, 0)) for name in b"RGB")
    table = bytes((0, 0, 0, 0, 9)) + bytes(12) + bytes(range(9))
    start = bytes((3, 82, 0, 71, 0, 66, 0, 1, 0, 0))
    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, start) + scan + b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(body)) + body


def scan_start(jpeg: bytes) -> int:
    """Where the compressed data of a JPEG's first scan start."""
    at = jpeg.index(b"\xff\xda")
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
