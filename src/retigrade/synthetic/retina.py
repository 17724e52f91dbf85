"""The light that comes back from an eye: pigment, choroid, disc, macula, blood and exudates, then the camera.

Colours are float32 (3, H, W), planes of red, green and blue, in 0..1 as a display shows them. What absorbs light
multiplies a colour by exp(-depth), with a depth for each plane (Beer and Lambert's law), so that overlapping structures
darken as they do in tissue; what scatters light mixes a colour toward its own.
"""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats, Pixels
from retigrade.synthetic.geometry import Anatomy, Canvas, Plane
from retigrade.synthetic.vessels import VesselLayers

_Colour = tuple[float, float, float]
_Amount = npt.NDArray[np.floating[Any]]

# Read off healthy eyes of several cameras: the retina lies between an orange and a pink one.
_ORANGE: Final[_Colour] = (0.74, 0.36, 0.05)
_PINK: Final[_Colour] = (0.75, 0.40, 0.255)

# Depths for red, green, blue.
_VEIN: Final[_Colour] = (0.19, 0.48, 0.38)
_ARTERY: Final[_Colour] = (0.07, 0.34, 0.29)
_BLOOD: Final[_Colour] = (0.26, 0.58, 0.45)
_MICROANEURYSM: Final[_Colour] = (0.19, 0.52, 0.40)
_NEW_VESSEL: Final[_Colour] = (0.14, 0.62, 0.48)
_MACULA: Final[_Colour] = (0.12, 0.17, 0.22)
_FOVEA: Final[_Colour] = (0.10, 0.18, 0.25)


def retina(plane: Plane, anatomy: Anatomy, rng: np.random.Generator) -> Floats:
    """Return the bare retina: pigment, choroid, nerve fibres, macula and optic disc, without vessels."""
    x, y = plane.axes()
    tint, pale = rng.random() ** 1.5, rng.uniform(0.78, 0.98)
    base = np.array([o + (p - o) * tint for o, p in zip(_ORANGE, _PINK, strict=True)], np.float32) * pale
    colour = np.empty((3, plane.height, plane.width), np.float32)
    colour[:] = base.astype(np.float32)[:, None, None]

    absorb(colour, 0.12 * plane.noise(0.8, rng), (-0.1, 0.5, 1.6))  # the pigment's colour drifts across the field
    mottle = 0.06 * plane.noise(0.45, rng) + 0.02 * plane.noise(0.1, rng) + 0.012 * plane.noise(0.025, rng)
    absorb(colour, mottle, (0.6, 1.0, 1.2))
    # The choroid's own vessels show as winding bright bands, where the pigment is thin: the zero lines of noise.
    where = np.clip(plane.noise(0.5, rng) + np.hypot(x, y) - 0.6, 0, 1) * rng.uniform(0.3, 1)
    bands = np.exp(-((plane.noise(0.055, rng) / 0.45) ** 2)) - 0.4
    absorb(colour, where * bands, (-0.09, -0.04, 0.05))
    mix(colour, _nerve_fibres(plane, anatomy, rng), (0.80, 0.52, 0.36))

    to_fovea = (x - anatomy.fovea[0]) ** 2 + (y - anatomy.fovea[1]) ** 2
    absorb(colour, np.exp(-to_fovea / (2 * 0.17**2)) * rng.uniform(0.9, 1.7), _MACULA)
    absorb(colour, np.exp(-to_fovea / (2 * 0.045**2)) * rng.uniform(1.0, 2.0), _FOVEA)
    _optic_disc(colour, plane, anatomy, rng)
    return colour


def disc_distance(plane: Plane, anatomy: Anatomy) -> Floats:
    """Return the distance from the optic disc's centre in its own radii, float32 (H, W): its rim is at 1."""
    x, y = plane.axes()
    across, down = (x - anatomy.disc[0]) / anatomy.disc_axes[0], (y - anatomy.disc[1]) / anatomy.disc_axes[1]
    return np.asarray(np.hypot(across, down), np.float32)


def add_vessels(colour: Floats, plane: Plane, layers: VesselLayers) -> None:
    """Darken the retina, in place, where vessels run, and add the light along the middle of the thick ones."""
    sigma = 0.0017
    absorb(colour, plane.soften(layers.arteries, sigma), _ARTERY)
    absorb(colour, plane.soften(layers.veins, sigma), _VEIN)
    absorb(colour, plane.soften(layers.reflex, sigma), (-0.10, -0.26, -0.16))


def add_deep_lesions(colour: Floats, plane: Plane, lesions: dict[str, Canvas]) -> None:
    """Add hard exudates, in place; they lie below the vessels."""
    if lesions["hard_exudate"].any():
        mix(colour, 0.85 * plane.soften(lesions["hard_exudate"], 0.004), (0.95, 0.78, 0.28))


def add_near_lesions(colour: Floats, plane: Plane, lesions: dict[str, Canvas], rng: np.random.Generator) -> None:
    """Add, in place, what lies at or before the vessels: cotton wool, blood and new vessels."""
    if lesions["soft_exudate"].any():
        mix(colour, 0.55 * plane.soften(lesions["soft_exudate"], 0.015), (0.90, 0.79, 0.58))
    grain = 1 + 0.08 * plane.noise(0.045, rng)
    for name, depth, sigma in (
        ("microaneurysm", _MICROANEURYSM, 0.0025),
        ("haemorrhage", _BLOOD, 0.008),
        ("new_vessel", _NEW_VESSEL, 0.0018),
    ):
        if lesions[name].any():
            absorb(colour, plane.soften(lesions[name], sigma) * grain, depth)


