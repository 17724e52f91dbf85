"""The gate: is this the back of an eye, and can anything be read from it?

Plain limits on light, sharpness, colour and visible retina give the reasons a person can act on. A quadratic logistic
score over the same measurements tells retina from everything else that is round, orange or both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from retigrade.arrays import Pixels
from retigrade.fundus.crop import LIT, circle
from retigrade.fundus.field import Field as Disc
from retigrade.icdr import Status

Measures = npt.NDArray[np.float64]

MEASURES = (
    "retina",  # share of the square that shows retina
    "light",  # mean of the three channels, 0..1
    "glare",  # 95th percentile of light
    "shade",  # 5th percentile of light
    "burnt",  # share of pixels with a saturated channel
    "white",  # share of pixels with all channels near white
    "red",  # red's share of the colour
    "blue",
    "red spread",  # logarithm of the deviation of red's share
    "blue spread",
    "order",  # share of pixels with red >= green >= blue, as haemoglobin has it
    "saturation",
    "grey",  # share of pixels without colour
    "sharpness",  # logarithm of the finest detail over light
    "detail",  # logarithm of vessel-sized contrast
    "contrast",  # logarithm of vessel-sized contrast over light
    "skew",  # of vessel-sized contrast; vessels are dark, exudates and disc bright
    "shading",  # logarithm of slow variation over light
)
_SIDE = 112
_FULL_SIDE = 224  # at which the finest detail is measured, and the score was fitted
_ROUND = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
_FEWEST = 200  # pixels of retina below which nothing can be measured


@cache
def _fitted() -> dict[str, Any]:
    """The score fitted by `retigrade.training.gate`."""
    fitted = json.loads(resources.files("retigrade.fundus").joinpath("gate.json").read_text("utf-8"))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fitted.items()}


@dataclass(frozen=True, slots=True)
class Quality:
    """What the gate found: a score from 0 (useless) to 1 (clear), the verdict, and reasons in words."""

    score: float
    status: Status
    reasons: tuple[str, ...] = ()


class QualityLimits(BaseModel):
    """The limits of the gate; each measure is one of `MEASURES`.

    centre, spread, weights, offset: the score of being a retina is offset + weights . [z, z^2] with
    z = (measures - centre) / spread, clipped to -6..6. fundus: the score that a photo needs; fundus_filled: the one it
    needs where no disc was seen, because the retina would fill the frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    retina: float = 0.25
    dark: float = 0.07
    bright: float = 0.85
    white: float = 0.35
    blurred: float = -5.3
    grey: float = 0.93
    red: float = 0.315
    fundus: float = 1.0
    fundus_filled: float = 2.5
    hopeless: float = -4.0
    centre: tuple[float, ...] = Field(default_factory=lambda: _fitted()["centre"])
    spread: tuple[float, ...] = Field(default_factory=lambda: _fitted()["spread"])
    weights: tuple[float, ...] = Field(default_factory=lambda: _fitted()["weights"])
    offset: float = Field(default_factory=lambda: _fitted()["offset"])

    def score(self, measures: Measures) -> Measures:
        """How much these measures look like a retina, as a logarithm of odds: (..., 18) -> (...)."""
        z = np.clip((measures - np.array(self.centre)) / np.array(self.spread), -6, 6)
        return np.asarray(self.offset + np.concatenate([z, z**2], axis=-1) @ np.array(self.weights))


