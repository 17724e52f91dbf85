"""Gradings with their pictures, drawn some ahead in threads, in order and in constant memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import decode
from retigrade.grading import Grading
from retigrade.icdr import Status
from retigrade.output.overlay import PICTURE_SIDE, as_jpeg, as_png, pair, picture
from retigrade.output.rows import Row, as_row
from retigrade.text import shown

_THUMBNAIL = 180  # pixels, the longer side
_AHEAD = 2  # pictures waiting for each thread
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustrated:
    """One verdict and its pictures.

    thumbnail: JPEG file, None where the photo cannot be read; picture: PNG file, None where there is no thermal map.
    """

    row: Row
    thumbnail: bytes | None = None
    picture: bytes | None = None


def illustrate(gradings: Iterable[Grading], *, jobs: int) -> Generator[Illustrated, None, None]:
    """Yield each grading with its pictures, in order; `jobs` are drawn at once. Closing it ends its threads."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="retigrade-draw")
    waiting: deque[Future[Illustrated]] = deque()
    try:
        for grading in gradings:
            waiting.append(pool.submit(_draw, grading))
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _draw(grading: Grading) -> Illustrated:
    row = as_row(grading)
    if grading.status is Status.ERROR:
        return Illustrated(row=row)
    try:
        return _drawn(grading, row)
    except UnreadablePhoto as error:
        _logger.warning("no picture of a photo that could be read a moment ago: %s", error)
    except Exception as defect:  # ours; the verdict stands without its picture
        _logger.warning("no picture of %s: %s: %s", shown(grading.path), type(defect).__name__, defect)
        _logger.debug("drawing %s failed", shown(grading.path), exc_info=True)
    return Illustrated(row=row)


def _drawn(grading: Grading, row: Row) -> Illustrated:
    # Read once more, and small: carrying pixels through every layer would cost more memory than this costs time.
    photo = decode(Path(grading.path), min_side=PICTURE_SIDE)
    if photo.sha256 != grading.sha256:
        raise UnreadablePhoto(f"{shown(grading.path)}: it has changed since")
    if grading.heatmap is None:
        return Illustrated(row=row, thumbnail=as_jpeg(pair(photo.pixels, None, side=_THUMBNAIL)))
    heat = grading.heatmap
    return Illustrated(
        row=row,
        thumbnail=as_jpeg(pair(photo.pixels, heat, side=_THUMBNAIL)),
        picture=as_png(picture(photo.pixels, heat, row)),
    )