def photograph(
    colour: Floats, plane: Plane, *, notch: bool, blur: float, illumination: float, rng: np.random.Generator
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Expose the retina through a camera: shading, haze at the rim, blur, sensor noise and the round stop.

    Returns the pixels, uint8 (H, W, 3), black outside the field, and the field itself, bool (H, W).
    """
    x, y = plane.axes()
    distance = np.hypot(x, y)
    tilt, side = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    shade = 1.09 - rng.uniform(0.28, 0.44) * distance**2 - 0.05 * np.clip(distance - 0.8, 0, None) / 0.2
    shade += rng.uniform(0.12, 0.24) * (x * math.cos(tilt) + y * math.sin(tilt))
    haze = np.clip((distance - 0.62) / 0.38, 0, 1) ** 2 * (0.5 + 0.5 * (x * math.cos(side) + y * math.sin(side)))
    mix(colour, haze * rng.uniform(0.2, 0.5), (0.70, 0.58, 0.36))
    colour *= shade * illumination

    sharpness = math.hypot(0.0014, blur) * plane.radius
    picture = cv2.GaussianBlur(cv2.merge(list(colour)), (0, 0), max(sharpness, 0.4))
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    picture += cv2.GaussianBlur(noise, (0, 0), 0.75) * (0.012 * max(illumination, 0.3))

    stop = np.clip((1 - distance) * plane.radius + 0.5, 0, 1)
    if notch:
        stop = np.maximum(stop, _notch(plane))
    picture = np.clip(picture, 0, 1) * (255 * stop)[..., None]
    return np.round(picture).astype(np.uint8), distance <= 1


def absorb(colour: Floats, amount: _Amount, depth: _Colour) -> None:
    """Multiply `colour` in place by exp(-amount * depth); a negative depth brightens."""
    for channel, weight in enumerate(depth):
        colour[channel] *= np.exp(-weight * amount)


def mix(colour: Floats, amount: _Amount, target: _Colour) -> None:
    """Mix `colour` in place toward `target` by `amount`, 0 to 1."""
    for channel, value in enumerate(target):
        colour[channel] += amount * (value - colour[channel])


def _nerve_fibres(plane: Plane, anatomy: Anatomy, rng: np.random.Generator) -> Floats:
    """Strength of the pale sheen of nerve fibres: streaks that fan out from the disc and fade with distance."""
    x, y = plane.axes()
    dx, dy = x - anatomy.disc[0], y - anatomy.disc[1]
    distance = np.hypot(dx, dy)
    bearing = np.arctan2(dy, dx)
    degrees, ring = (
        (180 + bearing * (180 / math.pi)).astype(np.float32),
        np.minimum(distance * 6, 11).astype(np.float32),
    )
    texture = rng.standard_normal((12, 361), dtype=np.float32)
    texture[:, -1] = texture[:, 0]  # the circle closes
    streaks = cv2.remap(texture, degrees, ring, cv2.INTER_LINEAR)
    fade = np.exp(-((distance / rng.uniform(0.3, 0.45)) ** 2)) * (0.6 + 0.4 * np.abs(np.sin(bearing)))
    return np.asarray(fade * (rng.uniform(0.12, 0.42) + 0.05 * streaks), np.float32)


def _optic_disc(colour: Floats, plane: Plane, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Add the disc, in place: a pink rim, redder on the nasal side, and a pale cup."""
    x, y = plane.axes()
    distance = disc_distance(plane, anatomy)
    edge = _step_down(distance, 1, 0.03)
    mix(colour, 0.28 * np.exp(-((np.maximum(distance - 1, 0) / 0.3) ** 2)) * (1 - edge), (0.85, 0.52, 0.30))
    mix(colour, 0.92 * edge, (0.98, 0.68, 0.33))
    nasal = np.clip((x - anatomy.disc[0]) / anatomy.disc_axes[0] * anatomy.nasal, -1, 1)
    absorb(colour, edge * nasal, (0.03, 0.16, 0.22))
    cup = rng.uniform(0.38, 0.58)
    offset = (x - anatomy.disc[0] + 0.025 * anatomy.nasal, y - anatomy.disc[1])
    to_cup = np.hypot(offset[0] / anatomy.disc_axes[0], offset[1] / anatomy.disc_axes[1]) / cup
    mix(colour, 0.9 * _step_down(to_cup, 1, 0.12), (1.0, 0.89, 0.52))


def _step_down(value: _Amount, at: float, width: float) -> _Amount:
    """Fall smoothly from 1 to 0 around `at`, over about four `width`s."""
    return np.asarray(0.5 - 0.5 * np.tanh((value - at) / (2 * width)))


def _notch(plane: Plane) -> Floats:
    """Coverage, 0..1, of the small tab beside the upper right rim that marks which way up a photograph is."""
    angle = np.deg2rad(-38)
    out, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    corners = [(0.97, -0.045), (1.035, -0.045), (1.035, 0.045), (0.97, 0.045)]
    tab = plane.blank()
    plane.fill(tab, np.array([out * far + along * aside for far, aside in corners]), 1)
    return np.asarray(tab / 255, np.float32)
