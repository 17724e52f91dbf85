"""Gradings with their pictures, drawn some ahead in threads, in order and in constant memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

from retigrade.errors import UnreadablePhoto
from retigrade.grading import Grading
from retigrade.heatmap import Heatmap
from retigrade.inputs import Input
from retigrade.output.overlay import LARGE, SMALL, as_jpeg, as_png, pair, picture, views
from retigrade.output.rows import Row, as_row
from retigrade.text import shown

_THUMBNAIL = 180  # pixels, the longer side
_AHEAD = 2  # pictures waiting for each thread
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeatPictures:
    """Which thermal pictures are drawn, of all graded photographs or the referable ones alone, and in which format."""

    only: Literal["all", "referable"] = "all"
    format: Literal["png", "jpeg"] = "png"

    @property
    def suffix(self) -> str:
        """Of the pictures' files."""
        return ".jpg" if self.format == "jpeg" else ".png"


EVERY_PNG = HeatPictures()


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustrated:
    """One verdict and its pictures.

    thumbnail: JPEG file, None where the photo cannot be read or none was asked for; picture: a file of the format asked
    for, None where there is no thermal map.
    """

    row: Row
    thumbnail: bytes | None = None
    picture: bytes | None = None


def illustrate(
    gradings: Iterable[Grading], *, jobs: int, heat: HeatPictures = EVERY_PNG, inputs: Iterable[Input] | None = None
) -> Generator[Illustrated, None, None]:
    """Yield each grading with its pictures, in order; `jobs` are drawn at once. Closing it ends its threads.

    heat: which thermal pictures are drawn, and how. inputs: those that were graded, in the same order, where they are
    not simply the files at the gradings' paths.
    """
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="retigrade-draw")
    waiting: deque[Future[Illustrated]] = deque()
    try:
        for grading, item in zip(gradings, repeat(None) if inputs is None else inputs, strict=False):
            waiting.append(pool.submit(draw, grading, item, heat=heat))
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def draw(
    grading: Grading, item: Input | None, *, heat: HeatPictures = EVERY_PNG, thumbnail: bool = True
) -> Illustrated:
    """Return one grading with its pictures; see `illustrate`. thumbnail: whether to make that, too."""
    row = as_row(grading)
    wanted = grading.heatmap if heat.only == "all" or grading.referable else None
    if grading.sha256 is None or (wanted is None and not thumbnail):  # it gave no pixels, or none are needed
        return Illustrated(row=row)
    try:
        source = item or Input(Path(grading.path), grading.path)
        return _drawn(grading, row, source, heat, wanted, thumbnail=thumbnail)
    except UnreadablePhoto as error:
        _logger.warning("no picture of a photo that could be read a moment ago: %s", error)
    except Exception as error:  # ours; the verdict stands without its picture
        _logger.warning("no picture of %s: %s: %s", shown(grading.path), type(error).__name__, error)
        _logger.debug("drawing %s failed", shown(grading.path), exc_info=True)
    return Illustrated(row=row)


def _drawn(
    grading: Grading, row: Row, item: Input, heat: HeatPictures, wanted: Heatmap | None, *, thumbnail: bool
) -> Illustrated:
    # Read once more, and small: carrying pixels through every layer would cost more memory than this costs time.
    layout = SMALL if heat.format == "jpeg" else LARGE
    photo = item.read(min_side=layout.sharp)
    if photo.sha256 != grading.sha256:
        raise UnreadablePhoto(f"{shown(grading.path)}: it has changed since")
    photograph, thermal_map = views(photo.pixels, wanted, side=_THUMBNAIL if wanted is None else layout.box)
    small = as_jpeg(pair(photograph, thermal_map, side=_THUMBNAIL)) if thumbnail else None
    if thermal_map is None:
        return Illustrated(row=row, thumbnail=small)
    encode = as_jpeg if heat.format == "jpeg" else as_png
    return Illustrated(row=row, thumbnail=small, picture=encode(picture(photograph, thermal_map, row, layout=layout)))
