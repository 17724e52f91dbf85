"""A picture file to upright RGB pixels, or one sentence that says why not."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from retigrade.arrays import Pixels
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.colour import Samples, to_srgb
from retigrade.fundus.formats import check_png_rows, read_header, shortened_webp
from retigrade.fundus.header import Header, HeaderError
from retigrade.fundus.jpeg import LOSSLESS
from retigrade.text import shown

MAX_BYTES = 256 * 2**20
MAX_DECODING_BYTES = 2**30  # by all threads together; the largest picture alone may take a little more

# A FIFO that takes the file's place between looking and opening must not make us wait for its writer.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_PLUGINS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
_STDERR = threading.Lock()
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_MAX_STRAY = 16
_LEAST_LOSS = 0.02  # of the height, and of the width for the row in which the loss starts
_ROWS = 256
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # after the transposition of 5 to 8; OpenCV's codes


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded photograph.

    pixels: uint8 (h, w, 3) RGB, upright; a JPEG may be decoded below its full size.
    width, height: the file's full size in pixels, upright.
    sha256: hexadecimal digest of the file's bytes.
    notes: sentences on what about the file may make its colours or pixels other than they were taken.
    """

    pixels: Pixels
    width: int
    height: int
    sha256: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"pixels must be uint8 (h, w, 3), got {self.pixels.dtype} {self.pixels.shape}")


