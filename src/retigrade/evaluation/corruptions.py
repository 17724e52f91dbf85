"""What happens to a photograph between the eye and the grader, in five severities: twelve pure functions.

Each takes pixels, uint8 (h, w, 3) RGB, a severity from 1 (slight) to 5 (gross) and a random generator, and returns
new pixels, uint8 (h', w', 3). Lengths are relative to the picture, so that a corruption looks the same at any size.
After Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions, ICLR 2019, with what
fundus cameras add: dust, shadow, colour cast, and frames that cut the disc off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Pixels
from retigrade.fundus.crop import LIT

SEVERITIES = (1, 2, 3, 4, 5)

Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]


def blur(pixels: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Put the eye out of focus: a Gaussian of 0.2 to 1.2 % of the shorter side."""
    deviation = _pick(severity, 0.002, 0.004, 0.006, 0.009, 0.012) * _side(pixels)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), deviation), np.uint8)


def noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Add a sensor's noise, of the same deviation in every pixel and channel."""
    deviation = _pick(severity, 4, 8, 13, 19, 26)
    return _bytes(pixels + rng.normal(0, deviation, pixels.shape).astype(np.float32))


def jpeg(pixels: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Compress and decode again, at qualities from 60 down to 8."""
    return recompress(pixels, int(_pick(severity, 60, 40, 25, 15, 8)))


def recompress(pixels: Pixels, quality: int) -> Pixels:
    """The picture as a JPEG file of this quality, 1 to 100, shows it."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def brightness(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Expose too much or too little, as a coin falls; black stays black."""
    factor = _pick(severity, 1.15, 1.3, 1.5, 1.75, 2.1)
    return _bytes(pixels * np.float32(factor if rng.random() < 0.5 else 1 / factor))


def contrast(pixels: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Draw every pixel of the retina towards its mean colour, as a haze does."""
    kept = _pick(severity, 0.85, 0.7, 0.55, 0.42, 0.3)
    lit = pixels.max(axis=2, keepdims=True) > LIT
    mean = pixels.mean(axis=(0, 1), where=np.broadcast_to(lit, pixels.shape)) if lit.any() else np.zeros(3)
    return _bytes(np.where(lit, mean + (pixels - mean) * kept, pixels))


def colour_cast(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Shift the balance of the channels, as another camera or a cataract does."""
    strength = _pick(severity, 0.06, 0.12, 0.19, 0.27, 0.36)
    direction = rng.normal(size=3)
    direction -= direction.mean()
    direction /= max(float(np.abs(direction).max()), 1e-6)
    return _bytes(pixels * np.exp(strength * direction).astype(np.float32))


def shadow(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Darken one side, as a small pupil or a lid does."""
    depth = _pick(severity, 0.2, 0.35, 0.5, 0.65, 0.8)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = _grid(pixels)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    shade = 1 - depth / (1 + np.exp(-(along - rng.uniform(0, 0.25)) / 0.08))
    return _bytes(pixels * shade[..., None].astype(np.float32))


def dust(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Lay soft specks over the lens, dark ones and bright ones."""
    speckled = pixels.astype(np.float32)
    for _ in range(int(_pick(severity, 4, 8, 14, 22, 32))):
        speck = np.zeros(pixels.shape[:2], np.float32)
        x, y = (int(rng.integers(length)) for length in pixels.shape[1::-1])
        radius = max(1, round(rng.uniform(0.004, 0.014) * _side(pixels)))
        cv2.circle(speck, (x, y), radius, 1.0, -1, cv2.LINE_AA)
        speck = np.asarray(cv2.GaussianBlur(speck, (0, 0), 0.4 * radius), np.float32)[..., None]
        tone = rng.choice([0.45, 1.5], p=[0.7, 0.3])
        speckled *= 1 + (tone - 1) * speck
    return _bytes(speckled)


def crop(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Cut the frame closer, unevenly: 3 to 20 % of each axis, so that the disc is cut off."""
    share = _pick(severity, 0.03, 0.06, 0.1, 0.15, 0.2)
    height, width = pixels.shape[:2]
    rows, columns = round(height * share), round(width * share)
    top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
    return pixels[top : top + height - rows, left : left + width - columns].copy()


def rotation(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Turn about the middle by 5 to 90 degrees, either way, on a frame that holds the whole; its corners are black."""
    degrees = _pick(severity, 5, 10, 20, 45, 90) * (1 if rng.random() < 0.5 else -1)
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    wide, high = (round(float(length)) for length in np.abs(turn[:, :2]) @ (width, height))
    turn[:, 2] += (wide - width) / 2, (high - height) / 2
    return np.asarray(cv2.warpAffine(pixels, turn, (wide, high), flags=cv2.INTER_LINEAR), np.uint8)


def flip(pixels: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Mirror left and right, top and bottom, both, along a diagonal, and along the other."""
    _pick(severity, *SEVERITIES)
    match severity:
        case 1:
            flipped = pixels[:, ::-1]
        case 2:
            flipped = pixels[::-1]
        case 3:
            flipped = pixels[::-1, ::-1]
        case 4:
            flipped = pixels.transpose(1, 0, 2)
        case _:
            flipped = pixels[::-1, ::-1].transpose(1, 0, 2)
    return np.ascontiguousarray(flipped)


def rescale(pixels: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Make the picture smaller: 300 down to 90 pixels on the shorter side, or as it is where it is smaller yet."""
    factor = min(1.0, _pick(severity, 300, 224, 160, 120, 90) / _side(pixels))
    size = max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        corruption.__name__.replace("_", " "): corruption
        for corruption in (
            blur, noise, jpeg, brightness, contrast, colour_cast, shadow, dust, crop, rotation, flip, rescale
        )
    }
)  # fmt: skip


def _pick(severity: int, *values: float) -> float:
    if severity not in SEVERITIES:
        raise ValueError(f"the severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity!r}")
    return values[severity - 1]


def _side(pixels: Pixels) -> int:
    return int(min(pixels.shape[:2]))


def _grid(pixels: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows and columns from -0.5 to 0.5, float64 (h, 1) and (1, w)."""
    height, width = pixels.shape[:2]
    return ((np.arange(height) + 0.5) / height - 0.5)[:, None], ((np.arange(width) + 0.5) / width - 0.5)[None]


def _bytes(values: npt.NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
