"""Do lines, bars and surrounds around a photograph change its grade, and is a picture of two eyes refused?

    python benchmarks/surrounds.py FOLDER [--count 80] [--pairs 40] [--bundle FILE] [--only NAME]

Each photograph is drawn with a line, bars or a light surround, in its own shape and in 4:3 and 16:9, as it is and as a
JPEG, and graded beside its plain self. Pairs of them are drawn beside and above each other, apart and touching, the
second as large or smaller. Prints how many have the same grade, changed from referable to not without a reason, or
were refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro

from retigrade import Grader, load
from retigrade.arrays import Pixels
from retigrade.fundus.decode import Photo, decode, decode_bytes
from retigrade.grading import Grading
from retigrade.icdr import Status
from retigrade.inputs import expand

Colour = tuple[int, int, int]
WHITE, BLACK, GREY, DARK, BLUE, CREAM = (
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (43, 43, 43),
    (0, 90, 200),
    (250, 244, 225),
)
LIT = 20  # of 255: what a cut-out keeps


@dataclass(frozen=True)
class Surrounds:
    """A folder of photographs, and how many of them to draw on."""

    folder: Annotated[Path, tyro.conf.Positional]
    count: int = 80
    pairs: int = 40
    bundle: Path | None = None
    only: str = ""
    """Only the drawings whose name has this in it."""


def line(pixels: Pixels, colour: Colour, width: int) -> Pixels:
    return np.asarray(cv2.copyMakeBorder(pixels, *(width,) * 4, cv2.BORDER_CONSTANT, value=colour))


def bars(pixels: Pixels, colour: Colour, aspect: float) -> Pixels:
    """Fill up to an aspect, width over height, with bars at the sides or above and below."""
    height, width = pixels.shape[:2]
    across, down = max(0, round(height * aspect) - width) // 2, max(0, round(width / aspect) - height) // 2
    return np.asarray(cv2.copyMakeBorder(pixels, down, down, across, across, cv2.BORDER_CONSTANT, value=colour))


def cut_out(pixels: Pixels, colour: Colour) -> Pixels:
    """The disc alone on a surround."""
    lit = (cv2.GaussianBlur(pixels, (5, 5), 0).max(axis=2) > LIT).astype(np.uint8)
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    inside = cv2.drawContours(np.zeros_like(lit), [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return np.where(inside[..., None] > 0, pixels, np.array(colour, np.uint8)).astype(np.uint8)


def portrait(pixels: Pixels) -> Pixels:
    """A 3:4 portrait about the disc, made square: the disc is stretched 1.33 times."""
    height, width = pixels.shape[:2]
    tall = bars(pixels, BLACK, 0.75) if width / height > 0.75 else pixels
    side = min(height, width)
    return np.asarray(cv2.resize(tall, (side, side), interpolation=cv2.INTER_AREA))


DRAWN: dict[str, Callable[[Pixels], Pixels]] = {
    "white line of 1 pixel": lambda pixels: line(pixels, WHITE, 1),
    "white line of 3 pixels": lambda pixels: line(pixels, WHITE, 3),
    "blue line of 6 pixels": lambda pixels: line(pixels, BLUE, 6),
    "grey line of 20 pixels": lambda pixels: line(pixels, GREY, 20),
    "dark line of 12 pixels": lambda pixels: line(pixels, DARK, 12),
    "white line about 4:3 bars": lambda pixels: line(bars(pixels, BLACK, 4 / 3), WHITE, 4),
    "white line about 16:9 bars": lambda pixels: line(bars(pixels, BLACK, 16 / 9), WHITE, 4),
    "blue line about a white line": lambda pixels: line(line(pixels, WHITE, 5), BLUE, 9),
    "black margin about a grey line": lambda pixels: line(line(pixels, GREY, 3), BLACK, 30),
    "black bars to 4:3": lambda pixels: bars(pixels, BLACK, 4 / 3),
    "black bars to 16:9": lambda pixels: bars(pixels, BLACK, 16 / 9),
    "white bars to 4:3": lambda pixels: bars(pixels, WHITE, 4 / 3),
    "white bars to 16:9": lambda pixels: bars(pixels, WHITE, 16 / 9),
    "cream bars to square": lambda pixels: bars(pixels, CREAM, 1.0),
    "cut out on white": lambda pixels: cut_out(pixels, WHITE),
    "cut out on white, 4:3": lambda pixels: bars(cut_out(pixels, WHITE), WHITE, 4 / 3),
    "cut out on white, 16:9": lambda pixels: bars(cut_out(pixels, WHITE), WHITE, 16 / 9),
    "cut out on grey": lambda pixels: cut_out(pixels, GREY),
    "portrait made square": portrait,
}


def beside(first: Pixels, second: Pixels, *, scale: float, gap: int, above: bool) -> Pixels:
    """Two photographs in one, the second scaled and in the middle of its side."""
    if above:
        turned = (np.ascontiguousarray(pixels.transpose(1, 0, 2)) for pixels in (first, second))
        return np.ascontiguousarray(beside(*turned, scale=scale, gap=gap, above=False).transpose(1, 0, 2))
    small = cv2.resize(second, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height = max(len(first), len(small))
    sides = []
    for pixels in (first, small):
        missing = height - len(pixels)
        sides.append(np.pad(pixels, ((missing // 2, missing - missing // 2), (0, 0), (0, 0))))
    return np.concatenate([sides[0], np.zeros((height, gap, 3), np.uint8), sides[1]], axis=1)


def tight(pixels: Pixels) -> Pixels:
    """The photograph without the black about its disc, so that discs drawn beside each other touch."""
    lit = pixels.max(axis=2) > LIT
    rows, columns = np.flatnonzero(lit.mean(axis=1) > 0.02), np.flatnonzero(lit.mean(axis=0) > 0.02)
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def pairs(photos: list[Pixels], count: int) -> Iterator[tuple[str, Pixels]]:
    for number in range(count):
        first, second = photos[number % len(photos)], photos[(number * 7 + 1) % len(photos)]
        for above in (False, True):
            for scale in (1.0, 0.7, 0.5):
                name = f"two eyes, {'above' if above else 'beside'}, second {scale}"
                yield name, beside(first, second, scale=scale, gap=12, above=above)
                yield f"{name}, touching", beside(tight(first), tight(second), scale=scale, gap=0, above=above)


def drawn_photo(pixels: Pixels, *, jpeg: bool) -> Photo:
    """The picture as it is, or as a JPEG of quality 80 holds it."""
    if jpeg:
        data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        return decode_bytes(bytes(data), name="drawn.jpg")
    height, width = pixels.shape[:2]
    return Photo(pixels=np.ascontiguousarray(pixels), width=width, height=height, sha256="0" * 64)


def compare(plain: Grading, drawn: Grading) -> Iterator[str]:
    if drawn.status is not Status.GRADED:
        yield f"refused as {drawn.status}"
        return
    yield "same" if drawn.grade == plain.grade else "other"
    if plain.referable and not drawn.referable:
        yield "referable lost" if drawn.reasons else "referable lost in silence"


def report(name: str, counts: Counter[str], *, of: int) -> None:
    print(f"{name:40} {counts['same'] / of:6.1%} of {of} the same;  {dict(counts)}", flush=True)


def main(arguments: Surrounds) -> None:
    grader: Grader = load(arguments.bundle)
    paths = [item.path for item in expand([arguments.folder]).items]
    photos = [decode(path).pixels for path in paths[:: max(1, len(paths) // arguments.count)][: arguments.count]]
    plain = [grader.grade_photo(drawn_photo(pixels, jpeg=False), heat=False) for pixels in photos]
    kept = [(pixels, grading) for pixels, grading in zip(photos, plain, strict=True) if grading.status is Status.GRADED]
    referable = sum(bool(grading.referable) for _, grading in kept)
    print(f"{len(kept)} of {len(photos)} plain photographs are graded, {referable} of them referable")
    for jpeg in (False, True):
        for name, draw in {"nothing": lambda pixels: pixels, **DRAWN}.items():
            if arguments.only in name:
                counts: Counter[str] = Counter()
                for pixels, grading in kept:
                    photo = drawn_photo(draw(pixels), jpeg=jpeg)
                    counts.update(compare(grading, grader.grade_photo(photo, heat=False)))
                report(f"{name}{', JPEG' * jpeg}", counts, of=len(kept))
    verdicts: Counter[tuple[str, str]] = Counter()
    for name, pixels in pairs([pixels for pixels, _ in kept], arguments.pairs):
        if arguments.only in name:
            verdicts[name, str(grader.grade_photo(drawn_photo(pixels, jpeg=False), heat=False).status)] += 1
    for (name, status), number in sorted(verdicts.items()):
        print(f"{name:44} {status}: {number}")


if __name__ == "__main__":
    main(tyro.cli(Surrounds))
