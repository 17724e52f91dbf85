"""The LZW code of TIFF 6.0 (section 13), checked without decoding it.

It has no checksum, and libtiff stops as soon as it has the bytes it wants. But a changed bit turns a code into another,
which stands for a string of another length, so the lengths add up to another sum than the piece must have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retigrade.fundus.header import ZEROS, damaged

_CLEAR, _END, _FIRST = 256, 257, 258
_MOST = 4096 - _FIRST  # codes between two clearings
# No writer clears its table more often than this, and each clearing takes as long to follow as a full table.
_CLEARINGS, _BETWEEN = 64, 256  # at least; bytes

# The first code after a clearing adds no string; each of the others adds one. A width ends one string early.
_ADDED = _FIRST - 1 + np.arange(_MOST).clip(min=1)
_WIDTHS: npt.NDArray[np.int64] = 9 + (_ADDED > 510).astype(np.int64) + (_ADDED > 1022) + (_ADDED > 2046)
_STARTS = np.concatenate([[0], np.cumsum(_WIDTHS)[:-1]])


def check_lzw(pieces: Sequence[bytes], lengths: Sequence[int]) -> None:
    """Raise HeaderError where a piece does not decode to its length in bytes; a length of 0 is not looked at."""
    for piece, length in zip(pieces, lengths, strict=True):
        if ZEROS in piece:
            raise damaged("TIFF", "a piece of it was overwritten with zeros")
        # What starts with the low bits first is an older kind, which libtiff knows too.
        if length and piece[:1] == b"\x80" and _decoded_length(piece) not in (length, None):
            raise damaged("TIFF", "its compressed data are corrupt")


def _decoded_length(piece: bytes) -> int | None:
    """Bytes that a piece decodes to; -1 where it has a code that cannot be, None where it never clears its table."""
    padded = np.frombuffer(piece + bytes(4), np.uint8).astype(np.int64)
    total, start, end = 0, 9, 8 * len(piece)
    for _ in range(_CLEARINGS + len(piece) // _BETWEEN):
        at = start + _STARTS[: np.searchsorted(start + _STARTS + _WIDTHS, end, side="right")]
        widths = _WIDTHS[: len(at)]
        byte = at >> 3
        words = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
        codes = words >> (24 - (at & 7) - widths) & ((1 << widths) - 1)
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(stops) and len(codes) == _MOST:
            return None
        count = int(stops[0]) if len(stops) else len(codes)
        length = _strings(codes[:count])
        if length < 0:
            return -1
        total += length
        if not len(stops) or codes[count] == _END:
            return total
        start = int(at[count] + widths[count])
    return -1


def _strings(codes: npt.NDArray[np.int64]) -> int:
    """Sum of the lengths of the strings that the codes after a clearing stand for; -1 where one is not there yet.

    String 258 + i is that of code i and one byte more, so lengths are depths in a forest, found by doubling steps.
    """
    index = np.arange(len(codes))
    parent = codes - _FIRST
    if (parent >= index).any():
        return -1
    is_string = codes >= _FIRST
    depth = is_string.astype(np.int64)
    above = np.where(is_string, parent, index)
    while depth[above].any():
        depth = depth + depth[above]
        above = above[above]
    return int(depth.sum()) + len(codes)
