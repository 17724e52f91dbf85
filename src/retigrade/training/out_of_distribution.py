"""Fit a bundle's out-of-distribution detector on its own features, and put it into the bundle.

    python -m retigrade.training.out_of_distribution --bundle FILE --fundus DATA... [--not-fundus FOLDER] [--every N]

The detector learns from photographs alone; its limit lets the built-in drawn eyes pass, by which everybody sees whether
an installation works; other pictures only show what it refuses. The bundle also gets the gate's
present limits. Prints how many photographs kept apart and how many other pictures are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from retigrade.arrays import Floats, Pixels
from retigrade.bundle import Bundle, reseal
from retigrade.data.cache import canonical
from retigrade.data.manifest import read_manifest
from retigrade.errors import DataError, PhotoError
from retigrade.files import replacing
from retigrade.fundus.canonical import canonical_view
from retigrade.fundus.decode import decode
from retigrade.fundus.quality import QualityLimits
from retigrade.inputs import expand
from retigrade.metadata import OutOfDistributionDetector, direction
from retigrade.synthetic import demo_eyes
from retigrade.training.negatives import hue_turned, orange, round_views, tree

_log = logging.getLogger(__name__)

_COMPONENTS = 64
_KNOWN = 0.998  # quantile of the distances of photographs kept apart, beyond which one is refused, with a margin
_MARGIN = 1.03
_LEAST = 1e-3  # standard deviation, so that what never varied in few photographs is no infinite distance
_APART = 3  # every n-th photograph is kept apart
_VIEWS, _DRAWN, _TURNED = 6, 40, 100
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Refit:
    """The bundle, fundus data sets, and a folder of other pictures; the command's arguments."""

    bundle: Path
    fundus: tuple[Path, ...]
    not_fundus: Path | None = None
    every: int = 1
    """Use only every n-th photograph."""
    output: Path | None = None
    """Where the bundle goes; without it, in its own place."""


def fit_out_of_distribution(train: Floats, apart: Floats) -> OutOfDistributionDetector:
    """Learn what features of photographs look like from some, (n, C), and set the limit by others, (m, C)."""
    directions = direction(train)
    mean = directions.mean(axis=0)
    _, singular, rows = np.linalg.svd(directions - mean, full_matrices=False)
    variances = singular**2 / len(train)
    kept = min(_COMPONENTS, len(rows) - 1, train.shape[1] - 1)
    rest = variances[kept:].sum() / (train.shape[1] - kept)
    scale = np.maximum(np.sqrt(np.append(variances[:kept], rest)), _LEAST)
    fitted = OutOfDistributionDetector.pack(mean=mean, scale=scale, components=rows[:kept], limit=1.0)
    limit = float(np.quantile(fitted.distance(apart), _KNOWN)) * _MARGIN
    return fitted.model_copy(update={"limit": max(limit, 1e-3)})


def passing(detector: OutOfDistributionDetector, features: Floats) -> OutOfDistributionDetector:
    """The detector with a limit that lets features, (n, C), pass."""
    farthest = float(detector.distance(features).max()) * _MARGIN
    return detector.model_copy(update={"limit": max(detector.limit, farthest)})


def features_of(bundle: Bundle, photos: Iterable[Pixels]) -> Floats:
    """Run a bundle on canonical photos of its input size: float32 (n, C)."""
    waiting = iter(photos)
    batches = iter(lambda: list(islice(waiting, _BATCH)), [])
    return np.concatenate([bundle.run(np.stack(batch)).features for batch in batches])


def main(arguments: Refit) -> None:
    """Fit, report, and write the bundle."""
    bundle = Bundle.load(arguments.bundle)
    size = bundle.metadata.input_size
    photos = list(_photographs(arguments, size))
    known = features_of(bundle, photos)
    apart = np.arange(len(known)) % _APART == 0
    fitted = fit_out_of_distribution(known[~apart], known[apart])
    detector = passing(fitted, features_of(bundle, drawn_eyes(size)))
    _log.info("limit %.1f by photographs, %.1f with drawn eyes", fitted.limit, detector.limit)
    _report("photographs kept apart", detector, known[apart])
    for name, pictures in _others(arguments, photos, size):
        _report(name, detector, features_of(bundle, pictures))
    before, limits = bundle.metadata.quality, QualityLimits.stated()
    if bundle.metadata.quality_head is not None:  # which goes with that score and has a limit of its own
        limits = limits.model_copy(update={"reject": before.reject, "reject_limit": before.reject_limit})
    update = {"out_of_distribution": detector, "quality": limits}
    sealed = reseal(arguments.bundle.read_bytes(), bundle.metadata.model_copy(update=update))
    with replacing(arguments.output or arguments.bundle) as part:
        part.write_bytes(sealed)


def _photographs(arguments: Refit, size: int) -> Iterator[Pixels]:
    for entry in read_manifest(list(arguments.fundus)).entries[:: arguments.every]:
        try:
            yield canonical(entry, size=size)
        except (DataError, PhotoError) as error:
            _log.warning("%s: %s", entry.name, error)


def drawn_eyes(size: int) -> Iterator[Pixels]:
    """The built-in drawn eyes as the network sees them, each uint8 (size, size, 3)."""
    return (canonical_view(eye.photo, size=size).canonical for _, eye in demo_eyes())


def _others(arguments: Refit, photos: list[Pixels], size: int) -> Iterator[tuple[str, list[Pixels]]]:
    rng = np.random.default_rng(0)
    eyes = np.stack(photos[:: max(1, len(photos) // _TURNED)])
    yield "eyes in turned hues", [hue_turned(eye, rng) for eye in eyes]
    yield "drawn fruit", [_of_size(orange(rng), size) for _ in range(_DRAWN)]
    yield "drawn trees", [_of_size(tree(rng), size) for _ in range(_DRAWN)]
    if arguments.not_fundus is not None:
        pictures = [decode(item.path).pixels for item in expand([arguments.not_fundus]).items]
        views = [view for pixels in pictures for view in round_views(pixels, eyes, rng, views=_VIEWS)]
        yield "round views of other pictures", [_of_size(view, size) for view in views]


def _of_size(pixels: Pixels, size: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _report(name: str, detector: OutOfDistributionDetector, features: Floats) -> None:
    refused = (detector.distance(features) > detector.limit).mean()
    _log.info("%6.1f %% of %d %s are refused", 100 * refused, len(features), name)


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Refit)
