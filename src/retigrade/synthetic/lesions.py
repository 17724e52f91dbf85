"""Lesions of diabetic retinopathy, of the kinds and in the numbers that the ICDR scale asks of each grade."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from retigrade.icdr import Grade
from retigrade.synthetic.geometry import Anatomy, Canvas, Plane, Points
from retigrade.synthetic.vessels import stroke, walk

LESIONS: Final = ("microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate", "new_vessel")
_QUADRANTS: Final = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_TRIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """How many of each kind one grade carries, as [low, high) for a random draw."""

    microaneurysms: tuple[int, int] = (0, 1)
    haemorrhages_per_quadrant: tuple[int, int] = (0, 1)
    exudate_clusters: tuple[int, int] = (0, 1)
    soft_exudates: tuple[int, int] = (0, 1)
    fronds: tuple[int, int] = (0, 1)
    preretinal: bool = False


# Wilkinson et al. 2003: severe is more than 20 haemorrhages in each of four quadrants (or venous beading, or IRMA).
_LOADS: Final = {
    Grade.NONE: _Load(),
    Grade.MILD: _Load(microaneurysms=(5, 10)),
    Grade.MODERATE: _Load(
        microaneurysms=(14, 24), haemorrhages_per_quadrant=(2, 6), exudate_clusters=(2, 4), soft_exudates=(1, 3)
    ),
    Grade.SEVERE: _Load(
        microaneurysms=(24, 36), haemorrhages_per_quadrant=(22, 27), exudate_clusters=(2, 5), soft_exudates=(2, 5)
    ),
    Grade.PROLIFERATIVE: _Load(
        microaneurysms=(14, 24),
        haemorrhages_per_quadrant=(6, 12),
        exudate_clusters=(2, 4),
        soft_exudates=(1, 4),
        fronds=(2, 4),
        preretinal=True,
    ),
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """A kind of haemorrhage: its share of all, range of radii, roughness of outline, and length over breadth."""

    share: float
    radius: tuple[float, float]
    rough: float
    stretch: float


_DOT: Final = _Shape(0.6, (0.010, 0.015), 0.12, 1.1)
_BLOT: Final = _Shape(0.25, (0.015, 0.028), 0.24, 1.3)
_FLAME: Final = _Shape(0.15, (0.012, 0.02), 0.2, 3.5)
_SHAPES: Final = (_DOT, _BLOT, _FLAME)


@dataclass(slots=True)
class _Ground:
    """Hands out places in view that keep clear of one another, of the disc, the fovea and the rim."""

    anatomy: Anatomy
    reach: tuple[float, float]
    rng: np.random.Generator
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def place(self, radius: float, quadrant: tuple[int, int] | None = None) -> Points:
        """Return a centre (2,) for a lesion of `radius`; where all is taken, the freest of many tries."""
        best, clearest = np.zeros(2), -np.inf
        for _ in range(_TRIES):
            x, y = self.rng.uniform(-0.92, 0.92, 2)
            if quadrant is not None:
                x, y = abs(x) * quadrant[0], abs(y) * quadrant[1]
            clearance = self._clearance(x, y, radius, split=quadrant is not None)
            if clearance > clearest:
                best, clearest = np.array([x, y]), clearance
            if clearance > 0.03:
                break
        self.taken.append((best[0], best[1], radius))
        return best

    def _clearance(self, x: float, y: float, radius: float, *, split: bool) -> float:
        borders = [0.95 - math.hypot(x, y), self.reach[0] - abs(x), self.reach[1] - abs(y)]
        if split:  # half a gap either side of a quadrant's border is a whole gap
            borders += [min(abs(x), abs(y)) + 0.015]
        disc, fovea = self.anatomy.disc, self.anatomy.fovea
        borders += [math.hypot(x - disc[0], y - disc[1]) - 0.16, math.hypot(x - fovea[0], y - fovea[1]) - 0.06]
        borders += [math.hypot(x - other[0], y - other[1]) - other[2] for other in self.taken]
        return float(min(borders)) - radius


def paint_lesions(plane: Plane, anatomy: Anatomy, grade: Grade, rng: np.random.Generator) -> dict[str, Canvas]:
    """Paint the lesions of `grade`; returns one canvas for each name in `LESIONS`."""
    load = _LOADS[grade]
    canvases = {name: plane.blank() for name in LESIONS}
    ground = _Ground(anatomy, plane.reach, rng)
    if load.preretinal:
        _preretinal(plane, canvases["haemorrhage"], ground)
    for quadrant in _QUADRANTS:
        for _ in range(rng.integers(*load.haemorrhages_per_quadrant)):
            _haemorrhage(plane, canvases["haemorrhage"], ground, quadrant)
    for _ in range(rng.integers(*load.microaneurysms)):
        radius = rng.uniform(0.0075, 0.0115)
        outline = _blob(ground.place(radius + 0.004), radius, rough=0.08, rng=rng)
        plane.fill(canvases["microaneurysm"], outline, rng.uniform(0.8, 1))
    for _ in range(rng.integers(*load.exudate_clusters)):
        _exudate_cluster(plane, canvases["hard_exudate"], anatomy, rng)
    for _ in range(rng.integers(*load.soft_exudates)):
        _soft_exudate(plane, canvases["soft_exudate"], anatomy, rng)
    for index in range(rng.integers(*load.fronds)):
        _frond(plane, canvases["new_vessel"], _frond_root(anatomy, at_disc=index == 0, rng=rng), rng)
    return canvases


def _blob(
    centre: Points, radius: float, *, rough: float, rng: np.random.Generator, stretch: float = 1, heading: float = 0
) -> Points:
    """Outline of an irregular spot, `stretch` times as long along `heading` as across it."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    turns = np.arange(2, 8)[:, None]
    waves = np.sin(turns * angle + 2 * np.pi * rng.random((6, 1))) * 2 / turns
    around = radius * np.clip(1 + rough * (rng.standard_normal(6) @ waves), 0.4, 1.7)
    along, across = around * np.cos(angle) * np.sqrt(stretch), around * np.sin(angle) / np.sqrt(stretch)
    cos, sin = np.cos(heading), np.sin(heading)
    return np.asarray(centre + np.stack([along * cos - across * sin, along * sin + across * cos], axis=1))


