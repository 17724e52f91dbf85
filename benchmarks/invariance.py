"""Does the frame change the grade? Squeezed against unsqueezed photographs, and whole discs against cut ones.

    python benchmarks/invariance.py --squeeze FOLDER --cut FOLDER [--bundle FILE]

Prints the share of photographs with the same grade. Squeezed: resized to a square of the frame's shorter side, and of
224 pixels. Cut: top and bottom blackened beyond 0.77 of the radius, as deep as the cameras that cut most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

from retigrade import Grader, load
from retigrade.arrays import Pixels
from retigrade.errors import NotAFundus
from retigrade.fundus.decode import decode
from retigrade.fundus.field import find_field
from retigrade.inputs import expand

BAND = 0.77
WHOLE = 0.04  # of the height: how little of a disc may be cut off already


@dataclass(frozen=True)
class Invariance:
    """Folders of photographs."""

    squeeze: Path | None = None
    cut: Path | None = None
    bundle: Path | None = None
    most: int = 200
    """Photographs to cut."""


def png(pixels: Pixels) -> bytes:
    return bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])


def squeezed(pixels: Pixels, side: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))


def same(grader: Grader, pairs: list[tuple[bytes, bytes]]) -> str:
    grades = [(grader.grade(one, heat=False).grade, grader.grade(two, heat=False).grade) for one, two in pairs]
    both = [(one, two) for one, two in grades if one is not None and two is not None]
    equal = sum(one == two for one, two in both)
    return f"{equal / len(both):.1%} of {len(both)} ({len(grades) - len(both)} of {len(grades)} refused in either form)"


def cut(path: Path) -> tuple[bytes, bytes] | None:
    """A whole disc and the same with top and bottom blackened, or None where the camera cut it already."""
    photo = decode(path)
    try:
        field = find_field(photo)
    except NotAFundus:
        return None
    height = photo.pixels.shape[0]
    if field.filled or field.cy - field.ry < -WHOLE / 2 or field.cy + field.ry > 1 + WHOLE / 2:
        return None
    black = photo.pixels.copy()
    black[: round((field.cy - BAND * field.ry) * height)] = 0
    black[round((field.cy + BAND * field.ry) * height) :] = 0
    return png(photo.pixels), png(black)


def main(arguments: Invariance) -> None:
    grader = load(arguments.bundle)
    if arguments.squeeze:
        photos = [decode(item.path).pixels for item in expand([arguments.squeeze]).items]
        for name, side in (("its shorter side", min(photos[0].shape[:2])), ("224 pixels", 224)):
            pairs = [(png(pixels), png(squeezed(pixels, side))) for pixels in photos]
            print(f"squeezed to a square of {name}: same grade for {same(grader, pairs)}")
    if arguments.cut:
        paths = (item.path for item in expand([arguments.cut]).items)
        pairs = [pair for path in paths if (pair := cut(path))][: arguments.most]
        print(f"top and bottom cut off: same grade for {same(grader, pairs)}")


if __name__ == "__main__":
    main(tyro.cli(Invariance))
