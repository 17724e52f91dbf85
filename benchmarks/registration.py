"""How often two photographs of one eye are laid over each other rightly, and two of different eyes wrongly; its cost.

    python benchmarks/registration.py ../shared/data/eyepacs/train [--photographs 60]

Each photograph is registered with a second one made of it (turned by up to 8 degrees, moved by up to 6 % of its side,
scaled by up to 5 %, exposed otherwise, blurred, compressed), and with the photograph that follows in the folder. Right:
the middle and the rim of the retina lie within 1 % of the side.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro

from retigrade.arrays import Pixels, Reals
from retigrade.evaluation.corruptions import blur, brightness, recompress
from retigrade.fundus.decode import decode
from retigrade.inputs import expand
from retigrade.output.registration import register
from timing import machine

RIGHT = 0.01  # of the shorter side


@dataclass(frozen=True)
class Arguments:
    """The folder, how many of its photographs to take at even steps, the least pixels of their shorter side."""

    folder: Annotated[Path, tyro.conf.Positional]
    photographs: int = 60
    least_side: int = 512


def again(pixels: Pixels, rng: np.random.Generator) -> tuple[Pixels, Reals]:
    """A second photograph, and where it shows each pixel of the first: float64 (2, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-8, 8), rng.uniform(0.95, 1.05))
    matrix[:, 2] += rng.uniform(-0.06, 0.06, 2) * side
    moved = np.asarray(cv2.warpAffine(pixels, matrix, (width, height)), np.uint8)
    return recompress(blur(brightness(moved, 1, rng), 1, rng), 80), np.asarray(matrix)


def main(arguments: Arguments) -> None:
    items = expand([arguments.folder]).items
    step = max(1, len(items) // arguments.photographs)
    rng, seconds = np.random.default_rng(0), []
    right = wrong = refused = confused = tried = others = 0
    for place in range(0, len(items) - 1, step):
        first, other = (decode(item.path).pixels for item in items[place : place + 2])
        if min(first.shape[:2]) < arguments.least_side:
            continue
        second, there = again(first, rng)
        started = time.process_time()
        found = register(second, first)
        seconds.append(time.process_time() - started)
        tried += 1
        if found is None:
            refused += 1
        else:
            height, width = first.shape[:2]
            middle, angles = np.array([[width / 2], [height / 2]]), np.linspace(0, 2 * np.pi, 8, endpoint=False)
            rim = middle + np.stack([np.cos(angles), np.sin(angles)]) * 0.35 * min(height, width)
            points = np.hstack([rim, middle])
            ones = np.ones((1, points.shape[1]))
            back = found.matrix @ np.vstack([there @ np.vstack([points, ones]), ones])
            off = float(np.linalg.norm(back - points, axis=0).max()) / min(height, width)
            right, wrong = right + (off <= RIGHT), wrong + (off > RIGHT)
        others += 1
        confused += register(other, first) is not None
    print(machine())
    print(f"one eye, {tried} pairs: right {right}, wrong {wrong}, refused {refused}")
    print(f"different eyes, {others} pairs: laid over each other {confused}")
    print(f"processor time of a pair: median {np.median(seconds) * 1e3:.0f} ms")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
