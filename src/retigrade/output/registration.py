"""Lay one photograph of an eye over another, by the crossings of its vessels; refuse where the fit is poor.

Landmarks are SIFT features (Lowe, IJCV 60, 2004) of the green channel with its contrast made even; a similarity
(turn, shift, scale) is chosen by RANSAC (Fischler and Bolles, 1981) and must then make the vessels coincide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Pixels, Reals
from retigrade.fundus.field import lit

SIDE = 512
"""Pixels that the shorter side of each photograph is brought to before landmarks are looked for."""

_RATIO = 0.8  # of the best to the second-best match, above which a match is ambiguous (Lowe 2004)
_TOLERANCE = 4.0  # pixels at SIDE by which a landmark may lie off
_FEWEST = 12  # landmarks that agree
_LARGEST_SCALE = 1.6
_LEAST_LIKENESS = 0.35  # correlation of the vessels once laid over each other; two different eyes stay below 0.2
_FINE, _SLOW = 1.5, 8.0  # standard deviations, in pixels at SIDE, between which the vessels lie


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How one photograph lies on another.

    matrix: float64 (2, 3), from pixels of the moving photograph to pixels of the fixed one. landmarks: how many agree.
    likeness: correlation of the vessels where both show retina, at most 1.
    """

    matrix: Reals
    landmarks: int
    likeness: float

    def align(self, moving: Pixels, *, width: int, height: int) -> Pixels:
        """Return the moving photograph, uint8 (h, w, 3), on the fixed one's frame: uint8 (height, width, 3)."""
        return np.asarray(cv2.warpAffine(moving, self.matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def register(moving: Pixels, fixed: Pixels) -> Registration | None:
    """Return how `moving` lies on `fixed`, both uint8 (h, w, 3) RGB; None where no fit is good enough."""
    small_moving, small_fixed = _small(moving), _small(fixed)
    scale_moving, scale_fixed = len(small_moving) / len(moving), len(small_fixed) / len(fixed)
    even_moving, even_fixed = _even(small_moving), _even(small_fixed)
    from_, to = _matches(even_moving, even_fixed)
    if len(from_) < _FEWEST:
        return None
    matrix, agreeing = cv2.estimateAffinePartial2D(
        from_, to, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE, maxIters=5000, confidence=0.999
    )
    landmarks = 0 if agreeing is None else int(agreeing.sum())
    if matrix is None or landmarks < _FEWEST:
        return None
    similarity = np.asarray(matrix, np.float64)
    scale = float(np.hypot(similarity[0, 0], similarity[1, 0]))
    if not 1 / _LARGEST_SCALE < scale < _LARGEST_SCALE:
        return None
    likeness = _likeness(small_moving, small_fixed, similarity)
    if likeness < _LEAST_LIKENESS:
        return None
    full = similarity.copy()
    full[:, :2] *= scale_moving
    return Registration(full / scale_fixed, landmarks, likeness)


def _small(pixels: Pixels) -> Pixels:
    scale = SIDE / min(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8
    )


def _even(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return the green channel with even contrast, uint8 (h, w)."""
    equalise = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8))
    return np.asarray(equalise.apply(np.ascontiguousarray(pixels[..., 1])), np.uint8)


def _matches(moving: npt.NDArray[np.uint8], fixed: npt.NDArray[np.uint8]) -> tuple[Reals, Reals]:
    """Return landmarks that match without ambiguity: float32 (n, 2) in the moving and in the fixed photograph."""
    detector = cv2.SIFT.create(nfeatures=1500, contrastThreshold=0.02)
    points, descriptors = zip(*(detector.detectAndCompute(picture, None) for picture in (moving, fixed)), strict=True)
    if any(found is None or len(found) < 2 for found in descriptors):
        return np.empty((0, 2)), np.empty((0, 2))
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors[0], descriptors[1], k=2)
    clear = [best for best, second in pairs if best.distance < _RATIO * second.distance]
    return (
        np.array([points[0][match.queryIdx].pt for match in clear], np.float32).reshape(-1, 2),
        np.array([points[1][match.trainIdx].pt for match in clear], np.float32).reshape(-1, 2),
    )


def _likeness(moving: Pixels, fixed: Pixels, matrix: Reals) -> float:
    """Return the correlation of the vessels of both, where both show retina and a little within."""
    size = fixed.shape[1::-1]
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (31, 31))
    inside = [cv2.erode(lit(picture).astype(np.uint8), margin) for picture in (moving, fixed)]
    common = (cv2.warpAffine(inside[0], matrix, size) > 0) & (inside[1] > 0)
    if np.count_nonzero(common) < common.size // 10:
        return 0.0
    first = _vessels(np.asarray(cv2.warpAffine(moving, matrix, size), np.uint8))[common]
    second = _vessels(fixed)[common]
    return float(np.corrcoef(first, second)[0, 1])


def _vessels(pixels: Pixels) -> Reals:
    green = pixels[..., 1].astype(np.float32)
    band = cv2.GaussianBlur(green, (0, 0), _FINE) - cv2.GaussianBlur(green, (0, 0), _SLOW)
    spread = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 3 * _SLOW))
    return np.asarray(np.clip(band / (spread + 1), -2.5, 2.5))
