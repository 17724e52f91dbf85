"""TIFFs of several pages, of compressed pieces, and of pieces that are damaged."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Mapping

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from picture_files import Image, encode, tiff
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import decode_bytes
from retigrade.icdr import Grade
from retigrade.synthetic import Phantom


@pytest.fixture(scope="module")
def pixels(eyes: Mapping[Grade, Phantom]) -> Image:
    return eyes[Grade.SEVERE].pixels


@pytest.fixture(scope="module")
def preview(pixels: Image) -> Image:
    return cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)


def failure(data: bytes) -> str:
    with pytest.raises(UnreadablePhoto) as caught:
        decode_bytes(data, name="eye.tif")
    return str(caught.value)


def decoded(data: bytes) -> Image:
    return decode_bytes(data, name="eye.tif").pixels


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
class TestPages:
    def test_two_photographs_are_refused(self, pixels: Image, dtype: type, order: str, big: bool) -> None:
        pages = [pixels.astype(dtype)] * 2
        assert "holds 2 pages" in failure(tiff(*pages, order=order, big=big))

    @pytest.mark.parametrize("first", [False, True])
    def test_a_preview_is_never_taken(
        self, pixels: Image, preview: Image, dtype: type, order: str, big: bool, first: bool
    ) -> None:
        scale = np.iinfo(dtype).max // 255
        pages = [page.astype(dtype) * scale for page in ((preview, pixels) if first else (pixels, preview))]
        data = tiff(*pages, kinds=(1, 0) if first else (0, 1), order=order, big=big)
        assert np.array_equal(decoded(data), pixels)

    def test_a_preview_alone(self, preview: Image, dtype: type, order: str, big: bool) -> None:
        assert "a preview only" in failure(tiff(preview.astype(dtype), kinds=[1], order=order, big=big))


def test_a_preview_that_does_not_say_so(pixels: Image, preview: Image) -> None:
    assert "holds 2 pages" in failure(tiff(preview, pixels))


def test_pages_in_a_circle(pixels: Image) -> None:
    data = tiff(pixels)  # at whose end stand the offset of the next directory and three depths of two bytes
    assert np.array_equal(decoded(data[:-10] + data[4:8] + data[-6:]), pixels)


def test_a_camera_raw_is_named(pixels: Image) -> None:
    assert "camera raw pictures cannot be read" in failure(tiff(pixels, extra={50706: (7, [1, 4, 0, 0])}))


def test_odd_metadata_is_not_talked_about(pixels: Image, capfd: pytest.CaptureFixture[str]) -> None:
    data = tiff(pixels, extra={33550: (4, [7]), 34665: (4, [2**31]), 65000: (3, [1] * 9)})
    assert np.array_equal(decoded(data), pixels)
    assert capfd.readouterr().err == ""


def compressed(pixels: Image, compression: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()


COMPRESSIONS = ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]


class TestCompressed:
    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_is_read(self, pixels: Image, compression: str) -> None:
        assert (
            np.abs(decoded(compressed(pixels, compression)).astype(int) - pixels).mean()
            < (compression == "jpeg") * 6 + 0.1
        )

    @pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
    def test_a_sector_of_zeros_is_refused(
        self, pixels: Image, compression: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        data = compressed(pixels, compression)
        middle = len(data) // 2
        assert "is damaged" in failure(data[:middle] + bytes(512) + data[middle + 512 :])
        assert capfd.readouterr().err == ""

    def test_a_changed_bit_in_deflated_data_is_refused(self, pixels: Image) -> None:
        data = compressed(pixels, "tiff_adobe_deflate")
        for at in np.linspace(0.3, 0.9, 20) * len(data):
            changed = bytearray(data)
            changed[int(at)] ^= 4
            failure(bytes(changed))

    def test_deflated_pieces_whose_length_was_cut(self, pixels: Image) -> None:
        data = compressed(pixels, "tiff_adobe_deflate")
        with Pillow.open(io.BytesIO(data)) as image:
            count = image.tag_v2[279][0]
        assert "is cut short" in failure(data.replace(struct.pack("<I", count), struct.pack("<I", count // 2), 1))

    @pytest.mark.parametrize("predictor", [1, 2])
    def test_a_changed_bit_in_lzw_that_changes_its_length_is_refused(self, pixels: Image, predictor: int) -> None:
        buffer = io.BytesIO()
        Pillow.fromarray(pixels).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={317: predictor})
        data = buffer.getvalue()
        assert np.array_equal(decoded(data), pixels)
        refused, clean = 0, 0
        for at in np.linspace(0.2, 0.9, 30) * len(data):
            changed = bytearray(data)
            changed[int(at)] ^= 8
            try:
                pixels_now = decoded(bytes(changed))
            except UnreadablePhoto:
                refused += 1
            else:  # another string of the same length: a few specks
                clean += np.abs(pixels_now.astype(int) - pixels).mean() < (0.5 if predictor == 1 else 8)
        assert refused >= 10
        assert refused + clean == 30


@pytest.mark.parametrize("kind", [".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_tail_of_zeros_in_plain_pixels(pixels: Image, kind: str, share: float) -> None:
    data = tiff(pixels) if kind == ".tif" else encode(pixels, kind)
    # The end of a BMP and of the TIFF's pixels, in the middle of a row.
    row = 3 * pixels.shape[1]
    start = (8 if kind == ".tif" else 54) + int(share * len(pixels)) * row + row // 2
    end = 8 + pixels.size if kind == ".tif" else len(data)
    assert "is missing (zeros)" in failure(data[:start] + bytes(end - start) + data[end:])


def test_black_bars_are_no_loss(pixels: Image) -> None:
    barred = pixels.copy()
    barred[:40] = barred[-60:] = 0
    for data in (tiff(barred), encode(barred, ".bmp")):
        assert np.array_equal(decoded(data), barred)


SHORT = 3


@pytest.mark.parametrize("tags", [{34675: (SHORT, (300, 4))}, {284: (SHORT, (2,)), 278: (SHORT, (0,))}])
def test_tags_that_cannot_be(pixels: Image, tags: dict[int, tuple[int, tuple[int, ...]]]) -> None:
    assert "the TIFF" in failure(tiff(pixels, extra=tags))


def with_pieces(*pieces: bytes, side: int, compression: int, overlapping: int = 1) -> bytes:
    """A grey TIFF of square tiles, or of strips, which lie one behind another, or all in one place."""
    entries = {
        256: (4, [side]),
        257: (4, [side]),
        258: (3, [8]),
        259: (3, [compression]),
        262: (3, [1]),
        277: (3, [1]),
        278: (4, [side // overlapping]),
    }
    start, offsets = 8, []
    for piece in pieces:
        offsets += [start] * overlapping
        start += len(piece)
    entries |= {273: (4, offsets), 279: (4, [len(piece) for piece in pieces for _ in range(overlapping)])}
    body, head, more = b"".join(pieces), b"", b""
    place = 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) > 4:
            head += struct.pack("<HHII", tag, kind, len(values), place + len(more))
            more += packed
        else:
            head += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(entries)) + head + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + more


class TestSmallFilesThatWouldTakeMuch:
    """Each is refused by what it declares, before anything as large is made."""

    def test_strips_that_overlap(self) -> None:
        strip = np.random.default_rng(0).integers(1, 255, 64 * 64, dtype=np.uint8).tobytes()
        assert "do not add up" in failure(with_pieces(strip, side=64, compression=1, overlapping=16))

    def test_a_jpeg_larger_than_the_picture(self) -> None:
        piece = encode(np.full((2000, 2000), 128, np.uint8), ".jpg")
        assert "corrupt" in failure(with_pieces(piece, side=64, compression=7))
        fitting = encode(np.full((64, 64), 128, np.uint8), ".jpg")
        assert decoded(with_pieces(fitting, side=64, compression=7)).shape == (64, 64, 3)

    def test_a_row_of_lzw_clearings(self) -> None:
        clearings = int("100000000" * 64_000, 2).to_bytes(72_000, "big")
        started = time.process_time()
        assert "corrupt" in failure(with_pieces(clearings, side=512, compression=5))
        assert len(clearings) > 70_000
        assert time.process_time() - started < 30  # unbounded it would take minutes