def _fibre_heading(anatomy: Anatomy, place: Points, rng: np.random.Generator) -> float:
    """Direction of the nerve fibres, which fan out from the disc, at a place."""
    away = place - np.array(anatomy.disc)
    return float(np.arctan2(away[1], away[0]) + rng.normal(0, 0.25))


def _haemorrhage(plane: Plane, canvas: Canvas, ground: _Ground, quadrant: tuple[int, int]) -> None:
    """A dot, a blot or a flame."""
    rng = ground.rng
    shape = _SHAPES[rng.choice(len(_SHAPES), p=[shape.share for shape in _SHAPES])]
    radius = rng.uniform(*shape.radius)
    centre = ground.place(radius * math.sqrt(shape.stretch) * (1 + shape.rough), quadrant)
    heading = _fibre_heading(ground.anatomy, centre, rng)
    outline = _blob(centre, radius, rough=shape.rough, stretch=shape.stretch, heading=heading, rng=rng)
    plane.fill(canvas, outline, rng.uniform(0.38, 0.78))


def _preretinal(plane: Plane, canvas: Canvas, ground: _Ground) -> None:
    """Blood before the retina: level on top and sagging below, like a boat."""
    rng, anatomy = ground.rng, ground.anatomy
    width, depth = rng.uniform(0.15, 0.22), rng.uniform(0.13, 0.2)
    centre = np.array(anatomy.fovea) + np.array([-anatomy.nasal * rng.uniform(0.0, 0.35), rng.uniform(0.22, 0.38)])
    angle = np.linspace(0, np.pi, 40)
    sag = depth * np.sin(angle) ** 0.6 * (1 + 0.05 * np.sin(3 * angle + rng.uniform(0, 6)))
    plane.fill(canvas, centre + np.stack([width * np.cos(angle), sag], axis=1), 1)
    ground.taken.append((centre[0], centre[1] + depth / 2, width))


def _exudate_cluster(plane: Plane, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Waxy spots around a leak: part of a ring, denser and larger toward its middle, with a few strays."""
    away = rng.uniform(0.18, 0.5)
    bearing = rng.uniform(0, 2 * np.pi)
    leak = np.array(anatomy.fovea) + away * np.array([-abs(np.cos(bearing)) * anatomy.nasal, 0.8 * np.sin(bearing)])
    ring, span, middle = rng.uniform(0.06, 0.15), rng.uniform(1.0, 2.4), rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(25, 60)):
        offset = float(np.clip(rng.normal(0, 0.5), -1, 1))
        angle = middle + span * offset
        distance = ring * rng.normal(1, 0.28)
        radius = 0.0035 + 0.014 * rng.random() ** 4 * (1 - abs(offset))
        centre = leak + distance * np.array([np.cos(angle), np.sin(angle)])
        outline = _blob(centre, radius, rough=0.35, stretch=rng.uniform(1, 1.8), heading=rng.uniform(0, np.pi), rng=rng)
        plane.fill(canvas, outline, rng.uniform(0.65, 1))


def _soft_exudate(plane: Plane, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """A cotton-wool spot: a pale, fluffy patch of the nerve fibres along an arcade."""
    bearing = rng.uniform(-0.9, 0.9) + np.pi / 2 * rng.choice((-1, 1))
    centre = np.array(anatomy.fovea) + rng.uniform(0.42, 0.62) * np.array([np.cos(bearing), np.sin(bearing)])
    heading = _fibre_heading(anatomy, centre, rng) + np.pi / 2
    for _ in range(5):
        puff = centre + rng.normal(0, 0.018, 2)
        outline = _blob(puff, rng.uniform(0.022, 0.04), rough=0.3, stretch=1.7, heading=heading, rng=rng)
        plane.fill(canvas, outline, rng.uniform(0.65, 1))


def _frond_root(anatomy: Anatomy, *, at_disc: bool, rng: np.random.Generator) -> Points:
    if at_disc:
        return np.array(anatomy.disc) + rng.normal(0, 0.03, 2)
    bearing = rng.uniform(-0.7, 0.7) + np.pi / 2 * rng.choice((-1, 1))
    return np.array(anatomy.fovea) + 0.58 * np.array([np.cos(bearing), np.sin(bearing)])


def _frond(plane: Plane, canvas: Canvas, root: Points, rng: np.random.Generator) -> None:
    """New vessels: fine, looping, tangled, spreading from one root."""
    for _ in range(rng.integers(9, 14)):
        heading, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.3)
        stem = walk(root, heading, length, bend=rng.normal(0, 1.6), wander=0.9, rng=rng)
        _fine(plane, canvas, stem, 0.0055)
        for _ in range(rng.integers(1, 4)):
            fork = stem[rng.integers(len(stem) // 3, len(stem))]
            aside = heading + rng.normal(0, 1.2)
            twig = walk(fork, aside, length * 0.5, bend=rng.normal(0, 2.5), wander=1.0, rng=rng)
            _fine(plane, canvas, twig, 0.004)


def _fine(plane: Plane, canvas: Canvas, points: Points, width: float) -> None:
    stroke(plane, canvas, points, np.full(len(points), width, np.float32), 0.9)
