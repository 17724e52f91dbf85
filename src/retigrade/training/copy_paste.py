"""Copy-paste of lesions: healthy photographs are given lesions of annotated ones, and learned as moderate.

A lesion is copied as what it multiplies the light around it by, colour by colour, so that it takes the light and the
colour of the retina that it is pasted on. All else in the photograph is a healthy eye's, so what a network learns from
it is the lesion alone, in every camera's pictures (for objects: Ghiasi et al., "Simple Copy-Paste is a Strong Data
Augmentation Method for Instance Segmentation", CVPR 2021). Microaneurysms are not copied: at a network's size they are
a few pixels, and by themselves a sign of mild retinopathy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from retigrade.arrays import Floats, Pixels, Reals
from retigrade.data.annotations import KINDS, AnnotatedPhoto
from retigrade.errors import UsageError
from retigrade.fundus.canonical import canonical_view

_COPIED = KINDS["haemorrhage"] | KINDS["hard exudate"] | KINDS["soft exudate"]
_EDGE = 1 / 120  # of the side: a lesion's soft edge
_SMALLEST, _LARGEST = 1 / 38, 1 / 8  # of the side: the longer side of a lesion with its edge
_FAINTEST = 0.1  # the least contrast of a lesion in any colour, in logarithms
_DARKEST, _BRIGHTEST = 0.3, 2.5  # what a lesion may multiply the light by
_FEWEST, _MOST = 4, 16  # lesions given to one photograph
_NEAR = 0.08  # of the side: how far half of them lie from one place, as around one vessel; the others lie anywhere
_REACH = 0.43  # of the side: how far from the middle that is
_SCALE = 0.35  # how much smaller or larger a lesion becomes, in logarithms
_STRENGTH = 0.7, 1.15  # by how much its contrast is multiplied


@dataclass(frozen=True, slots=True, eq=False)
class LesionBank:
    """The lesions of each annotated photograph that has any to copy: what they multiply the light by.

    Each is float32 (h, w, 3), near 1 along its edge.
    """

    lesions: tuple[tuple[Floats, ...], ...]

    @classmethod
    def of(cls, annotated: Iterable[AnnotatedPhoto], *, size: int) -> LesionBank:
        """Copy the lesions of photographs prepared at a size in pixels.

        Raises NotAFundus where one has no disc, UsageError where there is nothing to copy.
        """
        found = [tuple(_copied(item, size=size)) for item in annotated]
        if not any(found):
            raise UsageError(
                f"no haemorrhage or exudate is large and clear enough to paste, on {len(found)} annotated photographs "
                "of eyes that neither validate nor test: annotate more, or take a recipe that pastes none"
            )
        return cls(tuple(lesions for lesions in found if lesions))

    def paste(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        """Give a prepared photograph, uint8 (S, S, 3), lesions of one annotated photograph; raises ValueError without.

        They are turned, scaled and strengthened at random.
        """
        if not self.lesions:
            raise ValueError("there are no lesions to paste")
        lesions, light = self.lesions[rng.integers(len(self.lesions))], np.ones(photo.shape, np.float32)
        centre = _anywhere(len(photo), rng)
        for _ in range(int(rng.integers(_FEWEST, _MOST + 1))):
            lesion = _varied(lesions[rng.integers(len(lesions))], rng)
            near = centre + rng.normal(0, _NEAR * len(photo), 2)
            _multiply(light, lesion, near if rng.random() < 0.5 else _anywhere(len(photo), rng))
        return np.asarray(np.clip(photo * light, 0, 255).astype(np.uint8))


def _copied(item: AnnotatedPhoto, *, size: int) -> Iterator[Floats]:
    view = canonical_view(item.photo, size=size)
    mask, retina = view.to_canonical(((item.mask & _COPIED) > 0).astype(np.float32))
    covered, _ = view.to_canonical(item.dilated.astype(np.float32))
    # Each lesion is compared with what the retina would be without: filled in from around it.
    ground = cv2.inpaint(view.canonical, ((covered > 0.1) & retina).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    ground = cv2.GaussianBlur(ground.astype(np.float32), (0, 0), size / 180)
    contrast = np.log(view.canonical.astype(np.float32) + 1) - np.log(ground + 1)
    edge = max(1, round(_EDGE * size))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * edge + 1, 2 * edge + 1))
    # At the rim the ground is not the retina alone.
    inner = cv2.erode(retina.astype(np.uint8), disc, iterations=2, borderValue=0) > 0
    certain = mask > 0.3
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(certain.astype(np.uint8), disc))
    for number in range(1, count):
        left, top, width, height = boxes[number, :4]
        window = np.s_[max(0, top - edge) : top + height + edge, max(0, left - edge) : left + width + edge]
        here = labels[window] == number
        if not _SMALLEST * size <= max(width, height) <= _LARGEST * size or not inner[window].all():
            continue
        if np.abs(contrast[window][here & certain[window]].mean(0)).max() < _FAINTEST:
            continue
        soft = cv2.GaussianBlur(here.astype(np.float32), (0, 0), edge / 2)
        light = np.exp(contrast[window] * soft[..., None])
        yield np.asarray(np.clip(light, _DARKEST, _BRIGHTEST), np.float32)


def _varied(lesion: Floats, rng: np.random.Generator) -> Floats:
    turned = np.rot90(lesion, int(rng.integers(4)))
    turned = turned[:, ::-1] if rng.random() < 0.5 else turned
    scale = float(np.exp(rng.uniform(-_SCALE, _SCALE)))
    scaled = cv2.resize(turned, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled ** rng.uniform(*_STRENGTH), np.float32)


def _anywhere(size: int, rng: np.random.Generator) -> Reals:
    """Row and column of a place on the retina."""
    angle, radius = rng.uniform(0, 2 * np.pi), _REACH * size * np.sqrt(rng.uniform())
    return np.asarray(np.array([np.sin(angle), np.cos(angle)]) * radius + size / 2)


def _multiply(light: Floats, lesion: Floats, place: Reals) -> None:
    """Multiply in place, as far as the lesion lies within the photograph."""
    height, width = lesion.shape[:2]
    top, left = (round(float(at) - side / 2) for at, side in zip(place, (height, width), strict=True))
    rows = slice(max(0, top), min(len(light), top + height))
    columns = slice(max(0, left), min(len(light), left + width))
    if rows.start < rows.stop and columns.start < columns.stop:
        light[rows, columns] *= lesion[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
