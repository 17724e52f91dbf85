"""Every kind of file that can be met, and every way in which one can be broken."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from picture_files import chunk, encode, exif, lossless, png, rows, tiff, with_orientation
from retigrade.errors import UnreadablePhoto
from retigrade.fundus import decode as decoding
from retigrade.fundus import header
from retigrade.fundus.decode import decode, decode_bytes
from retigrade.fundus.formats import READABLE, SNIFF_BYTES, read_header, sniff
from retigrade.fundus.header import MAX_PIXELS, HeaderError
from retigrade.synthetic import Phantom
from retigrade.text import shown

Image = npt.NDArray[np.uint8]
SUFFIXES = [".jpg", ".png", ".tif", ".webp", ".bmp"]

# What the stored pixels must look like so that a viewer who obeys the tag sees the upright picture.
STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: up.transpose(1, 0, 2)[::-1],
    7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
    8: lambda up: up[::-1].transpose(1, 0, 2),
}


@pytest.fixture
def rgb() -> Image:
    """A smooth ramp of 64 x 40 that looks different from every side."""
    y, x = np.mgrid[:40, :64]
    return np.stack([x * 3, y * 5, 100 + x + y], axis=-1).astype(np.uint8)


def close(got: Image, want: Image, *, within: int) -> bool:
    return got.shape == want.shape and int(np.abs(got.astype(int) - want).max()) <= within


def failure(data: bytes, name: str = "eye.jpg") -> str:
    with pytest.raises(UnreadablePhoto) as caught:
        decode_bytes(data, name=name)
    text = str(caught.value)
    assert text.startswith(shown(name) + ": ")
    assert "\n" not in text
    return text


def decoded(data: bytes) -> Image:
    return decode_bytes(data, name="eye").pixels


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def interlaced(raw: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", 64, 40, 8, 2, 0, 0, 1)
    packed = chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + packed + chunk(b"IEND", b"")


class TestFormats:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_recognised_by_content_whatever_the_name(self, tmp_path: Path, rgb: Image, suffix: str) -> None:
        path = tmp_path / "eye.txt"
        path.write_bytes(data := lossless(rgb, suffix))
        photo = decode(path)
        assert close(photo.pixels, rgb, within=12 if suffix == ".jpg" else 0)
        assert photo.pixels.dtype == np.uint8
        assert photo.pixels.flags.c_contiguous
        assert (photo.width, photo.height) == (64, 40)
        assert photo.sha256 == hashlib.sha256(data).hexdigest()

    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
    def test_orientation_is_applied(self, rgb: Image, suffix: str, orientation: int) -> None:
        stored = np.ascontiguousarray(STORED[orientation](rgb))
        photo = decode_bytes(with_orientation(stored, suffix, orientation), name="eye")
        assert close(photo.pixels, rgb, within=16 if suffix == ".jpg" else 0)
        assert (photo.width, photo.height) == (64, 40)

    @pytest.mark.parametrize("block", [b"", b"MM\0*", b"MM\0*\xff\xff\xff\xff", exif(0), exif(9), b"garbage"])
    def test_unreadable_orientation_is_ignored(self, rgb: Image, block: bytes) -> None:
        data = png(rows(rgb), 64, 40, between=chunk(b"eXIf", block))
        assert np.array_equal(decode_bytes(data, name="eye").pixels, rgb)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_grey_becomes_three_channels(self, rgb: Image, suffix: str) -> None:
        grey = rgb[..., 0]
        pixels = decode_bytes(lossless(grey, suffix), name="eye").pixels
        assert close(pixels, np.repeat(grey[..., None], 3, axis=2), within=3 if suffix == ".jpg" else 0)

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_16_bits_are_scaled_to_8(self, rgb: Image, suffix: str) -> None:
        assert close(decode_bytes(encode(rgb.astype(np.uint16) * 257, suffix), name="eye").pixels, rgb, within=1)

    def test_palette(self, rgb: Image) -> None:
        palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
        index = (rgb[..., 0] + rgb[..., 1]).astype(np.uint8)
        data = png(rows(index), 64, 40, colour=3, between=chunk(b"PLTE", palette.tobytes()))
        assert np.array_equal(decode_bytes(data, name="eye").pixels, palette[index])

    def test_transparent_palette_entry_is_black(self) -> None:
        index = np.zeros((40, 64), np.uint8)
        index[:, 32:] = 1
        between = chunk(b"PLTE", bytes([200, 100, 50, 9, 8, 7])) + chunk(b"tRNS", bytes([0, 255]))
        pixels = decode_bytes(png(rows(index), 64, 40, colour=3, between=between), name="eye").pixels
        assert np.array_equal(pixels[0, 0], [0, 0, 0])
        assert np.array_equal(pixels[0, 63], [9, 8, 7])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
    def test_transparency_lies_over_black(self, rgb: Image, suffix: str, dtype: type[np.unsignedinteger]) -> None:
        if suffix == ".webp" and dtype is np.uint16:
            pytest.skip("WebP has 8 bits")
        alpha = np.full((40, 64, 1), 255, np.uint8)
        alpha[:, :20], alpha[:, 20:30] = 0, 128
        full = np.iinfo(dtype).max // 255
        if suffix == ".tif":
            data = tiff(np.dstack([rgb, alpha]).astype(dtype) * full)
        else:
            data = lossless(np.dstack([rgb[..., ::-1], alpha]).astype(dtype) * full, suffix)
        want = np.rint(rgb * (alpha / 255))
        pixels = decode_bytes(data, name="eye").pixels
        assert close(pixels[:, 20:], want[:, 20:], within=1)
        assert not pixels[:, :20].any()

    def test_grey_with_alpha(self, rgb: Image) -> None:
        alpha = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8) * np.ones((40, 1), np.uint8)
        pixels = decode_bytes(png(rows(np.dstack([rgb[..., 0], alpha])), 64, 40, colour=4), name="eye").pixels
        assert not pixels[:, :32].any()
        assert np.array_equal(pixels[:, 32:, 1], rgb[:, 32:, 0])

    def test_cmyk_jpeg(self, rgb: Image) -> None:
        pillow = pytest.importorskip("PIL.Image", reason="only Pillow writes CMYK")
        buffer = io.BytesIO()
        pillow.fromarray(rgb).convert("CMYK").save(buffer, "JPEG", quality=95)
        assert close(decode_bytes(buffer.getvalue(), name="eye").pixels, rgb, within=12)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("big", [False, True])
    def test_tiff_and_bigtiff_in_both_byte_orders(self, rgb: Image, order: str, big: bool) -> None:
        assert np.array_equal(decode_bytes(tiff(rgb, order=order, big=big), name="eye").pixels, rgb)

    def test_progressive_jpeg_with_restarts(self, rgb: Image) -> None:
        data = encode(rgb, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
        assert close(decode_bytes(data, name="eye").pixels, rgb, within=12)

    def test_png_metadata_never_reaches_libpng(self, rgb: Image, capfd: pytest.CaptureFixture[str]) -> None:
        data = png(rows(rgb), 64, 40, between=chunk(b"iCCP", b"broken\0\0nonsense") + chunk(b"gAMA", b"\0" * 9))
        assert np.array_equal(decode_bytes(data, name="eye").pixels, rgb)
        assert capfd.readouterr().err == ""


class TestReducedScale:
    @pytest.mark.parametrize(
        ("min_side", "shape"),
        [(None, (401, 603)), (402, (401, 603)), (401, (401, 603)), (201, (201, 302)), (101, (101, 151)), (1, (51, 76))],
    )
    def test_smallest_scale_that_serves(self, min_side: int | None, shape: tuple[int, int]) -> None:
        photo = decode_bytes(encode(np.full((401, 603, 3), 90, np.uint8), ".jpg"), name="eye", min_side=min_side)
        assert photo.pixels.shape[:2] == shape
        assert (photo.width, photo.height) == (603, 401)

    def test_turned_photo_keeps_its_upright_full_size(self) -> None:
        data = with_orientation(np.full((401, 603, 3), 90, np.uint8), ".jpg", 6)
        photo = decode_bytes(data, name="eye", min_side=100)
        assert photo.pixels.shape[:2] == (151, 101)
        assert (photo.width, photo.height) == (401, 603)

    def test_other_formats_keep_their_size(self, rgb: Image) -> None:
        assert decode_bytes(encode(rgb, ".png"), name="eye", min_side=8).pixels.shape == rgb.shape


class TestLimits:
    def test_png_bomb_is_refused_before_any_pixel(self) -> None:
        data = png(b"\0" * 100, 60_000, 60_000)
        start = time.perf_counter()
        assert "60000 x 60000" in failure(data)
        assert time.perf_counter() - start < 0.05

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_format_is_held_to_the_pixel_limit(
        self, rgb: Image, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(header, "MAX_PIXELS", 64 * 40 - 1)
        assert "64 x 40 pixels, more than" in failure(encode(rgb, suffix))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_one_pixel(self, suffix: str) -> None:
        assert "1 x 1 pixels are too few" in failure(encode(np.zeros((1, 1, 3), np.uint8), suffix))

    def test_file_size(self, tmp_path: Path, rgb: Image, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encode(rgb, ".png")
        (tmp_path / "eye.png").write_bytes(data)
        monkeypatch.setattr(decoding, "MAX_BYTES", len(data) - 1)
        assert "more than" in failure(data)
        with pytest.raises(UnreadablePhoto, match="more than"):
            decode(tmp_path / "eye.png")

    def test_animated_webp(self, rgb: Image) -> None:
        data = bytearray(with_orientation(rgb, ".webp", 1))
        data[20] |= 0x02
        assert "animation" in failure(bytes(data))

    def test_floating_point_tiff(self, rgb: Image) -> None:
        assert "floating-point" in failure(encode(rgb.astype(np.float32), ".tif"))


class TestDamaged:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.9, 0.99])
    def test_truncated(self, rgb: Image, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
        data = lossless(rgb, suffix)
        failure(data[: int(len(data) * kept)])
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_one_byte_short(self, rgb: Image, suffix: str) -> None:
        data = lossless(rgb, suffix)
        if suffix == ".jpg":  # half of the end marker: nothing is lost
            assert np.array_equal(decoded(data[:-1]), decoded(data))
        else:
            assert "is cut short" in failure(data[:-1])

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_short_prefix_is_an_error(self, rgb: Image, suffix: str) -> None:
        data = lossless(rgb, suffix)
        for length in range(1, min(len(data) - 2, 700)):
            failure(data[:length])

    def test_truncated_tiff_of_many_strips(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
        data = encode(noise, ".tif")
        assert close(decode_bytes(data, name="eye").pixels, noise, within=0)
        assert "is cut short" in failure(data[: len(data) // 2])
        assert "is cut short" in failure(tiff(noise)[:-4])

    def test_truncated_jpeg_with_a_whole_thumbnail(self, rgb: Image) -> None:
        thumbnail = encode(rgb, ".jpg")
        block = b"\xff\xe1" + struct.pack(">H", 8 + len(thumbnail)) + b"Exif\0\0" + thumbnail
        data = encode(rgb, ".jpg")
        data = data[:2] + block + data[2:]
        assert decode_bytes(data, name="eye").width == 64
        assert "part of the JPEG is missing" in failure(data[: -len(thumbnail) // 3])

    def test_jpeg_padded_with_zeros(self, rgb: Image) -> None:
        data = encode(rgb, ".jpg")
        assert "part of the JPEG is missing" in failure(data[: -len(data) // 4].ljust(len(data), b"\0"))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_bytes_after_the_end_are_fine(self, rgb: Image, suffix: str) -> None:
        assert decode_bytes(lossless(rgb, suffix) + b"\xff\xd8 and more", name="eye").width == 64

    def test_jpeg_overwritten_in_the_middle(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        data = bytearray(encode(noise, ".jpg"))
        data[len(data) // 2 : len(data) // 2 + 4096] = np.random.default_rng(1).bytes(4096)
        assert "is damaged" in failure(bytes(data))

    def test_jpeg_without_a_scan(self, rgb: Image) -> None:
        data = encode(rgb, ".jpg")
        assert "holds no picture" in failure(data[: data.index(b"\xff\xda")] + b"\xff\xd9")

    @pytest.mark.parametrize("at", [18, -6, -14])
    def test_png_with_a_wrong_checksum(self, rgb: Image, at: int, capfd: pytest.CaptureFixture[str]) -> None:
        data = bytearray(encode(rgb, ".png"))
        data[at] ^= 1
        failure(bytes(data))
        assert capfd.readouterr().err == ""

    def test_png_of_too_few_rows(self, rgb: Image) -> None:
        assert "rows are missing" in failure(png(rows(rgb[:20]), 64, 40))

    def test_png_without_pixels(self) -> None:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 40, 8, 2, 0, 0, 0))
        assert "holds no picture" in failure(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IEND", b""))

    @pytest.mark.parametrize("lossless_code", [False, True])
    def test_webp_whose_data_mean_something_else(self, eye: Phantom, lossless_code: bool) -> None:
        small = cv2.resize(eye.pixels, (360, 240), interpolation=cv2.INTER_AREA)
        data = lossless(small, ".webp") if lossless_code else encode(small, ".webp", cv2.IMWRITE_WEBP_QUALITY, 85)
        assert decoded(data).shape == small.shape
        for at in (0.4, 0.7):
            zeroed = bytearray(data)
            zeroed[int(at * len(data)) :] = bytes(len(data) - int(at * len(data)))
            failure(bytes(zeroed))
            zeroed = bytearray(data)
            zeroed[int(at * len(data)) : int(at * len(data)) + 512] = bytes(512)
            failure(bytes(zeroed[: len(data)]))
        if not lossless_code:
            for at in np.linspace(0.2, 0.8, 15) * len(data):
                changed = bytearray(data)
                changed[int(at)] ^= 16
                failure(bytes(changed))

    def test_animated_png(self, rgb: Image) -> None:
        frames = chunk(b"acTL", struct.pack(">II", 3, 0))
        assert "holds 3 frames" in failure(png(rows(rgb), 64, 40, between=frames))
        one = chunk(b"acTL", struct.pack(">II", 1, 0))
        assert np.array_equal(decoded(png(rows(rgb), 64, 40, between=one)), rgb)

    def test_interlaced_png(self, rgb: Image) -> None:
        body = b"".join(
            b"\0" + row.tobytes()
            for x, y, across, down in ADAM7
            for row in np.ascontiguousarray(rgb[y::down, x::across])
        )
        whole = interlaced(body)
        assert np.array_equal(decoded(whole), rgb)
        failure(interlaced(body[: len(body) // 2]))
        assert "rows are missing" in failure(interlaced(body[: -20 * (1 + 64 * 3)]))  # without the last pass

    @pytest.mark.parametrize("code", [34925, 50000, 4711])
    def test_tiff_compressed_in_another_way(self, rgb: Image, code: int) -> None:
        data = tiff(rgb).replace(struct.pack("<HHIH", 259, 3, 1, 1), struct.pack("<HHIH", 259, 3, 1, code))
        assert f"cannot be read ({code})" in failure(data)

    def test_what_opencv_refuses_is_said_once(self, rgb: Image, capfd: pytest.CaptureFixture[str]) -> None:
        data = tiff(rgb).replace(struct.pack("<HHIH", 262, 3, 1, 2), struct.pack("<HHIH", 262, 3, 1, 4711))
        assert "cannot be decoded" in failure(data)
        assert capfd.readouterr().err == ""

    def test_header_of_another_size(self, rgb: Image) -> None:
        data = with_orientation(rgb, ".webp", 1)
        assert "cannot be decoded" in failure(data.replace(b"\x3f\0\0\x27\0\0", b"\x40\0\0\x27\0\0", 1))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_flipped_header_bytes_never_escape_as_other_errors(self, rgb: Image, suffix: str) -> None:
        data, rng = lossless(rgb, suffix), np.random.default_rng(0)
        for _ in range(400):
            broken = bytearray(data)
            for at in rng.integers(0, min(len(data), 200), 3):
                broken[at] = rng.integers(256)
            try:
                header = read_header(bytes(broken))
            except HeaderError:
                continue
            assert header.width * header.height <= MAX_PIXELS

    @pytest.mark.parametrize(
        "data", [b"hello, this is text", b"BM said hello", b"P3", b"P5 rooms", bytes(500), b"\xff\xd8", b"RIFF....WAVE"]
    )
    def test_not_a_picture(self, data: bytes) -> None:
        assert sniff(data) is None
        assert "not a picture" in failure(data)

    def test_empty(self) -> None:
        assert failure(b"") == "eye.jpg: the file is empty"


class TestKindsThatCannotBeRead:
    @pytest.mark.parametrize(
        ("kind", "head"),
        [
            ("JPEG-LS", b"\xff\xd8\xff\xf7\0\x0b\x08"),
            ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n"),
            ("JPEG 2000", b"\xff\x4f\xff\x51\0"),
            ("JPEG XL", b"\xff\x0a\xfa"),
            ("HEIC", b"\0\0\0\x18ftypheic"),
            ("HEIC", b"\0\0\0\x18ftypmif1"),
            ("AVIF", b"\0\0\0\x1cftypavif"),
            ("GIF", b"GIF89a\x10\0"),
            ("Photoshop", b"8BPS\0\1"),
            ("camera raw", b"II*\0\x10\0\0\0CR\x02\0"),
            ("PNM", b"P6\n40 40\n255\n"),
        ],
    )
    def test_is_named_and_never_called_damaged(self, kind: str, head: bytes) -> None:
        assert sniff(head) == kind
        assert kind not in READABLE
        text = failure(head + bytes(500))
        assert text.startswith(f"eye.jpg: {kind} ")
        assert "JPEG or PNG" in text
        assert "damaged" not in text

    def test_dicom_has_a_reader_of_its_own(self) -> None:
        data = bytes(128) + b"DICM" + bytes(500)
        assert sniff(data) == "DICOM"
        assert failure(data).startswith("eye.jpg: a DICOM file")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_readable_kinds(self, rgb: Image, suffix: str) -> None:
        assert sniff(encode(rgb, suffix)[:SNIFF_BYTES]) in READABLE


class TestFiles:
    def refuse(self, path: Path) -> str:
        with pytest.raises(UnreadablePhoto) as caught:
            decode(path)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refuse(tmp_path / "eye.jpg") == "eye.jpg: no such file"

    def test_folder(self, tmp_path: Path) -> None:
        assert "a folder" in self.refuse(tmp_path)

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "eye.jpg")
        assert "a named pipe" in self.refuse(tmp_path / "eye.jpg")

    def test_fifo_that_takes_the_files_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        regular = tmp_path / "regular"
        regular.write_bytes(b"x")
        os.mkfifo(tmp_path / "eye.jpg")
        looked = os.stat(regular)  # noqa: PTH116
        monkeypatch.setattr(os, "stat", lambda *_args, **_options: looked)
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(self.refuse(tmp_path / "eye.jpg")), daemon=True)
        thread.start()
        thread.join(timeout=10)
        assert answers == ["eye.jpg: a named pipe, not a file with a photograph"]

    def test_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's whole path may have about a hundred bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("eye.jpg")
            assert "a socket" in self.refuse(Path("eye.jpg"))

    def test_device(self) -> None:
        assert "a device" in self.refuse(Path("/dev/zero"))

    def test_dangling_link(self, tmp_path: Path) -> None:
        (tmp_path / "eye.jpg").symlink_to("gone.jpg")
        assert "a link to a file that is missing" in self.refuse(tmp_path / "eye.jpg")

    def test_looping_link(self, tmp_path: Path) -> None:
        (tmp_path / "eye.jpg").symlink_to("eye.jpg")
        assert "leads back to itself" in self.refuse(tmp_path / "eye.jpg")

    def test_no_permission(self, tmp_path: Path, rgb: Image, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "eye.png").write_bytes(encode(rgb, ".png"))

        def denied(*_args: object, **_options: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", denied)
        assert self.refuse(tmp_path / "eye.png") == "eye.png: no permission to read it"

    @pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg"])
    def test_names_that_no_file_can_have(self, tmp_path: Path, name: str) -> None:
        assert "cannot be opened" in self.refuse(tmp_path / name)

    def test_names_with_anything_in_them(self, tmp_path: Path, rgb: Image) -> None:
        for name in ["two words.png", "new\nline.png", "œil_目.png", os.fsdecode(b"\xff\xfe.png"), "a" * 200]:
            (tmp_path / name).write_bytes(encode(rgb, ".png"))
            assert np.array_equal(decode(str(tmp_path / name)).pixels, rgb)

    def test_error_names_the_file_in_one_encodable_line(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"new\nline \x1b[31m\xff \xe2\x80\xae.png")
        path.write_bytes(b"text")
        text = self.refuse(path)
        assert text.isprintable()
        assert text.startswith(r"new\nline \x1b[31m\udcff \u202e.png: not a picture")
        assert text.encode()
