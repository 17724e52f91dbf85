"""Copy-paste of lesions: healthy photographs are given lesions of annotated ones, and learned as mild or moderate.

A lesion is copied as what it multiplies the light around it by, colour by colour, so that it takes the light and the
colour of the retina that it is pasted on. All else in the photograph is a healthy eye's, so what a network learns from
it is the lesion alone, in every camera's pictures (for objects: Ghiasi et al., "Simple Copy-Paste is a Strong Data
Augmentation Method for Instance Segmentation", CVPR 2021). Microaneurysms alone are mild retinopathy, haemorrhages and
exudates moderate. A lesion is as blurred as the photograph, for one sharper than all around it would be easy to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from retigrade.arrays import Flags, Floats, Pixels, Reals
from retigrade.data.annotations import KINDS, AnnotatedPhoto
from retigrade.errors import UsageError
from retigrade.fundus.canonical import canonical_view
from retigrade.icdr import Grade

_EDGE = 1 / 120  # of the side: a lesion's soft edge
_DARKEST, _BRIGHTEST = 0.3, 2.5  # what a lesion may multiply the light by
_NEAR = 0.08  # of the side: how far half of them lie from one place, as around one vessel; the others lie anywhere
_REACH = 0.43  # of the side: how far from the middle that is
_SCALE = 0.35  # how much smaller or larger a lesion becomes, in logarithms


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """Which lesions make one grade.

    name: of one, for a sentence. bits: of the masks. smallest, largest: of the side, the longer side of a lesion with
    its edge. faintest: the least contrast in any colour, in logarithms. strength: what its contrast is multiplied by,
    at least and at most. fewest, most: how many of them one photograph is given.
    """

    name: str
    bits: int
    smallest: float
    largest: float
    faintest: float
    strength: tuple[float, float]
    fewest: int
    most: int


_KINDS = {
    Grade.MILD: _Kind(
        name="microaneurysm",
        bits=KINDS["microaneurysm"],
        smallest=0,
        largest=1 / 22,
        faintest=0.05,
        strength=(1.0, 1.8),
        fewest=2,
        most=10,
    ),
    Grade.MODERATE: _Kind(
        name="haemorrhage or exudate",
        bits=KINDS["haemorrhage"] | KINDS["hard exudate"] | KINDS["soft exudate"],
        smallest=1 / 38,
        largest=1 / 8,
        faintest=0.1,
        strength=(0.7, 1.15),
        fewest=4,
        most=16,
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class LesionBank:
    """By grade, the lesions of each annotated photograph that has any to copy: what they multiply the light by.

    Each is float32 (h, w, 3), near 1 along its edge. Microaneurysms make a photograph mild, haemorrhages and exudates
    moderate.
    """

    lesions: dict[Grade, tuple[tuple[Floats, ...], ...]]

    @classmethod
    def of(cls, annotated: Iterable[AnnotatedPhoto], grades: Iterable[Grade], *, size: int) -> LesionBank:
        """Copy the lesions that make some grades, mild and moderate, of photographs prepared at a size in pixels.

        Raises NotAFundus where one has no disc, UsageError where there is nothing to copy for a grade.
        """
        kinds = {grade: _KINDS[grade] for grade in grades}
        found = [_copied(item, kinds, size=size) for item in annotated]
        lesions = {grade: tuple(each[grade] for each in found if each[grade]) for grade in kinds}
        for grade, kind in kinds.items():
            if not lesions[grade]:
                raise UsageError(
                    f"no {kind.name} is large and clear enough to paste, on {len(found)} annotated photographs of eyes "
                    "that neither validate nor test: annotate more, or take a recipe that pastes none"
                )
        return cls(lesions)

    def paste(self, photo: Pixels, grade: Grade, rng: np.random.Generator, *, side: int | None = None) -> Pixels:
        """Give a prepared photograph, uint8 (S, S, 3), lesions of one annotated photograph that make it of a grade.

        They are turned, scaled and strengthened at random. side: pixels across of the photograph's file, where it had
        fewer than S. Raises ValueError for a grade without lesions.
        """
        if grade not in self.lesions:
            raise ValueError(f"there are no lesions to paste that make a photograph {grade.stage}")
        kind, size = _KINDS[grade], len(photo)
        lesions, light = self.lesions[grade][rng.integers(len(self.lesions[grade]))], np.ones(photo.shape, np.float32)
        centre = _anywhere(size, rng)
        for _ in range(int(rng.integers(kind.fewest, kind.most + 1))):
            lesion = _varied(lesions[rng.integers(len(lesions))], kind.strength, rng)
            near = centre + rng.normal(0, _NEAR * size, 2)
            _multiply(light, lesion, near if rng.random() < 0.5 else _anywhere(size, rng))
        if side is not None and side < size:
            small = cv2.resize(light, (side, side), interpolation=cv2.INTER_AREA)
            light = np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
        return np.asarray(np.clip(photo * light, 0, 255).astype(np.uint8))


def _copied(item: AnnotatedPhoto, kinds: dict[Grade, _Kind], *, size: int) -> dict[Grade, tuple[Floats, ...]]:
    view = canonical_view(item.photo, size=size)
    covered, retina = view.to_canonical(item.dilated.astype(np.float32))
    # Each lesion is compared with what the retina would be without: filled in from around it.
    ground = cv2.inpaint(view.canonical, ((covered > 0.1) & retina).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    ground = cv2.GaussianBlur(ground.astype(np.float32), (0, 0), size / 180)
    contrast = np.asarray(np.log(view.canonical.astype(np.float32) + 1) - np.log(ground + 1))
    # A retina reflects hardly any blue, so its contrast is noise; blood and exudates change it about as they do green.
    contrast[..., 2] = contrast[..., 1]
    # At the rim the ground is not the retina alone.
    inner = np.asarray(cv2.erode(retina.astype(np.uint8), _disc(size), iterations=2, borderValue=0) > 0)
    lesions = {}
    for grade, kind in kinds.items():
        mask, _ = view.to_canonical(((item.mask & kind.bits) > 0).astype(np.float32))
        lesions[grade] = tuple(_cut_out(contrast, mask > 0.3, inner, kind))
    return lesions


def _cut_out(contrast: Floats, certain: Flags, inner: Flags, kind: _Kind) -> Iterator[Floats]:
    size, edge = len(contrast), _edge(len(contrast))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(certain.astype(np.uint8), _disc(size)))
    for number in range(1, count):
        left, top, width, height = boxes[number, :4]
        window = np.s_[max(0, top - edge) : top + height + edge, max(0, left - edge) : left + width + edge]
        here = labels[window] == number
        if not kind.smallest * size <= max(width, height) <= kind.largest * size or not inner[window].all():
            continue
        if np.abs(contrast[window][here & certain[window]].mean(0)).max() < kind.faintest:
            continue
        soft = cv2.GaussianBlur(here.astype(np.float32), (0, 0), edge / 2)
        light = np.exp(contrast[window] * soft[..., None])
        yield np.asarray(np.clip(light, _DARKEST, _BRIGHTEST), np.float32)


def _edge(size: int) -> int:
    return max(1, round(_EDGE * size))


def _disc(size: int) -> Pixels:
    width = 2 * _edge(size) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)), np.uint8)


def _varied(lesion: Floats, strength: tuple[float, float], rng: np.random.Generator) -> Floats:
    turned = np.rot90(lesion, int(rng.integers(4)))
    turned = turned[:, ::-1] if rng.random() < 0.5 else turned
    scale = float(np.exp(rng.uniform(-_SCALE, _SCALE)))
    scaled = cv2.resize(turned, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled ** rng.uniform(*strength), np.float32)


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
