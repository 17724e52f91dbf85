"""The vessel tree: arcades around the macula, nasal trunks, and branches that thin as they divide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retigrade.arrays import Floats
from retigrade.synthetic.geometry import Anatomy, Canvas, Plane, Points

_STEP = 0.01
_THINNEST = 0.0035
_FULL_DEPTH = 0.02  # a vessel this wide or wider hides the retina as much as blood does


@dataclass(frozen=True, slots=True)
class Vessel:
    """A centre line and its width at each point, in radii of the field."""

    points: Points
    widths: Floats
    vein: bool


@dataclass(frozen=True, slots=True)
class VesselLayers:
    """Strengths of veins, arteries and the light reflex along their centres, each a canvas."""

    veins: Canvas
    arteries: Canvas
    reflex: Canvas


def walk(
    start: Points, heading: float, length: float, *, bend: float, wander: float, rng: np.random.Generator
) -> Points:
    """Return a smooth path of `length` from `start` (2,): it turns by `bend` radians, and wavers by `wander`."""
    n = max(int(length / _STEP), 4)
    t = np.linspace(0, 1, n)
    turns = np.arange(1, 5)
    cycles = length * 2.2 * turns
    waves = np.sin(2 * np.pi * (cycles[:, None] * t + rng.random((4, 1)))) / turns[:, None]
    angle = heading + bend * t + wander * (rng.standard_normal(4) @ waves)
    steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (length / n)
    return np.asarray(start + np.cumsum(steps, axis=0) - steps[0])


def stroke(plane: Plane, canvas: Canvas, points: Points, widths: Floats, strength: float) -> None:
    """Paint a line of varying width on the canvas; a line thinner than a pixel is painted fainter instead."""
    least = 1 / plane.radius
    faint = min(float(widths.mean()) / least, 1.0)
    direction = np.gradient(points, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9
    # Smooth edges add about half a pixel all round, so the outline starts that much inside.
    half = (np.maximum(widths, least) - 0.7 * least)[:, None] / 2
    across = np.stack([-direction[:, 1], direction[:, 0]], axis=1) * half
    plane.fill(canvas, np.concatenate([points + across, (points - across)[::-1]]), strength * faint)


def grow_tree(anatomy: Anatomy, *, beaded: bool, rng: np.random.Generator) -> list[Vessel]:
    """Grow the whole tree; `beaded` makes the veins swell and narrow by turns, as severe disease does."""
    tree: list[Vessel] = []
    for trunk in _trunks(anatomy, rng):
        tree.append(trunk)
        tree.extend(_branches(trunk, anatomy, 1, rng))
    return [_bead(vessel) if beaded and vessel.vein else vessel for vessel in tree]


def paint_tree(plane: Plane, tree: list[Vessel]) -> VesselLayers:
    """Paint the tree, thin vessels first so that thick ones lie over them."""
    layers = VesselLayers(plane.blank(), plane.blank(), plane.blank())
    for vessel in sorted(tree, key=lambda vessel: float(vessel.widths.max())):
        depth = float(np.clip(vessel.widths.mean() / _FULL_DEPTH, 0.3, 1))
        stroke(plane, layers.veins if vessel.vein else layers.arteries, vessel.points, vessel.widths, depth)
        if vessel.widths.max() * plane.radius > 3:
            stroke(plane, layers.reflex, vessel.points, vessel.widths * 0.25, 0.5 if vessel.vein else 0.9)
    return layers


def _trunks(anatomy: Anatomy, rng: np.random.Generator) -> list[Vessel]:
    """Four arcade vessels, the nasal trunks and the fine temporal ones, all from the middle of the disc."""
    fovea, nasal = np.array(anatomy.fovea), anatomy.nasal
    root = np.array(anatomy.disc) + np.array([0.02 * nasal, 0])
    trunks = []
    for vein in (True, False):
        for up in (-1, 1):
            peak = rng.uniform(0.62, 0.78) - (0.0 if vein else 0.07)
            around = np.array([(0.58, 0.46), (0.22, peak + 0.12), (-1.15, rng.uniform(0.55, 0.95))])
            curve = fovea + around * (nasal, up) + rng.normal(0, 0.035, (3, 2))
            start = root + np.array([rng.normal(0, 0.015), up * rng.uniform(0, 0.025)])
            points = _waver(_bezier(np.stack([start, *curve])), 0.012, rng)
            trunks.append(_tapered(points, 0.03 if vein else 0.022, 0.4, vein))
    for index, degrees in enumerate((-82, -55, -25, 8, 38, 66, 88)):
        heading = np.deg2rad(degrees + rng.normal(0, 6))
        heading = heading if nasal > 0 else np.pi - heading
        start = root + rng.normal(0, 0.015, 2)
        points = walk(start, heading, rng.uniform(0.6, 0.95), bend=rng.normal(0, 0.3), wander=0.12, rng=rng)
        trunks.append(_tapered(points, rng.uniform(0.012, 0.021), 0.5, vein=index % 2 == 0))
    for degrees in (-32, -10, 14, 35):
        heading = np.deg2rad(180 + degrees + rng.normal(0, 5))
        heading = heading if nasal > 0 else np.pi - heading
        points = walk(root, heading, rng.uniform(0.3, 0.5), bend=rng.normal(0, 0.3), wander=0.15, rng=rng)
        trunks.append(_tapered(_outside_fovea(points, anatomy), 0.008, 0.4, vein=bool(rng.random() < 0.5)))
    return trunks


def _branches(parent: Vessel, anatomy: Anatomy, order: int, rng: np.random.Generator) -> list[Vessel]:
    """Branches of one vessel, and theirs, to the third order; they leave by turns to either side."""
    length = len(parent.points) * _STEP
    spacing = (0.16, 0.14, 0.12)[order - 1]
    side = rng.choice((-1, 1))
    branches: list[Vessel] = []
    at = rng.uniform(0.15, 0.3)
    while at < 0.95 and (reach := length * (1 - at) * rng.uniform(0.45, 0.95)) > 0.06:
        index = int(at * (len(parent.points) - 1))
        width = float(parent.widths[index]) * rng.uniform(0.42, 0.72)
        if width > _THINNEST * 0.7:
            along = parent.points[min(index + 1, len(parent.points) - 1)] - parent.points[max(index - 1, 0)]
            leave = side * rng.uniform(0.5, 1.05)
            points = walk(
                parent.points[index], float(np.arctan2(along[1], along[0])) + leave, min(reach, 0.75),
                bend=-leave * rng.uniform(-0.1, 0.8), wander=0.2, rng=rng,
            )  # fmt: skip
            points = _outside_fovea(points, anatomy)
            if len(points) > 4 and np.hypot(*points[0]) < 1:
                branch = _tapered(points, max(width, _THINNEST), 0.3, parent.vein)
                branches.append(branch)
                if order < 3:
                    branches.extend(_branches(branch, anatomy, order + 1, rng))
        side = -side if rng.random() < 0.75 else side
        at += spacing / length * rng.uniform(0.6, 1.4)
    return branches


def _outside_fovea(points: Points, anatomy: Anatomy) -> Points:
    """Cut a path where it would enter the zone around the fovea that has no vessels."""
    inside = np.hypot(*(points - anatomy.fovea).T) < 0.09
    return points[: int(inside.argmax())] if inside.any() else points


def _tapered(points: Points, width: float, end: float, vein: bool) -> Vessel:
    emerging = np.minimum(0.3 + np.arange(len(points)) * _STEP / 0.1, 1)  # out of the disc, or of the parent
    widths = np.maximum(width * np.linspace(1, end, len(points)) * emerging, _THINNEST).astype(np.float32)
    return Vessel(points, widths, vein)


def _bead(vessel: Vessel) -> Vessel:
    along = np.arange(len(vessel.points)) * _STEP
    swell = (1 + 0.28 * np.sin(along * 70 + 2 * np.sin(along * 13))).astype(np.float32)
    return Vessel(vessel.points, vessel.widths * swell, vessel.vein)


def _bezier(control: Points) -> Points:
    """Points of the cubic Bezier curve with control points (4, 2), about one step apart."""
    n = int(np.linalg.norm(np.diff(control, axis=0), axis=1).sum() / _STEP)
    t = np.linspace(0, 1, n)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], axis=1)
    return np.asarray(weights @ control)


def _waver(points: Points, amount: float, rng: np.random.Generator) -> Points:
    """Shift a path sideways by slow waves that are zero at its start."""
    t = np.linspace(0, 1, len(points))
    turns = np.arange(2, 8)
    waves = np.sin(2 * np.pi * (turns[:, None] * t + rng.random((6, 1)))) / np.sqrt(turns[:, None])
    shift = amount * np.minimum(t * 6, 1)[:, None] * (rng.standard_normal((2, 6)) @ waves).T
    return np.asarray(points + shift)
