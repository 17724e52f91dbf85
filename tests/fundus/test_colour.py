"""Colour spaces and depths that say what they are, and some that do not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from picture_files import Image, chunk, encode, png, rows, segment, tiff
from retigrade.fundus.decode import Photo, decode_bytes

Matrix = npt.NDArray[np.float64]

# Columns: XYZ under D50 of red, green and blue, and the power that encodes.
SRGB = (((0.4360747, 0.2225045, 0.0139322), (0.3850649, 0.7168786, 0.0971045), (0.1430804, 0.0606169, 0.7141733)), 2.2)
WIDE = {
    "Adobe RGB": (
        ((0.6097559, 0.3111242, 0.0194811), (0.2052401, 0.6256560, 0.0608902), (0.1492240, 0.0632197, 0.7448387)),
        563 / 256,
    ),
    "Display P3": (
        ((0.5151187, 0.2411892, -0.0010505), (0.2919778, 0.6922441, 0.0418791), (0.1571035, 0.0665668, 0.7840714)),
        2.2,
    ),
    "ProPhoto RGB": (((0.7976749, 0.2880402, 0), (0.1351917, 0.7118741, 0), (0.0313534, 0.0000857, 0.8252100)), 1.8),
}


@pytest.fixture(scope="module")
def drawn() -> Image:
    """A ramp in the colours of a retina, all of which the wide spaces hold."""
    y, x = np.mgrid[:60, :80]
    return np.stack([60 + 2 * x, 40 + y, 20 + x // 2], axis=-1).astype(np.uint8)


def profile(columns: tuple[tuple[float, float, float], ...], power: float) -> bytes:
    """An ICC profile, version 2, of three primaries and a power."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(power * 256)) + b"\0\0"
    text = (b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78)).ljust(96, b"\0")
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, columns), strict=True))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = head + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz((0.9642, 1, 0.8249))[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def linear(rgb: Image) -> Matrix:
    values = rgb / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def stored(rgb: Image, space: str) -> tuple[Image, bytes]:
    """The same colours in another space, and the profile that says so."""
    columns, power = WIDE[space]
    matrix = np.linalg.inv(np.array(columns).T) @ np.array(SRGB[0]).T
    values = np.clip(linear(rgb) @ matrix.T, 0, 1) ** (1 / power)
    return np.rint(values * 255).astype(np.uint8), profile(columns, power)


def with_profile(pixels: Image, icc: bytes, suffix: str) -> bytes:
    height, width = pixels.shape[:2]
    if suffix == ".png":
        return png(rows(pixels), width, height, between=chunk(b"iCCP", b"wide\0\0" + zlib.compress(icc)))
    if suffix == ".tif":
        return tiff(pixels, extra={34675: (7, icc)})
    if suffix == ".jpg":  # in two parts, the second one first
        data, half = encode(pixels, ".jpg"), len(icc) // 2
        parts = [
            segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 2)) + part) for n, part in ((2, icc[half:]), (1, icc[:half]))
        ]
        return data[:2] + b"".join(parts) + data[2:]
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "WEBP", lossless=True, icc_profile=icc)
    return buffer.getvalue()


def decoded(data: bytes) -> Photo:
    return decode_bytes(data, name="eye")


def apart(photo: Photo, want: Image) -> int:
    return int(np.abs(photo.pixels.astype(int) - want).max())


