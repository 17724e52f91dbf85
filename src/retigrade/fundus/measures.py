"""What a canonical picture shows, in numbers: light and colour, sharpness, vessels, the optic disc, the rim.

Vessels are dark ridges, found by the eigenvalues of the Hessian at two scales (Frangi et al., MICCAI 1998); the optic
disc is the brightest blob of its size. Haemoglobin takes green and blue light and leaves red, so the vessels' contrast
in each colour says more of an eye than the colour itself, which a camera or a filter may shift.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Floats, Pixels, Reals
from retigrade.fundus.crop import LIT, circle

Measures = npt.NDArray[np.float64]

COLOUR = (
    "red",  # red's share of the colour
    "blue",
    "red spread",  # logarithm of the deviation of red's share
    "blue spread",
    "order",  # share of pixels with red >= green >= blue, as haemoglobin has it
    "saturation",
    "grey",  # share of pixels without colour
    "red by green",  # correlation of slow changes of red with those of green
    "blue by green",
    "red vessels",  # contrast in red along vessels, over that in green
    "blue vessels",
    "red detail",  # logarithm of the vessel-sized contrast of red over that of green
    "blue detail",
)
SHAPE = (
    "retina",  # share of the square that shows retina
    "light",  # mean of the three channels, 0..1
    "glare",  # 95th percentile of light
    "shade",  # 5th percentile of light
    "burnt",  # share of pixels with a saturated channel
    "white",  # share of pixels with all channels near white
    "sharpness",  # logarithm of the finest detail over light
    "detail",  # logarithm of vessel-sized contrast
    "contrast",  # logarithm of vessel-sized contrast over light
    "skew",  # of vessel-sized contrast; vessels are dark, exudates and disc bright
    "shading",  # logarithm of slow variation over light
    "fine ridges",  # logarithm of the strong dark ridges' height over light, at the finer scale
    "coarse ridges",
    "dark ridges",  # logarithm of dark ridges' height over that of bright ones
    "narrow ridges",  # how much less they curve along than across, 0..1
    "long ridges",  # share of ridge pixels in connected pieces longer than a third of the disc
    "ridges",  # share of pixels that are ridges
    "clear ridges",  # logarithm of the ridges' height over the noise
    "noise",  # logarithm of the finest detail's median over light
    "edges",  # logarithm of the strongest gradients over the median one
    "blob",  # the brightest blob of the optic disc's size, in deviations
    "blob again",  # the next such blob over the first
    "blob's place",  # its distance from the centre, in radii
    "blob's ridges",  # logarithm of the ridges about it over those elsewhere
    "rim",  # logarithm of light at the rim over that in the middle
    "roundness",  # correlation of slow variation with the squared distance from the centre
    "coarse",  # logarithm of coarse over vessel-sized variation
)
MEASURES = (*COLOUR, *SHAPE)

SIDE = 112
_FULL_SIDE = 224  # at which the finest detail is measured
_ROUND = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
_FEWEST = 200  # pixels of retina below which nothing can be measured
_RIDGE = 0.02  # of the light: how high a dark ridge is a vessel's
_LONG = SIDE / 3
_FINE, _COARSE = 1.0, 2.0  # deviations of the blurs before the ridges are looked for, in pixels of SIDE
_BLOB, _AROUND = 4.0, 9.0  # deviations of the blurs whose difference shows the optic disc


def measure(canonical: Pixels) -> Measures | None:
    """Measure a canonical photo, uint8 (S, S, 3): float64 as `MEASURES` names them, or None where nothing is lit."""
    if len(canonical) > _FULL_SIDE:
        canonical = np.asarray(cv2.resize(canonical, (_FULL_SIDE, _FULL_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    small = cv2.resize(canonical, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    planes = cv2.split(small)  # plane by plane is ten times as fast as the last axis
    brightest = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    lit = ((brightest > LIT) & circle(SIDE)).astype(np.uint8)
    inner = cv2.erode(lit, _ROUND, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)
    if np.count_nonzero(inner) < _FEWEST:
        return None
    red, green, blue = (np.asarray(plane, np.float32) / np.float32(255) for plane in planes)
    light = (red + green + blue) / np.float32(3)
    mean = float(light[inner].mean())
    slow = [np.asarray(cv2.blur(cv2.blur(plane, (9, 9)), (9, 9)), np.float32) for plane in (red, green, blue)]
    vessels = [(plane - even)[inner] for plane, even in zip((red, green, blue), slow, strict=True)]
    ridges = _Ridges(green, inner)
    colours = _colours(red[inner], green[inner], blue[inner], [even[inner] for even in slow])
    tints = _vessel_colours(vessels, slow, inner, ridges.mask)
    shapes = _light(lit, light[inner], red[inner], green[inner], blue[inner])
    sharp = _sharpness(cv2.extractChannel(canonical, 1), inner, mean)
    details = _details(vessels[1], slow[1][inner], float(green[inner].mean()))
    edges = _edges(green, inner)
    return np.array(
        [
            *colours,
            *tints,
            *shapes,
            sharp,
            *details,
            *ridges.measures(),
            edges,
            *_disc(green, light, inner, ridges),
        ],
        dtype=np.float64,
    )


def _log(value: float) -> float:
    return float(np.log(max(value, 0.0) + 1e-3))


def _ratio(above: float, below: float) -> float:
    return float(np.log((max(above, 0.0) + 1e-4) / (max(below, 0.0) + 1e-4)))


def _correlation(first: Reals, second: Reals) -> float:
    one, other = first - first.mean(), second - second.mean()
    return float((one @ other) / (np.sqrt((one @ one) * (other @ other)) + 1e-6))


def _colours(red: Floats, green: Floats, blue: Floats, slow: list[Floats]) -> tuple[float, ...]:
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    whole = red + green + blue + 1e-3
    red_share, blue_share, chroma = red / whole, blue / whole, highest - lowest
    return (
        float(red_share.mean()),
        float(blue_share.mean()),
        _log(float(red_share.std())),
        _log(float(blue_share.std())),
        float(((red >= green) & (green >= blue - 0.02)).mean()),
        float((chroma / (highest + 1e-3)).mean()),
        float((chroma < 0.03).mean()),
        _correlation(slow[0], slow[1]),
        _correlation(slow[2], slow[1]),
    )


def _vessel_colours(vessels: list[Floats], slow: list[Floats], inner: Flags, ridge: Flags) -> tuple[float, ...]:
    """Contrast along vessels and of all details, of red and blue over that of green, each over its own light."""
    along = ridge[inner]
    depth, detail = [], []
    for high, even in zip(vessels, slow, strict=True):
        level = float(even[inner].mean()) + 0.02
        depth.append(float(-high[along].mean()) / level if along.any() else 0.0)
        detail.append(float(high.std()) / level)
    green = max(depth[1], 0.005)
    return (
        float(np.clip(depth[0] / green, -3, 3)),
        float(np.clip(depth[2] / green, -3, 3)),
        _ratio(detail[0], detail[1]),
        _ratio(detail[2], detail[1]),
    )


def _light(lit: npt.NDArray[Any], light: Floats, red: Floats, green: Floats, blue: Floats) -> tuple[float, ...]:
    shade, glare = _quantiles(light, 0.05, 0.95)
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return (
        float(lit.mean()),
        float(light.mean()),
        float(glare),
        float(shade),
        float((highest > 0.97).mean()),
        float((lowest > 0.9).mean()),
    )


def _sharpness(full: npt.NDArray[Any], inner: Flags, mean: float) -> float:
    # In floating point: a blurred photograph's detail is finer than the steps of a byte.
    fine = cv2.Laplacian(cv2.GaussianBlur(full.astype(np.float32), (5, 5), 1.0), cv2.CV_32F, ksize=1)
    within = cv2.resize(inner.astype(np.uint8), fine.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return _log(cv2.norm(fine, cv2.NORM_L1, within) / (255 * max(cv2.countNonZero(within), 1)) / (mean + 0.02))


def _details(vessels: Floats, slow: Floats, green: float) -> tuple[float, ...]:
    off = vessels - vessels.mean()
    spread = float(off.std())
    return (
        _log(spread),
        _log(spread / (green + 0.02)),
        float((off * off * off).mean()) / (spread**3 + 1e-9),
        _log(float(slow.std()) / (green + 0.02)),
    )


class _Ridges:
    """Dark and bright ridges of a plane, float32 (SIDE, SIDE), within `inner`; mask: where dark ones are vessels."""

    def __init__(self, plane: Floats, inner: Flags) -> None:
        self.inner = inner
        fine, along, bright = _curvature(plane, _FINE)
        coarse, _, _ = _curvature(plane, _COARSE)
        level = np.maximum(cv2.blur(plane, (15, 15)), 0.02)
        self.fine, self.coarse = fine / level, coarse / level
        self._bright = _quantiles((bright / level)[inner], 0.95)[0]
        height = np.maximum(self.fine, 2 * self.coarse)
        self.height = np.asarray(np.where(inner, height, 0), np.float32)
        values = self.height[inner]
        self.mask: Flags = np.asarray(self.height > max(_quantiles(values, 0.9)[0], _RIDGE))
        across = fine[self.mask]
        self._narrow = float(1 - (np.abs(along[self.mask]) / (across + 1e-6)).clip(0, 1).mean()) if across.size else 0.0

    def measures(self) -> tuple[float, ...]:
        inner = self.inner
        (fine,), (coarse,) = (_quantiles(values[inner], 0.95) for values in (self.fine, self.coarse))
        (noise,) = _quantiles(np.abs(self.fine[inner]), 0.5)
        _, _, stats, _ = cv2.connectedComponentsWithStats(self.mask.astype(np.uint8), connectivity=8)
        extent = np.hypot(stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT])
        area = stats[1:, cv2.CC_STAT_AREA]
        long = float(area[extent > _LONG].sum() / max(area.sum(), 1))
        return (
            _log(fine),
            _log(coarse),
            _ratio(fine, self._bright),
            self._narrow,
            long,
            float(self.mask.sum() / inner.sum()),
            _ratio(fine, noise),
            _log(noise),
        )


def _curvature(plane: Floats, deviation: float) -> tuple[Floats, Floats, Floats]:
    """The Hessian's larger eigenvalue, its smaller, and the smaller one's negative: dark, along, bright ridges."""
    smooth = cv2.GaussianBlur(plane, (0, 0), deviation)
    xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=scale) for order, scale in _HESSIAN)
    half, apart = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return np.asarray(half + apart), np.asarray(half - apart), np.asarray(apart - half)


_HESSIAN = (((2, 0), 0.25), ((0, 2), 0.25), ((1, 1), 0.25))


def _edges(green: Floats, inner: Flags) -> float:
    across, down = (cv2.Sobel(green, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1)))
    middle, strong = _quantiles(np.asarray(cv2.magnitude(across, down)[inner], np.float32), 0.5, 0.99)
    return _ratio(strong, middle)


def _disc(green: Floats, light: Floats, inner: Flags, ridges: _Ridges) -> tuple[float, ...]:
    """The brightest blob of the optic disc's size, the rim, and how slow variation goes with the radius."""
    weight = inner.astype(np.float32)
    narrow, wide = (_smooth(light, weight, deviation) for deviation in (_BLOB, _AROUND))
    blobs = np.where(inner, narrow - wide, -1)
    deviation = float((light - wide)[inner].std()) + 1e-4
    row, column = np.unravel_index(int(blobs.argmax()), blobs.shape)
    first = float(blobs[row, column])
    rows, columns = _axes()
    near = (rows - row) ** 2 + (columns - column) ** 2 < (1.6 * _AROUND) ** 2
    again = float(np.where(near, -1, blobs).max())
    around, elsewhere = inner & near, inner & ~near
    middle = (SIDE - 1) / 2
    distance = np.sqrt((rows - middle) ** 2 + (columns - middle) ** 2) / (SIDE / 2)
    rim, centre = inner & (distance > 0.8), inner & (distance < 0.5)
    level, away = wide[inner], distance[inner]
    explained = _correlation(level, away * away)
    return (
        first / deviation,
        float(np.clip(again / max(first, 1e-4), -1, 1)),
        float(np.hypot(row - middle, column - middle) / (SIDE / 2)),
        _ratio(_mean(ridges.height[around]), _mean(ridges.height[elsewhere])),
        _ratio(_mean(light[rim]), _mean(light[centre])),
        explained,
        _ratio(float(narrow[inner].std()), float((light - narrow)[inner].std())),
    )


def _quantiles(values: Reals, *shares: float) -> list[float]:
    """Of every third value: the measures need no more."""
    few = np.sort(values[::3])
    return [float(few[int(share * (len(few) - 1))]) for share in shares]


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


@lru_cache(maxsize=1)
def _axes() -> tuple[Floats, Floats]:
    axis = np.arange(SIDE, dtype=np.float32)
    return axis[:, None], axis[None]


def _smooth(values: Floats, weight: Floats, deviation: float) -> Floats:
    """Gaussian mean of the values that count."""
    share = np.maximum(cv2.GaussianBlur(weight, (0, 0), deviation), 0.05)
    return np.asarray(cv2.GaussianBlur(values * weight, (0, 0), deviation) / share, np.float32)
