"""A picture file to upright RGB pixels, or one sentence that says why not."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from retigrade.arrays import Pixels
from retigrade.errors import UnreadablePhoto
from retigrade.fundus.formats import read_header
from retigrade.fundus.header import Header, HeaderError
from retigrade.text import shown

MAX_BYTES = 256 * 2**20

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
# OpenCV 5 moved it; it returns the level that it replaces.
_set_log_level: Callable[[int], int] = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_SILENT = 0
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # after the transposition of 5 to 8; OpenCV's codes


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded photograph.

    pixels: uint8 (h, w, 3) RGB, upright; a JPEG may be decoded below its full size.
    width, height: the file's full size in pixels, upright.
    sha256: hexadecimal digest of the file's bytes.
    """

    pixels: Pixels
    width: int
    height: int
    sha256: str

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"pixels must be uint8 (h, w, 3), got {self.pixels.dtype} {self.pixels.shape}")


def decode(path: Path | str, *, min_side: int | None = None) -> Photo:
    """Read a JPEG, PNG, TIFF, WebP or BMP, recognised by content whatever it is called.

    The pixels are upright uint8 (h, w, 3) RGB. Deeper samples are scaled to 8 bits, grey and palettes are spread to
    three channels, transparency lies over black. With `min_side`, a JPEG is decoded at the smallest of 1, 1/2, 1/4
    and 1/8 of its size whose shorter side is still at least that many pixels.

    Only a regular file is opened, so this never waits; it is read once. A file cut short is refused. Damage inside the
    compressed data of a JPEG or TIFF that leaves its structure whole is not noticed: the C library decodes what it can
    (libjpeg says so on stderr).

    Raises UnreadablePhoto: missing, no permission, not a regular file, empty, too large, truncated, no picture.
    """
    path = Path(path)
    try:
        data = _read(path)
    except HeaderError as problem:
        raise UnreadablePhoto(f"{shown(path.name or str(path))}: {problem}") from None
    return decode_bytes(data, name=path.name, min_side=min_side)


def decode_bytes(data: bytes, *, name: str, min_side: int | None = None) -> Photo:
    """Decode the bytes of one file as `decode` does; `name` stands in the error.

    Raises UnreadablePhoto: empty, too large, truncated, no picture.
    """
    try:
        _check_bytes(len(data))
        header = read_header(data)
        pixels = _pixels(header, min_side=min_side)
    except HeaderError as problem:
        raise UnreadablePhoto(f"{shown(name)}: {problem}") from None
    width, height = header.upright
    return Photo(pixels=pixels, width=width, height=height, sha256=hashlib.sha256(data).hexdigest())


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


def _pixels(header: Header, *, min_side: int | None) -> Pixels:
    """Decode to upright RGB; the result's size must be the declared one, so no header can pass for another picture."""
    scale = _scale(header, min_side)
    flags = cv2.IMREAD_UNCHANGED if header.alpha else _REDUCED[scale] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        with _silent_opencv():
            decoded = cv2.imdecode(np.frombuffer(header.body, np.uint8), flags)
    except cv2.error:
        decoded = None
    # OpenCV turns a TIFF upright whatever it is asked; the other formats it must leave alone, as its versions differ.
    turned = header.format == "TIFF"
    width, height = header.upright if turned else (header.width, header.height)
    if decoded is None or decoded.shape[:2] != (-(-height // scale), -(-width // scale)):
        raise HeaderError(f"the {header.format} is damaged or of an unusual kind and cannot be decoded")
    bgr = _over_black(decoded) if header.alpha else np.asarray(decoded, np.uint8)
    upright = bgr if turned else _upright(bgr, header.orientation)
    return np.asarray(cv2.cvtColor(upright, cv2.COLOR_BGR2RGB), np.uint8)


def _scale(header: Header, min_side: int | None) -> int:
    if min_side is None or header.format != "JPEG":
        return 1
    shorter = min(header.width, header.height)
    return max((scale for scale in _REDUCED if -(-shorter // scale) >= min_side), default=1)


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Keep OpenCV's log off stderr: what it says of a bad file is said by the exception.

    The level is the process's, so threads share it. One that finds it silenced by another leaves it to that one to
    restore; at worst a line is logged, and the level is always as before at the end.
    """
    before = _set_log_level(_SILENT)
    try:
        yield
    finally:
        if before != _SILENT:
            _set_log_level(before)


def _over_black(decoded: np.ndarray) -> Pixels:
    """uint8 or uint16 (h, w, 4) BGR and alpha to uint8 (h, w, 3): colour times opacity."""
    if decoded.dtype == np.uint16:
        decoded = cv2.convertScaleAbs(decoded, alpha=1 / 257)
    if decoded.ndim != 3 or decoded.shape[2] != 4:
        raise HeaderError("the transparency of the picture cannot be read, save it without")
    alpha = cv2.cvtColor(decoded[..., 3], cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.multiply(cv2.cvtColor(decoded, cv2.COLOR_BGRA2BGR), alpha, scale=1 / 255), np.uint8)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo EXIF tag 274, which says on which sides of the scene the stored first row and column lie."""
    turned = cv2.transpose(pixels) if orientation >= 5 else pixels
    if orientation in _FLIPS:
        turned = cv2.flip(turned, _FLIPS[orientation])
    return np.asarray(turned, np.uint8)