def decode(path: Path | str, *, min_side: int | None = None) -> Photo:
    """Read a JPEG, PNG, TIFF, WebP or BMP, recognised by content whatever it is called.

    The pixels are upright uint8 (h, w, 3) RGB. Colour profiles and a PNG's gamma are converted to sRGB; deeper samples
    are scaled to 8 bits by what the file says or uses, grey and palettes are spread to three channels, transparency
    lies over black. With `min_side`, a JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size whose shorter
    side is still at least that many pixels.

    Only a regular file is opened, so this never waits; it is read once. Damage that a format's structure, checksums or
    decoder can show is refused, and so is a file of more than one picture. What they cannot show passes: a changed
    byte in an uncompressed TIFF or a BMP, and one in a JPEG, WebP or LZW code that still decodes to the right length.

    Raises UnreadablePhoto: missing, no permission, not a regular file, empty, too large, damaged, of another kind,
    several pictures, or not enough memory.
    """
    path = Path(path)
    return decode_bytes(read_file(path), name=path.name, min_side=min_side)


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file, which is opened without ever waiting, and read once.

    Raises UnreadablePhoto: missing, no permission, not a regular file, empty, too large.
    """
    try:
        return _read(path)
    except HeaderError as problem:
        raise UnreadablePhoto(f"{shown(path.name or str(path))}: {problem}") from None


def decode_bytes(data: bytes, *, name: str, min_side: int | None = None) -> Photo:
    """Decode the bytes of one file as `decode` does; `name` stands in the error.

    Raises UnreadablePhoto as `decode` does.
    """
    try:
        _check_bytes(len(data))
        header = read_header(data)
        pixels, notes = _pixels(header, min_side=min_side)
    except HeaderError as problem:
        raise UnreadablePhoto(f"{shown(name)}: {problem}") from None
    width, height = header.upright
    return Photo(pixels=pixels, width=width, height=height, sha256=hashlib.sha256(data).hexdigest(), notes=notes)


def _read(path: Path) -> bytes:
    try:
        _check_regular(os.stat(path))  # noqa: PTH116 - the same call as fstat below
        with os.fdopen(os.open(path, _OPEN_FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            _check_regular(status)
            _check_bytes(status.st_size)
            return file.read(status.st_size)
    except FileNotFoundError:
        raise HeaderError("a link to a file that is missing" if path.is_symlink() else "no such file") from None
    except PermissionError:
        raise HeaderError("no permission to read it") from None
    except MemoryError:
        raise HeaderError("not enough memory to read the file") from None
    except (OSError, ValueError) as problem:
        if isinstance(problem, HeaderError):
            raise
        if isinstance(problem, OSError) and problem.errno == errno.ELOOP:
            raise HeaderError("a link that leads back to itself") from None
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise HeaderError(f"cannot be opened ({reason})") from None


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise HeaderError(f"{kind}, not a file with a photograph")


def _check_bytes(count: int) -> None:
    if count == 0:
        raise HeaderError("the file is empty")
    if count > MAX_BYTES:
        raise HeaderError(f"{count / 2**20:.0f} MiB, more than the {MAX_BYTES // 2**20} MiB that are read")


def _pixels(header: Header, *, min_side: int | None) -> tuple[Pixels, tuple[str, ...]]:
    """Decode to upright RGB; the result's size must be the declared one, so no header can pass for another picture."""
    scale = _scale(header, min_side)
    # A TIFF is turned upright by its decoders, whatever they are asked.
    turned = header.format == "TIFF"
    width, height = header.upright if turned else (header.width, header.height)
    need = _bytes_needed(header, scale)
    try:
        with MEMORY.reserved(need):
            samples, notes = _samples(header, scale)
            if samples is None or samples.shape[:2] != (-(-height // scale), -(-width // scale)):
                raise HeaderError(f"the {header.format} is damaged or of an unusual kind and cannot be decoded")
            # In a BMP the last row of the picture comes first.
            if header.format in ("TIFF", "BMP") and (_ends_amid_row(samples) or _ends_amid_row(samples[::-1])):
                raise HeaderError(
                    f"part of the {header.format} is missing (zeros), copy the file again from its source"
                )
            opacity = samples[..., 3] if samples.shape[2] == 4 else None
            pixels, colour_notes = to_srgb(samples[..., :3], header)
            if opacity is not None:
                pixels = _over_black(pixels, opacity)
            return pixels if turned else _upright(pixels, header.orientation), (*notes, *colour_notes)
    except (MemoryError, cv2.error) as problem:
        if isinstance(problem, cv2.error) and problem.code != cv2.Error.StsNoMem:
            raise HeaderError(f"the {header.format} is damaged or of an unusual kind and cannot be decoded") from None
        raise HeaderError(
            f"not enough memory for its {header.width} x {header.height} pixels (about {need / 2**20:.0f} MiB): "
            "free some, or grade fewer photographs at once"
        ) from None


def _samples(header: Header, scale: int) -> tuple[Samples | None, tuple[str, ...]]:
    """Decode to RGB or RGBA, uint8 or uint16 (h, w, 3 or 4); None where OpenCV reads nothing. With notes."""
    if header.format == "JPEG":
        return _jpeg(header, scale)
    # Pillow cuts deeper samples off at 8 bits, and cannot read a BigTIFF that starts with the high bytes.
    if header.bits > 8 or header.body[:4] == b"MM\0+":
        return _with_opencv(header, cv2.IMREAD_UNCHANGED), ()
    return _with_pillow(header), ()


def _jpeg(header: Header, scale: int) -> tuple[Samples | None, tuple[str, ...]]:
    space = "CMYK" if header.components == 4 else "RGB"
    reduced = {} if scale == 1 else {
        "min_height": -(-header.height // scale), "min_width": -(-header.width // scale), "min_factor": 1
    }  # fmt: skip
    notes: tuple[str, ...] = ()
    try:
        decoded = simplejpeg.decode_jpeg(header.body, space, **reduced)
    except ValueError as problem:
        if "subsampling" in str(problem):  # of an unusual kind, which TurboJPEG does not describe
            return _with_opencv(header, _REDUCED[scale] | cv2.IMREAD_IGNORE_ORIENTATION), ()
        stray = _STRAY.search(str(problem))
        if stray is None or int(stray[1]) > _MAX_STRAY:
            raise HeaderError(_jpeg_damage(str(problem))) from None
        decoded = simplejpeg.decode_jpeg(header.body, space, **reduced, strict=False)
        notes = ("the JPEG has bytes before its end that no part of the picture uses",)
    if space == "CMYK":  # stored inverted, as Adobe does
        decoded = cv2.multiply(decoded[..., :3], cv2.cvtColor(decoded[..., 3], cv2.COLOR_GRAY2BGR), scale=1 / 255)
    return np.asarray(decoded, np.uint8), notes


def _jpeg_damage(complaint: str) -> str:
    """The sentence for what libjpeg says."""
    again = "copy the file again from its source"
    if "remature end" in complaint:
        return f"part of the JPEG is missing, {again}"
    return f"the JPEG is damaged (its compressed data are corrupt), {again}"


def _with_pillow(header: Header) -> Samples:
    """Decode to uint8 (h, w, 3 or 4) by the plugin itself: `Image.open` would guess, and warn of large pictures."""
    quiet = _captured() if header.format == "TIFF" else nullcontext()
    try:
        with quiet, _PLUGINS[header.format](io.BytesIO(header.body)) as image:
            image.load()
            transparent = header.format != "BMP" and ("A" in image.getbands() or "transparency" in image.info)
            # The fourth byte of a BMP's pixel is unused far oftener than it is transparency, so it is not read as such.
            mode = "RGBA" if transparent else "RGB"
            pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
            for top in range(0, image.height, _ROWS):  # piece by piece: Pillow's copies would be of full size
                rows = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
                pixels[top : top + _ROWS] = np.asarray(rows.convert(mode))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error, zlib.error) as problem:
        raise HeaderError(f"the {header.format} is damaged or of an unusual kind and cannot be decoded") from problem
    # Pillow leaves the rows black that a PNG lacks; whether they are lacking or black takes a second look to tell.
    if header.format == "PNG" and not pixels[-2:].any(axis=(1, 2)).all():
        check_png_rows(header.body)
    if header.format == "WebP" and _is_webp(shortened_webp(header.body)):
        raise HeaderError("the WebP is damaged (its compressed data are corrupt), copy the file again from its source")
    return pixels


def _is_webp(data: bytes) -> bool:
    try:
        WebPImageFile(io.BytesIO(data)).load()
    except (OSError, SyntaxError):
        return False
    return True


def _with_opencv(header: Header, flags: int) -> Samples | None:
    """Decode to uint8 or uint16 (h, w, 3 or 4); None where it cannot be read, or libjpeg warned of damage."""
    with _captured() as complaints:
        decoded = cv2.imdecode(np.frombuffer(header.body, np.uint8), flags)
    if decoded is None or decoded.dtype not in (np.uint8, np.uint16):
        return None
    # Another thread may write there too; of libjpeg's own lines, those on damage name the format or the progression.
    if header.format == "JPEG" and (damage := [line for line in complaints if "JPEG" in line or "progression" in line]):
        raise HeaderError(_jpeg_damage(" ".join(damage)))
    if decoded.ndim == 2:
        decoded = cv2.cvtColor(decoded, cv2.COLOR_GRAY2RGB)
    else:
        for top in range(0, len(decoded), _ROWS):  # in place, piece by piece: a large picture is not held twice
            rows = decoded[top : top + _ROWS]
            rows[..., :3] = rows[..., 2::-1].copy()
    return np.asarray(decoded, np.uint16) if decoded.dtype == np.uint16 else np.asarray(decoded, np.uint8)


def _ends_amid_row(samples: Samples) -> bool:
    """Whether (h, w, 3 or 4) samples are zero from a place inside a row to the end, as where a file's tail was lost.

    A black bar ends at the edge of a row, and a disc on black ends at its left as it does at its right.
    """
    height, width = samples.shape[:2]
    lit = np.asarray(samples[..., :3].any(axis=(1, 2)))
    last = height - 1 - int(np.argmax(lit[::-1]))
    if last < 1 or height - last < _LEAST_LOSS * height:
        return False
    ending, above = (np.asarray(samples[row, :, :3].any(axis=1)) for row in (last, last - 1))
    end = width - int(np.argmax(ending[::-1]))
    lost, narrower = int(above[end:].sum()), int(above[:end].sum()) - int(ending[:end].sum())
    return lost > _LEAST_LOSS * width and abs(narrower) <= lost / 4


def _scale(header: Header, min_side: int | None) -> int:
    # TurboJPEG overruns its buffer when it is asked for a lossless JPEG at a reduced size.
    if min_side is None or header.format != "JPEG" or header.process == LOSSLESS:
        return 1
    shorter = min(header.width, header.height)
    return max((scale for scale in _REDUCED if -(-shorter // scale) >= min_side), default=1)


class _Memory:
    """Bytes that decoding may take at once, over all threads of the process; one picture may always be decoded."""

    def __init__(self, limit: int) -> None:
        self._limit, self._taken, self._changed = limit, 0, threading.Condition()

    @contextmanager
    def reserved(self, count: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= self._limit)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


MEMORY = _Memory(MAX_DECODING_BYTES)


def _bytes_needed(header: Header, scale: int) -> int:
    """What decoding takes at most, beside the file itself."""
    area = header.width * header.height
    if header.format == "JPEG":
        coefficients = 2 * header.components * area if header.scans > 1 else 0
        return coefficients + 6 * area // scale**2
    return area * (15 if header.bits > 8 else 10)


@contextmanager
def _captured() -> Iterator[list[str]]:
    """Keep what a C library writes to stderr off the terminal, where it would stand without the file's name.

    Yields a list that holds the lines at the end. File descriptor 2 belongs to the process: one thread at a time.
    """
    lines: list[str] = []
    with _STDERR, tempfile.TemporaryFile() as file:
        try:
            before = os.dup(2)
        except OSError:  # closed: there is no terminal to keep clean
            yield lines
            return
        try:
            os.dup2(file.fileno(), 2)
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def _over_black(pixels: Pixels, opacity: Samples) -> Pixels:
    """uint8 (h, w, 3) times opacity, uint8 or uint16 (h, w) of its full range."""
    if opacity.dtype == np.uint16:
        opacity = np.asarray(cv2.convertScaleAbs(opacity, alpha=1 / 257), np.uint8)
    return np.asarray(cv2.multiply(pixels, cv2.cvtColor(opacity, cv2.COLOR_GRAY2BGR), scale=1 / 255), np.uint8)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo EXIF tag 274, which says on which sides of the scene the stored first row and column lie."""
    turned = cv2.transpose(pixels) if orientation >= 5 else pixels
    if orientation in _FLIPS:
        turned = cv2.flip(turned, _FLIPS[orientation])
    return np.ascontiguousarray(turned, np.uint8)