class TestProfiles:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
    @pytest.mark.parametrize("space", WIDE)
    def test_wide_colours_become_srgb(self, drawn: Image, space: str, suffix: str) -> None:
        pixels, icc = stored(drawn, space)
        photo = decoded(with_profile(pixels, icc, suffix))
        assert apart(decoded(encode(pixels, ".png")), drawn) > 8
        assert apart(photo, drawn) <= (12 if suffix == ".jpg" else 3)
        assert np.abs(photo.pixels.astype(int) - drawn).mean() < 1.5
        assert photo.notes == ()

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
    def test_srgb_is_left_as_it_is(self, drawn: Image, suffix: str) -> None:
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert np.array_equal(
            decoded(with_profile(drawn, icc, suffix)).pixels,
            decoded(encode(drawn, suffix) if suffix == ".jpg" else encode(drawn, ".png")).pixels,
        )

    @pytest.mark.parametrize("icc", [b"nonsense", bytes(200), profile(*WIDE["Adobe RGB"])[:300]])
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
    def test_a_damaged_profile_is_told_and_not_used(
        self, drawn: Image, icc: bytes, suffix: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        photo = decoded(with_profile(drawn, icc, suffix))
        assert apart(photo, drawn) <= (6 if suffix == ".jpg" else 0)
        assert photo.notes == ("its colour profile cannot be used, its colours are taken as sRGB",)
        assert capfd.readouterr().err == ""


def png_of(pixels: npt.NDArray[np.generic], **chunks: bytes) -> bytes:
    between = b"".join(chunk(kind.encode(), body) for kind, body in chunks.items())
    raw = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    return png(raw, pixels.shape[1], pixels.shape[0], depth=8 * pixels.itemsize, between=between)


class TestPngGamma:
    def test_linear_samples(self, drawn: Image) -> None:
        deep = np.rint(linear(drawn) * 65535).astype(np.uint16)
        photo = decoded(png_of(deep, gAMA=struct.pack(">I", 100_000)))
        assert apart(photo, drawn) <= 1
        assert photo.notes == ()

    def test_chromaticities(self, drawn: Image) -> None:
        pixels, _ = stored(drawn, "Adobe RGB")
        adobe = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
        assert apart(decoded(png_of(pixels, gAMA=struct.pack(">I", 45470), cHRM=adobe)), drawn) <= 3

    def test_that_of_srgb_changes_nothing(self, drawn: Image) -> None:
        points = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
        said = {"gAMA": struct.pack(">I", 45455), "cHRM": points}
        assert apart(decoded(png_of(drawn, **said)), drawn) == 0

    def test_the_srgb_chunk_is_stronger(self, drawn: Image) -> None:
        assert apart(decoded(png_of(drawn, sRGB=b"\0", gAMA=struct.pack(">I", 100_000))), drawn) == 0

    @pytest.mark.parametrize("points", [bytes(32), struct.pack(">8I", *[30_000] * 8)])
    def test_chromaticities_that_cannot_be(self, drawn: Image, points: bytes) -> None:
        photo = decoded(png_of(drawn, gAMA=struct.pack(">I", 45455), cHRM=points))
        assert apart(photo, drawn) == 0
        assert "cannot be used" in photo.notes[0]


class TestDepth:
    @pytest.mark.parametrize("bits", [10, 12, 14, 16])
    @pytest.mark.parametrize("kind", ["png", "tif"])
    def test_the_low_end_of_16_bits(self, drawn: Image, bits: int, kind: str) -> None:
        bright = drawn.copy()
        bright[:4] = 255
        deep = np.rint(bright / 255 * ((1 << bits) - 1)).astype(np.uint16)
        photo = decoded(png_of(deep) if kind == "png" else tiff(deep))
        assert apart(photo, bright) <= 1
        assert bool(photo.notes) == (bits < 16)

    def test_what_the_file_says_is_no_guess(self, drawn: Image) -> None:
        deep = np.rint(drawn / 255 * 4095).astype(np.uint16)
        for data in (png_of(deep, sBIT=b"\x0c\x0c\x0c"), tiff(deep, extra={281: (3, [4095] * 3)})):
            photo = decoded(data)
            assert apart(photo, drawn) <= 1
            assert photo.notes == ()

    def test_a_dark_picture_that_says_it_uses_all_bits(self, drawn: Image) -> None:
        deep = drawn.astype(np.uint16) * 16
        for data in (png_of(deep, sBIT=b"\x10\x10\x10"), tiff(deep, extra={281: (3, [65535] * 3)})):
            photo = decoded(data)
            assert apart(photo, np.rint(drawn / 16)) <= 1
            assert photo.notes == ()

    def test_significant_bits_at_the_high_end(self, drawn: Image) -> None:
        deep = np.rint(drawn / 255 * 4095).astype(np.uint16) << 4
        assert apart(decoded(png_of(deep, sBIT=b"\x0c\x0c\x0c")), drawn) <= 1
