"""Photographs prepared once, kept as a memory-mapped array that is named by what is in it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from retigrade.arrays import Pixels
from retigrade.data.manifest import Entry, Manifest
from retigrade.errors import DataError, PhotoError, UsageError
from retigrade.fundus.crop import crop, decode_side
from retigrade.fundus.decode import decode
from retigrade.fundus.field import FIELD_VERSION, find_field


def prepared(manifest: Manifest, *, size: int, folder: Path) -> Pixels:
    """Return every photograph of a manifest as the network sees it: uint8 (N, size, size, 3), memory-mapped.

    The array is made at the first call and read back at later ones.
    Raises DataError where a photograph has no retinal disc, UsageError where the folder cannot be written.
    """
    path = folder / f"prepared-{manifest.fingerprint[:16]}-{size}-v{FIELD_VERSION}.npy"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _make(manifest, size, path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}; choose a folder with room for it") from error
    photos: Pixels = np.load(path, mmap_mode="r")
    if photos.shape != (len(manifest), size, size, 3):
        raise DataError(
            f"{path} holds {photos.shape}, need {(len(manifest), size, size, 3)}; delete it and start again"
        )
    return photos


def canonical(entry: Entry, *, size: int) -> Pixels:
    """Prepare one photograph of a manifest, exactly as grading does: uint8 (size, size, 3)."""
    try:
        photo = decode(entry.path, min_side=decode_side(size))
        return crop(photo, find_field(photo), size=size)
    except PhotoError as error:
        raise DataError(f"{entry.name}: {error}; remove it from the data set") from error


def _make(manifest: Manifest, size: int, path: Path) -> None:
    part = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(manifest), size, size, 3))
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # one photograph a thread is faster than many threads a photograph
        try:
            with ThreadPoolExecutor() as pool:
                prepare_one = pool.map(lambda entry: canonical(entry, size=size), manifest.entries)
                for index, pixels in enumerate(prepare_one):
                    array[index] = pixels
        finally:
            cv2.setNumThreads(threads)
        array.flush()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
