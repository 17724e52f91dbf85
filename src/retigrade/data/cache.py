"""Photographs prepared once, kept as a memory-mapped array that is named by what is in it and sealed by a checksum."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from retigrade.arrays import Pixels
from retigrade.data.manifest import Entry, Manifest
from retigrade.errors import DataError, PhotoError
from retigrade.files import replacing
from retigrade.fundus.crop import crop, decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.field import FIELD_VERSION, find_field
from retigrade.text import shown

_PIECE = 2**24  # bytes hashed at a time
_log = logging.getLogger(__name__)


def prepared(manifest: Manifest, *, size: int, folder: Path) -> Pixels:
    """Return every photograph of a manifest as the network sees it: uint8 (N, size, size, 3), RGB, memory-mapped.

    The array is made at the first call, whole or not at all, and read back at later ones, its checksum compared: a
    damaged one is made anew, with a warning.
    Raises DataError that lists all photographs without a retinal disc, UsageError where the folder cannot be written.
    """
    path = folder / f"prepared-{manifest.fingerprint[:16]}-{size}-v{FIELD_VERSION}.npy"
    return cached(path, lambda entry: canonical(entry, size=size), manifest, size=size)


def canonical(entry: Entry, *, size: int) -> Pixels:
    """Prepare one photograph of a manifest, exactly as grading does: uint8 (size, size, 3), RGB.

    Raises PhotoError where it has no retinal disc or cannot be read, DataError where it has changed.
    """
    photo = decode_listed(entry, size=size)
    return crop(photo, find_field(photo), size=size)


def decode_listed(entry: Entry, *, size: int) -> Photo:
    """Decode a photograph with all the detail that `size` pixels need; raises DataError where the file has changed."""
    photo = decode(entry.path, min_side=decode_side(size))
    if photo.sha256 != entry.sha256:
        raise DataError(f"{shown(str(entry.path))}: has changed since it was listed; start again")
    return photo


def cached(path: Path, prepare: Callable[[Entry], Pixels], manifest: Manifest, *, size: int) -> Pixels:
    """Return `prepare` of every photograph, uint8 (N, size, size, 3), memory-mapped from `path`, made where it is not.

    Raises as `prepared` does.
    """
    shape = (len(manifest), size, size, 3)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    )
    if path.exists() and not _is_whole(path, header.getvalue(), int(np.prod(shape))):
        _log.warning("%s is damaged; its photographs are prepared anew", shown(str(path)))
        path.unlink()
    if not path.exists():
        _make(path, prepare, manifest, header=header.getvalue(), size=size)
    return np.memmap(path, np.uint8, mode="r", offset=len(header.getvalue()), shape=shape)


def _make(path: Path, prepare: Callable[[Entry], Pixels], manifest: Manifest, *, header: bytes, size: int) -> None:
    """Write header, pixels and the SHA-256 of both, which numpy's own reader passes over."""
    digest = hashlib.sha256(header)
    refused: list[str] = []
    total = len(header) + len(manifest) * size * size * 3 + digest.digest_size
    with replacing(path) as temporary, temporary.open("wb") as file, _one_thread_each(), ThreadPoolExecutor() as pool:
        if hasattr(os, "posix_fallocate"):  # a full disk shows before the work, and ordinary writes never end in SIGBUS
            os.posix_fallocate(file.fileno(), 0, total)
        file.write(header)
        for pixels in pool.map(lambda entry: _prepared_or_why(entry, prepare), manifest.entries):
            if isinstance(pixels, str):
                refused.append(pixels)
            elif not refused:
                piece = np.ascontiguousarray(pixels).tobytes()
                digest.update(piece)
                file.write(piece)
        if refused:
            raise DataError(
                f"{len(refused)} of {len(manifest)} photographs cannot be prepared: {'; '.join(refused)}; leave them "
                "out with --skip-unreadable"
            )
        file.write(digest.digest())


def _prepared_or_why(entry: Entry, prepare: Callable[[Entry], Pixels]) -> Pixels | str:
    try:
        return prepare(entry)
    except PhotoError as error:
        return f"{shown(entry.name)} ({error})"


def _is_whole(path: Path, header: bytes, pixels: int) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        begin = file.read(len(header))
        digest.update(begin)
        while pixels > 0 and (piece := file.read(min(_PIECE, pixels))):
            digest.update(piece)
            pixels -= len(piece)
        return begin == header and pixels == 0 and file.read() == digest.digest()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One photograph a thread is faster than many threads a photograph."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
