"""One synthetic fundus photograph, with the truth about what is in it; and the three eyes that a first run grades."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Pixels
from retigrade.errors import UsageError
from retigrade.files import write_whole
from retigrade.fundus.decode import Photo
from retigrade.fundus.field import Field
from retigrade.icdr import GRADES, Grade
from retigrade.synthetic.geometry import Anatomy, Eye, Plane
from retigrade.synthetic.lesions import LESIONS, paint_lesions
from retigrade.synthetic.retina import (
    add_deep_lesions,
    add_near_lesions,
    add_vessels,
    disc_distance,
    photograph,
    retina,
)
from retigrade.synthetic.vessels import grow_tree, paint_tree

MASKS: Final = (*LESIONS, "optic_disc")
_SMALLEST = 160
_WIDEST_CUT = 0.2
_WIDEST_ASPECT = 4.0
_LEAST_WIDTH = 1.19  # of the frame, in radii; a narrower one could lose the optic disc
_LEAST_DIAGONAL = 2.1  # of the frame, in radii; below 2 the retina fills it and no rim is seen
_MARGIN = 0.015
_SEED = 29  # an eye that the shipped bundle reads as it was drawn; not every drawn eye is, and none measures anything
_VISIBLE = 64  # of 255: the finest new vessels are painted this faint in the smallest frames


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Phantom:
    """A drawn eye and the truth about it.

    pixels: uint8 (H, W, 3) RGB. field: where the disc was drawn. masks: bool (H, W) for each name in `MASKS`,
    true only inside the field. grade: the stage that was drawn.
    """

    pixels: Pixels
    field: Field
    masks: Mapping[str, npt.NDArray[np.bool_]]
    grade: Grade

    @property
    def photo(self) -> Photo:
        """The eye as a decoded photograph that is of no file."""
        height, width = self.pixels.shape[:2]
        return Photo(pixels=self.pixels, width=width, height=height, sha256="")


def draw_eye(
    *,
    grade: Grade,
    rng: np.random.Generator,
    size: int = 640,
    aspect: float = 1.0,
    cut: float = 0.0,
    eye: Eye = "right",
    notch: bool = False,
    blur: float = 0.0,
    illumination: float = 1.0,
) -> Phantom:
    """Draw the fundus of one eye with the lesions of one stage; the same generator state gives the same pixels.

    size: the frame's height in pixels. aspect: its width divided by its height; a frame narrower than the disc cuts it.
    cut: fraction of the disc's height that the frame cuts off at the top, and as much at the bottom, 0 to 0.2.
    eye: "right" has the optic disc on the right. notch: a tab at the rim, as some cameras print.
    blur: deviation of a Gaussian blur in radii of the field, beside the slight one of any camera.
    illumination: exposure, 1 as usual. Grades drawn from equal generators share one eye and differ in their lesions.

    Raises ValueError for an option out of its range.
    """
    if size < _SMALLEST:
        raise ValueError(f"size must be at least {_SMALLEST} pixels, got {size}")
    if not 0 <= cut <= _WIDEST_CUT:
        raise ValueError(f"cut must be between 0 and {_WIDEST_CUT}, got {cut}")
    if eye not in ("left", "right"):
        raise ValueError(f"eye must be 'left' or 'right', got {eye!r}")
    if blur < 0 or illumination < 0:
        raise ValueError(f"blur and illumination must not be negative, got {blur} and {illumination}")

    width = round(size * aspect)
    radius = size / (1 - 2 * cut) / 2 if cut else size * (0.5 - _MARGIN)
    diagonal = _LEAST_DIAGONAL * radius / size
    least = max(_LEAST_WIDTH * radius / size, math.sqrt(max(diagonal**2 - 1, 0)))
    if not least <= aspect <= _WIDEST_ASPECT:
        raise ValueError(f"aspect must be between {least:.2f} and {_WIDEST_ASPECT} with a cut of {cut}, got {aspect}")
    # Only the columns that the disc and its notch can reach are drawn; the rest of a wide frame stays black.
    border = max(int(width / 2 - radius * 1.05), 0)
    plane = Plane(height=size, width=width - 2 * border, cx=width / 2 - border, cy=size / 2, radius=radius)
    # A stream for each, so that neither the grade nor the frame's size changes the eye below the lesions.
    for_anatomy, for_retina, for_tree, for_lesions, for_camera = rng.spawn(5)

    anatomy = Anatomy.draw(eye, for_anatomy)
    lesions = paint_lesions(plane, anatomy, grade, for_lesions)
    colour = retina(plane, anatomy, for_retina)
    add_deep_lesions(colour, plane, lesions)
    tree = grow_tree(anatomy, beaded=grade is Grade.SEVERE, rng=for_tree)
    add_vessels(colour, plane, paint_tree(plane, tree))
    add_near_lesions(colour, plane, lesions, for_lesions)
    pixels, inside = photograph(colour, plane, notch=notch, blur=blur, illumination=illumination, rng=for_camera)

    shapes = {name: canvas >= _VISIBLE for name, canvas in lesions.items()}
    shapes["optic_disc"] = disc_distance(plane, anatomy) <= 1
    beside = ((0, 0), (border, border))
    return Phantom(
        pixels=np.pad(pixels, (*beside, (0, 0))),
        field=Field(cx=0.5, cy=0.5, rx=radius / width, ry=radius / size),
        masks=MappingProxyType({name: np.pad(shape & inside, beside) for name, shape in shapes.items()}),
        grade=grade,
    )


def demo_eyes() -> tuple[tuple[str, Phantom], ...]:
    """Return the built-in eyes, each with its file name: healthy, moderate and severe; always the same pixels."""
    healthy, moderate, severe = (np.random.default_rng(_SEED) for _ in range(3))
    return (
        ("healthy.png", draw_eye(grade=Grade.NONE, aspect=1.5, eye="right", rng=healthy)),
        ("moderate.png", draw_eye(grade=Grade.MODERATE, aspect=1.5, cut=0.08, eye="left", rng=moderate)),
        ("severe.png", draw_eye(grade=Grade.SEVERE, aspect=1.5, cut=0.08, notch=True, rng=severe)),
    )


CLASSES = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")
"""The class folders of a labelled data set, grade 0 to 4."""


def write_eyes(folder: Path | str) -> list[Path]:
    """Write the built-in eyes into `folder` as PNG, each file whole or not at all, and return their paths.

    Raises UsageError where the folder cannot be made or written.
    """
    return [_write_png(Path(folder, name), eye) for name, eye in demo_eyes()]


def write_labelled_eyes(folder: Path | str, *, photos: int, size: int = 240, seed: int = 0) -> list[Path]:
    """Write a labelled data set of drawn eyes into class folders, grades in turn, and return the paths.

    size: height in pixels. The same seed gives the same pixels. Raises UsageError below 1 photo, or where the folder
    cannot be made or written.
    """
    if photos < 1:
        raise UsageError(f"a data set needs at least 1 photo, got {photos}")

    def write(number: int) -> Path:
        grade = GRADES[number % len(GRADES)]
        rng = np.random.default_rng([seed, number])
        eye = draw_eye(grade=grade, size=size, aspect=1.3, cut=0.08 * (number // 5 % 2), rng=rng)
        return _write_png(Path(folder, CLASSES[grade], f"{number:04}.png"), eye)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(photos)))


def _write_png(path: Path, eye: Phantom) -> Path:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))
    write_whole(path, encoded.tobytes())
    return path