def assess(canonical: Pixels, disc: Disc, limits: QualityLimits) -> Quality:
    """Judge a canonical photo, uint8 (S, S, 3).

    The verdict is graded (it may be), ungradable or not_fundus, with reasons in words for the latter two, and with a
    note for the first where the disc has one.
    """
    measures = measure(canonical)
    if measures is None:
        return Quality(0.0, Status.UNGRADABLE, ("too little retina is lit to be read",))
    named = dict(zip(MEASURES, measures, strict=True))
    score = float(limits.score(measures))
    needed = limits.fundus_filled if disc.filled else limits.fundus
    quality = float(1 / (1 + np.exp(-(score - needed) / 2)))
    blurred = named["sharpness"] < limits.blurred
    # The score was fitted to what is sharp, so it has no say in what is not.
    unlike = score < limits.hopeless and not blurred
    if unlike or (named["red"] < limits.red and named["grey"] < limits.grey):
        return Quality(quality, Status.NOT_FUNDUS, ("does not look like the back of an eye",))
    complaints = (
        (
            named["retina"] < limits.retina,
            f"too little retina: {named['retina']:.0%} of the picture, need {limits.retina:.0%}",
        ),
        (named["light"] < limits.dark, f"too dark: mean light {named['light']:.2f}, need {limits.dark:.2f}"),
        (
            named["light"] > limits.bright or named["white"] > limits.white,
            f"too bright: {named['white']:.0%} of the retina is white",
        ),
        (named["grey"] > limits.grey, "no colour: a colour photograph is needed"),
        (blurred, "blurred: no vessel can be told from its surroundings"),
    )
    if reasons := tuple(reason for found, reason in complaints if found):
        return Quality(quality, Status.UNGRADABLE, reasons)
    if score < needed:
        return Quality(quality, Status.NOT_FUNDUS, ("does not look like the back of an eye",))
    return Quality(quality, Status.GRADED, () if disc.note is None else (disc.note,))


def measure(canonical: Pixels) -> Measures | None:
    """Measure a canonical photo, uint8 (S, S, 3): float64 (18,) as `MEASURES`, or None where nothing is lit."""
    if len(canonical) > _FULL_SIDE:
        canonical = np.asarray(cv2.resize(canonical, (_FULL_SIDE, _FULL_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    small = cv2.resize(canonical, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    planes = [small[..., channel] for channel in range(3)]  # plane by plane is ten times as fast as the last axis
    brightest = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    lit = ((brightest > LIT) & circle(_SIDE)).astype(np.uint8)
    inner = cv2.erode(lit, _ROUND, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)
    if np.count_nonzero(inner) < _FEWEST:
        return None
    red, green, blue = (plane[inner].astype(np.float32) / 255 for plane in planes)
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    whole = red + green + blue
    light, red_share, blue_share = whole / 3, red / (whole + 1e-3), blue / (whole + 1e-3)
    chroma = highest - lowest
    mean = float(light.mean())
    vessels, slow, sharp = _contrast(planes[1], cv2.extractChannel(canonical, 1), inner)
    off = vessels - vessels.mean()
    spread = float(off.std())
    skew = float((off * off * off).mean()) / (spread**3 + 1e-9)
    shade, glare = np.percentile(light, (5, 95))
    return np.array(
        [
            lit.mean(),
            mean,
            glare,
            shade,
            (highest > 0.97).mean(),
            (lowest > 0.9).mean(),
            red_share.mean(),
            blue_share.mean(),
            np.log(red_share.std() + 1e-3),
            np.log(blue_share.std() + 1e-3),
            ((red >= green) & (green >= blue - 0.02)).mean(),
            (chroma / (highest + 1e-3)).mean(),
            (chroma < 0.03).mean(),
            np.log(sharp / (mean + 0.02) + 1e-3),
            np.log(spread + 1e-3),
            np.log(spread / (green.mean() + 0.02) + 1e-3),
            skew,
            np.log(slow.std() / (green.mean() + 0.02) + 1e-3),
        ],
        dtype=np.float64,
    )


def _contrast(
    green: npt.NDArray[Any], full: npt.NDArray[Any], inner: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Vessel-sized and slow contrast of the green channel within `inner`, and its mean finest detail."""
    light = green.astype(np.float32) / 255
    slow = cv2.blur(cv2.blur(light, (9, 9)), (9, 9))
    # In floating point: a blurred photograph's detail is finer than the steps of a byte.
    fine = cv2.Laplacian(cv2.GaussianBlur(full.astype(np.float32), (5, 5), 1.0), cv2.CV_32F, ksize=1)
    within = cv2.resize(inner.astype(np.uint8), fine.shape[::-1], interpolation=cv2.INTER_NEAREST)
    sharp = cv2.norm(fine, cv2.NORM_L1, within) / (255 * max(cv2.countNonZero(within), 1))
    return np.asarray((light - slow)[inner], np.float32), np.asarray(slow[inner], np.float32), sharp
