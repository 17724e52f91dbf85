"""Fit the gate's score: fundus photographs against pictures of anything else.

    python -m retigrade.training.gate --fundus DATA... --not-fundus FOLDER

writes the fitted numbers to `retigrade/fundus/gate.json` and prints, out of fold, what the score keeps and refuses.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Pixels
from retigrade.data.cache import canonical
from retigrade.data.manifest import read_manifest
from retigrade.errors import PhotoError
from retigrade.fundus.crop import circle
from retigrade.fundus.decode import decode
from retigrade.fundus.quality import Measures, QualityLimits, measure
from retigrade.inputs import expand

_log = logging.getLogger(__name__)

_SIZE = 224
_VIEWS = 16  # of each picture that is no fundus
_FOLDS = 5
_ORANGE = np.array([200.0, 110.0, 40.0])


@dataclass(frozen=True, slots=True)
class Gate:
    """Fundus data sets and the folder of other pictures; the command's arguments."""

    fundus: tuple[Path, ...]
    not_fundus: Path
    output: Path = Path(__file__).parents[1] / "fundus" / "gate.json"


def strange_views(pixels: Pixels, rng: np.random.Generator) -> Iterator[Pixels]:
    """Cut discs from a picture that is no fundus, some blurred, tinted or toned like one: uint8 (S, S, 3) each."""
    height, width = pixels.shape[:2]
    for view in range(_VIEWS):
        side = int(max(40, min(height, width) * (rng.uniform(0.35, 1) if view else 1)))
        top, left = (int(rng.integers(max(1, length - side + 1))) for length in (height, width))
        crop = pixels[top : top + side, left : left + side]
        disc: Measures = cv2.resize(crop, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA).astype(np.float64)
        if view % 3 == 1:
            disc = disc * np.array([1.1, rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.6)])
        if view % 7 == 2:
            disc = cv2.GaussianBlur(disc, (0, 0), rng.uniform(1, 3)).astype(np.float64)
        if view % 5 == 3:
            disc = disc.mean(axis=2, keepdims=True) / 128 * _ORANGE * rng.uniform(0.5, 1.1)
        strange = np.clip(disc, 0, 255).astype(np.uint8)
        strange[~circle(_SIZE)] = 0
        if view % 2:  # half are cut off as fundus photographs are, so that the frame does not tell them apart
            cut = int(rng.uniform(0, 0.14) * _SIZE)
            strange[:cut] = 0
            strange[_SIZE - cut :] = 0
        yield strange


def fit(own: Measures, strange: Measures) -> QualityLimits:
    """Fit the score to measures of fundus photographs (n, 18) and of other pictures (m, 18)."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    centre, spread = own.mean(axis=0), own.std(axis=0) + 1e-6
    z = np.clip((np.concatenate([own, strange]) - centre) / spread, -6, 6)
    kinds = np.repeat([1, 0], [len(own), len(strange)])
    model = LogisticRegression(C=0.3, max_iter=5000).fit(np.concatenate([z, z**2], axis=1), kinds)
    return QualityLimits(
        centre=_plain(centre), spread=_plain(spread), weights=_plain(model.coef_[0]), offset=float(model.intercept_[0])
    )


def out_of_fold(own: Measures, strange: Measures, pictures: npt.NDArray[np.int64]) -> tuple[Measures, Measures]:
    """Score every photograph by a fit that saw neither it nor another view of the same picture."""
    scores, strange_scores = np.empty(len(own)), np.empty(len(strange))
    fold = np.arange(len(own)) % _FOLDS
    for held in range(_FOLDS):
        limits = fit(own[fold != held], strange[pictures % _FOLDS != held])
        scores[fold == held] = limits.score(own[fold == held])
        strange_scores[pictures % _FOLDS == held] = limits.score(strange[pictures % _FOLDS == held])
    return scores, strange_scores


def main(arguments: Gate) -> None:
    """Fit, report out of fold, and write the numbers."""
    manifest = read_manifest(list(arguments.fundus))
    own = np.array(
        [found for entry in manifest.entries if (found := measure(canonical(entry, size=_SIZE))) is not None]
    )
    strange, pictures = _measure_strange([item.path for item in expand([arguments.not_fundus]).items])
    scores, strange_scores = out_of_fold(own, strange, pictures)
    for needed in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
        _log.info(
            "score >= %.1f keeps %.2f %% of %d fundus photographs and %.2f %% of %d views of other pictures",
            needed, 100 * (scores >= needed).mean(), len(own), 100 * (strange_scores >= needed).mean(), len(strange),
        )  # fmt: skip
    limits = fit(own, strange)
    fitted = limits.model_dump(include={"centre", "spread", "weights", "offset"})
    part = arguments.output.with_suffix(".tmp")
    part.write_text(json.dumps(fitted, indent=1) + "\n", "utf-8")
    part.replace(arguments.output)


def _measure_strange(paths: Sequence[Path]) -> tuple[Measures, npt.NDArray[np.int64]]:
    measures, pictures = [], []
    for number, path in enumerate(paths):
        try:
            pixels = decode(path).pixels
        except PhotoError as error:
            _log.warning("%s", error)
            continue
        for disc in strange_views(pixels, np.random.default_rng(number)):
            if (found := measure(disc)) is not None:
                measures.append(found)
                pictures.append(number)
    return np.array(measures), np.array(pictures, dtype=np.int64)


def _plain(values: Measures) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


if __name__ == "__main__":
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(tyro.cli(Gate))
