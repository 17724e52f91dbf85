"""JPEGs that lost something, and JPEGs that only look as if they had."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Mapping

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from picture_files import Image, encode, lossless_jpeg, scan_start, segment
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import decode_bytes
from retigrade.icdr import Grade
from retigrade.synthetic import Phantom

KINDS = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "whole colour": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
}


@pytest.fixture(scope="module")
def pixels(eyes: Mapping[Grade, Phantom]) -> Image:
    return eyes[Grade.SEVERE].pixels


def jpeg(pixels: Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Image:
    return decode_bytes(data, name="eye").pixels


def failure(data: bytes) -> str:
    with pytest.raises(UnreadablePhoto) as caught:
        decode_bytes(data, name="eye.jpg")
    assert "source" in str(caught.value)
    return str(caught.value)


class TestLostPieces:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6])
    @pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
    def test_the_end_of_the_scan(
        self, pixels: Image, kind: str, share: float, end: bytes, capfd: pytest.CaptureFixture[str]
    ) -> None:
        data = jpeg(pixels, **KINDS[kind])
        start = scan_start(data)
        assert "part of the JPEG is missing" in failure(data[: start + int((1 - share) * (len(data) - start))] + end)
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("kind", ["baseline", "optimised", "whole colour", "restarts"])
    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6])
    def test_a_piece_from_the_middle(self, pixels: Image, kind: str, share: float) -> None:
        data = jpeg(pixels, **KINDS[kind])
        start = scan_start(data)
        length = len(data) - start
        failure(data[: start + length // 5] + data[start + length // 5 + int(share * length) :])

    def test_the_last_scans_of_a_progressive_one(self, pixels: Image) -> None:
        data = jpeg(pixels, progressive=True)
        starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
        assert len(starts) > 5
        for start in starts[1:]:
            assert "not all of its scans" in failure(data[:start] + b"\xff\xd9")

    @pytest.mark.parametrize("tail", [0.3, 0.7])
    def test_a_tail_of_zeros(self, pixels: Image, tail: float) -> None:
        data = jpeg(pixels)
        failure(data[: int(tail * len(data))].ljust(len(data), b"\0"))

    def test_a_sector_of_zeros(self, pixels: Image) -> None:
        data = jpeg(pixels)
        middle = (scan_start(data) + len(data)) // 2
        failure(data[:middle] + bytes(512) + data[middle + 512 :])


class TestNothingLost:
    def test_what_every_viewer_opens(self, pixels: Image) -> None:
        data = jpeg(pixels)
        at = 4 + int.from_bytes(data[4:6], "big")
        for changed in (
            data[:at] + bytes(4) + data[at:],
            data[:at] + b"\xff" * 3 + data[at:],
            data[:-2],
            data[:-1],
            data[:-2] + b"\xff\xff\xff" + data[-2:],
            data + bytes(99),
        ):
            photo = decode_bytes(changed, name="eye")
            assert np.array_equal(photo.pixels, decoded(data))
            assert photo.notes == ()

    def test_stray_bytes_before_the_end_are_told(self, pixels: Image) -> None:
        data = jpeg(pixels)
        photo = decode_bytes(data[:-2] + b"\x11\x22\x33" * 4 + data[-2:], name="eye")
        assert np.array_equal(photo.pixels, decoded(data))
        assert "bytes before its end" in photo.notes[0]

    @pytest.mark.parametrize("min_side", [None, 100])
    def test_lossless_at_any_size(self, min_side: int | None) -> None:
        drawn = np.random.default_rng(0).integers(0, 256, (240, 260, 3), dtype=np.uint8)
        photo = decode_bytes(lossless_jpeg(drawn), name="eye", min_side=min_side)
        assert np.array_equal(photo.pixels, drawn)

    def test_unusual_subsampling(self, pixels: Image) -> None:
        # 4:1:0, which TurboJPEG has no name for: luma is sampled four times as often across, twice as often down.
        data = encode(pixels, ".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x411111)
        at = data.index(b"\xff\xc0")
        assert data[at + 11] == 0x41
        assert np.abs(decoded(data).astype(int) - pixels).mean() < 3


class TestOtherPictures:
    def test_two_pictures_in_one_file(self, pixels: Image) -> None:
        buffer = io.BytesIO()
        first = Pillow.fromarray(pixels)
        first.save(buffer, "MPO", save_all=True, append_images=[first.transpose(Pillow.Transpose.ROTATE_180)])
        with pytest.raises(UnreadablePhoto, match="holds 2 JPEG pictures"):
            decode_bytes(buffer.getvalue(), name="eye.jpg")

    def test_a_preview_or_a_gain_map_behind_it_is_none(self, pixels: Image) -> None:
        data = jpeg(pixels)
        preview = jpeg(cv2.resize(pixels, None, fx=0.3, fy=0.3))
        grey = encode(pixels[..., 0], ".jpg")
        described = data[:2] + segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>') + data[2:]
        for behind in (preview, grey, described):
            assert np.array_equal(decoded(data + behind), decoded(data))

    def test_frames_that_cannot_be_read_are_named(self, pixels: Image) -> None:
        data = jpeg(pixels)
        at = data.index(b"\xff\xc0")
        for changed, name in (
            (data[: at + 1] + b"\xf7" + data[at + 2 :], "JPEG-LS"),
            (data[: at + 1] + b"\xc5" + data[at + 2 :], "hierarchical JPEG"),
            (data[: at + 4] + b"\x0c" + data[at + 5 :], "12-bit JPEG"),
        ):
            with pytest.raises(UnreadablePhoto, match=f"{name} pictures cannot be read"):
                decode_bytes(changed, name="eye.jpg")


@pytest.mark.parametrize("components", [0, 4, 200])
def test_a_scan_header_that_lies_about_its_components_is_damage(pixels: Image, components: int) -> None:
    data = jpeg(pixels)
    at = data.index(b"\xff\xda") + 4
    with pytest.raises(UnreadablePhoto, match="copy the file again"):
        decode_bytes(data[:at] + bytes([components]) + data[at + 1 :], name="eye.jpg")


def test_thousands_of_scans_are_refused_before_decoding(pixels: Image) -> None:
    data = jpeg(pixels, progressive=True)
    last = data.rindex(b"\xff\xda")
    many = data[:-2] + 20_000 * data[last:-2] + data[-2:]
    started = time.perf_counter()
    with pytest.raises(UnreadablePhoto, match="more than 100 scans"):
        decode_bytes(many, name="eye.jpg")
    assert time.perf_counter() - started < 5


def test_too_little_memory_is_called_so() -> None:
    """In a process that may not allocate the pixels."""
    program = """
import io, resource
from PIL import Image
from retigrade.fundus.decode import decode_bytes
from retigrade.errors import UnreadablePhoto
buffer = io.BytesIO()
Image.new("RGB", (8000, 8000), (90, 40, 20)).save(buffer, SUFFIX)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**25, size + 2**25))
try:
    decode_bytes(buffer.getvalue(), name="eye")
except UnreadablePhoto as problem:
    print(problem)
"""
    for suffix in ("JPEG", "PNG"):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("SUFFIX", repr(suffix))],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "not enough memory for its 8000 x 8000 pixels" in done.stdout, done.stderr
