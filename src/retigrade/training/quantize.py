"""A bundle in eight bits, checked against the one it came from and refused where it is worse."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retigrade.arrays import Flags, Integers, Pixels
from retigrade.bundle import Bundle, reseal, strip
from retigrade.data.cache import canonical
from retigrade.data.manifest import Entry, Manifest, read_manifest
from retigrade.data.splits import TEST, TRAIN, VALIDATION, Splits, check_unseen, narrow, read_splits
from retigrade.errors import BundleError, DataError, PhotoError, UsageError, needs_extra
from retigrade.evaluation.measure import measure
from retigrade.evaluation.predictions import Graded, LabelledSet, Predictions, predict_labelled
from retigrade.files import write_whole
from retigrade.grader import Grader
from retigrade.metadata import Metadata
from retigrade.metrics.classification import quadratic_kappa, referral_score, threshold_for_sensitivity
from retigrade.metrics.conformal import Conformal, conformal_quantile
from retigrade.metrics.decision import OperatingPoint
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.registry import at_operating_point
from retigrade.training.calibrate import equal_sources
from retigrade.training.int8 import to_int8

LOST_KAPPA = 0.005
"""What quadratic weighted kappa may lose on validation photographs."""
LOST_RATE = 0.01
"""What sensitivity or specificity of an operating point may lose there."""
FEWEST = 50
"""Validation photographs below which nothing can be said."""
_CALIBRATION = 200  # photographs that the ranges of activations are read from
_FEWEST_CALIBRATION = 16
_STEP = 1e-6
_TYPICAL = 0.99  # quantile of the distances of known photographs, by which the detector's limit is scaled
_ROUNDS = 30  # of each network, in turn, for the ratio of their speeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An operating point before and after: threshold, sensitivity and specificity on the same photographs."""

    name: str
    threshold: tuple[float, float]
    sensitivity: tuple[float, float]
    specificity: tuple[float, float]

    @property
    def moved(self) -> bool:
        """Whether it lost more than `LOST_RATE`."""
        return any(after < before - LOST_RATE for before, after in (self.sensitivity, self.specificity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """What became of a bundle; pairs are before and after, on the same validation photographs.

    photographs: those graded by both. bytes: of the files. milliseconds: medians of one inference on one core, the two
    in turn. agreement: the share of photographs with the same grade. measured: whether the new bundle has figures.
    """

    photographs: int
    bytes: tuple[int, int]
    milliseconds: tuple[float, float]
    kappa: tuple[float, float]
    agreement: float
    graded: tuple[int, int]
    points: tuple[Point, ...]
    measured: bool

    @property
    def speedup(self) -> float:
        """How many times as fast."""
        return self.milliseconds[0] / self.milliseconds[1]

    @property
    def complaints(self) -> tuple[str, ...]:
        """Why it must not be used in the place of the other."""
        found = []
        before, after = self.kappa
        if not after >= before - LOST_KAPPA:
            found.append(f"quadratic weighted kappa falls from {before:.3f} to {after:.3f}, {LOST_KAPPA} is allowed")
        for point in self.points:
            if point.moved:
                rates = zip(point.sensitivity, point.specificity, strict=True)
                one, other = (f"{caught:.3f} and specificity {spared:.3f}" for caught, spared in rates)
                found.append(f"the operating point {point.name} moves from sensitivity {one} to {other}")
        if self.graded[1] < (1 - LOST_RATE) * self.graded[0]:
            found.append(f"{self.graded[0]} photographs had a grade and {self.graded[1]} have one")
        return tuple(found)


def quantize(
    bundle: Path | str,
    data: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    splits: Path | str | None = None,
    skip_unreadable: bool = False,
    jobs: int = 1,
) -> Quantized:
    """Write a bundle in eight bits, unless it is worse than the one it came from.

    data: labelled folders or CSV files. splits: a split of them; its part train calibrates, validation compares, and
    test, if there is one, gives the new bundle its figures. Without it, the photographs that the bundle learned from
    calibrate and all others compare. skip_unreadable: leave out photographs that cannot be read. jobs: photographs at
    work at once.

    Raises BundleError where the bundle cannot be used, or the new one loses more than `LOST_KAPPA` or moves an
    operating point: then nothing is written. DataError where the photographs cannot be used or are too few, UsageError
    where the extra `train` is not installed.
    """
    with needs_extra("train"):
        import onnx  # noqa: F401 - what is missing must not wait for the gradings
    path = Path(bundle)
    before = Bundle.load(path, threads=1)
    file = path.read_bytes()
    manifest = read_manifest(data, skip_unreadable=skip_unreadable)
    split = None
    if splits is not None:
        manifest = narrow(manifest, Path(splits))
        split = read_splits(Path(splits), manifest)
    learned, compared = _parts(manifest, split, before.metadata)
    pictures = _pictures(learned, size=before.metadata.input_size)
    model = to_int8(strip(file), pictures)
    metadata = _named(_with_detector(before, model, pictures))
    after = _sealed(model, metadata)
    one, other = (predict_labelled(Grader(each), compared, jobs=jobs) for each in (before, after))
    metadata, points = _recalibrated(before.metadata, metadata, one, other)
    after = _sealed(model, metadata)
    other = predict_labelled(Grader(after), compared, jobs=jobs)
    points = tuple(_again(point, one, other) for point in points)
    test = None if split is None or TEST not in split.names else LabelledSet.of(manifest, split, part=TEST)
    if test is not None:
        grader = Grader(after)
        result = measure(predict_labelled(grader, test, jobs=jobs), grader, manifest=manifest, part=TEST)
        metadata = metadata.model_copy(update={"figures": result.stored_figures()})
    sealed = reseal(model, metadata)
    first, second = _in_common(one, other)
    quantized = Quantized(
        photographs=len(first),
        bytes=(len(file), len(sealed)),
        milliseconds=_milliseconds(before, after, pictures),
        kappa=(_kappa(first), _kappa(second)),
        agreement=float((first.sample.predicted == second.sample.predicted).mean()),
        graded=(len(one.graded), len(other.graded)),
        points=points,
        measured=test is not None,
    )
    if quantized.complaints:
        why = "; ".join(quantized.complaints)
        raise BundleError(
            f"{before.identity} in eight bits, {quantized.bytes[1] / 1e6:.1f} MB and {quantized.speedup:.2f} times as "
            f"fast, is worse: {why}; nothing is written"
        )
    write_whole(Path(out), sealed)
    return quantized


def _parts(manifest: Manifest, split: Splits | None, metadata: Metadata) -> tuple[list[Entry], LabelledSet]:
    """The photographs that calibrate, and those that compare."""
    if split is not None:
        if missing := {TRAIN, VALIDATION} - set(split.names):
            raise UsageError(f"the split has no part {', '.join(sorted(missing))}; it has {', '.join(split.names)}")
        learned = [manifest.entries[index] for index in split.part(TRAIN)]
        compared = LabelledSet.of(manifest, split, part=VALIDATION)
        check_unseen(manifest, split, [part for part in (VALIDATION, TEST) if part in split.names], metadata.training)
    else:
        known = [metadata.training.has_seen(entry.sha256) for entry in manifest.entries]
        learned = [entry for entry, is_known in zip(manifest.entries, known, strict=True) if is_known]
        whole, others = LabelledSet.of(manifest), np.flatnonzero(~np.array(known, bool))
        compared = LabelledSet(tuple(whole.entries[index] for index in others), whole.groups[others])
    if len(learned) < _FEWEST_CALIBRATION or len(compared.entries) < FEWEST:
        raise DataError(
            f"{len(learned)} photographs that the bundle learned from and {len(compared.entries)} others: "
            f"{_FEWEST_CALIBRATION} are needed to calibrate and {FEWEST} to compare; name the photographs that it "
            "learned from and its validation photographs, or a split of them with --splits"
        )
    return learned, compared


def _pictures(entries: Sequence[Entry], *, size: int) -> Pixels:
    """Canonical pictures of up to `_CALIBRATION` of the photographs, evenly spread: uint8 (n, S, S, 3)."""
    chosen = np.unique(np.linspace(0, len(entries) - 1, _CALIBRATION).astype(int))
    pictures = []
    for index in chosen.tolist():
        try:
            pictures.append(canonical(entries[index], size=size))
        except PhotoError:  # the bundle does not see it either
            continue
    if len(pictures) < _FEWEST_CALIBRATION:
        raise DataError(f"{len(pictures)} photographs to calibrate on can be read, {_FEWEST_CALIBRATION} are needed")
    return np.stack(pictures)


def _sealed(model: bytes, metadata: Metadata) -> Bundle:
    return Bundle.from_bytes(reseal(model, metadata), threads=1)


def _named(metadata: Metadata) -> Metadata:
    return metadata.model_copy(
        update={
            "name": f"{metadata.name}-int8",
            "figures": (),
            "limits": f"{metadata.limits} Weights and activations are in eight bits.",
        }
    )


def _with_detector(before: Bundle, model: bytes, pictures: Pixels) -> Metadata:
    """The metadata, with the detector's limit scaled by what eight bits do to the distances of known photographs."""
    metadata, detector = before.metadata, before.metadata.out_of_distribution
    if detector is None:
        return metadata
    typical = []
    for bundle in (before, _sealed(model, metadata)):
        features = np.concatenate([bundle.run(picture[None]).features for picture in pictures])
        typical.append(float(np.quantile(detector.distance(features), _TYPICAL)))
    scaled = detector.model_copy(update={"limit": detector.limit * typical[1] / typical[0]})
    return metadata.model_copy(update={"out_of_distribution": scaled})


def _in_common(one: Predictions, other: Predictions) -> tuple[Graded, Graded]:
    """The photographs that both graded."""
    both: Flags = one.is_graded & other.is_graded
    return one.graded.where(both[one.is_graded]), other.graded.where(both[other.is_graded])


def _kappa(graded: Graded) -> float:
    return quadratic_kappa(graded.sample.target, graded.sample.predicted)


def _recalibrated(
    old: Metadata, metadata: Metadata, one: Predictions, other: Predictions
) -> tuple[Metadata, tuple[Point, ...]]:
    """Thresholds that reach the old sensitivities again, and the conformal quantile at its coverage."""
    first, second = _in_common(one, other)
    referable = second.sample.referable
    score = referral_score(second.sample.probabilities, second.sample.predicted)
    groups = second.groups

    def threshold(before: float) -> float:
        if not referable.any() or referable.all():
            raise DataError("the photographs to compare are all referable or all not: add some of the other kind")
        wanted = float(at_operating_point(first.sample, before).referred[referable].mean())
        if wanted == 0:
            return before
        found = math.floor(threshold_for_sensitivity(score, referable, wanted) / _STEP) * _STEP
        return min(round(found, 6), 1.0)

    points: list[Point] = []
    named: dict[str, OperatingPoint] = {}
    for name, point in old.operating_points.items():
        new = threshold(point.threshold)
        referred = at_operating_point(second.sample, new).referred
        named[name] = OperatingPoint(
            threshold=new,
            sensitivity=_share(referred[referable], groups[referable]),
            specificity=_share(~referred[~referable], groups[~referable]),
        )
        points.append(
            Point(name=name, threshold=(point.threshold, new), sensitivity=(0.0, 0.0), specificity=(0.0, 0.0))
        )
    by_threshold = {point.threshold: named[name].threshold for name, point in old.operating_points.items()}
    default = by_threshold.get(old.referable_threshold)
    update: dict[str, Any] = {
        "operating_points": named,
        "referable_threshold": threshold(old.referable_threshold) if default is None else default,
    }
    if old.conformal is not None:
        weights = equal_sources(other.source[one.is_graded & other.is_graded])
        quantile = conformal_quantile(
            second.sample.probabilities, second.sample.target, old.conformal.coverage, weights=weights
        )
        update["conformal"] = Conformal(coverage=old.conformal.coverage, quantile=quantile)
    return metadata.model_copy(update=update), tuple(points)


def _share(flags: Flags, groups: Integers) -> Estimate:
    return Estimate.proportion(float(flags.mean()), len(np.unique(groups)))


def _again(point: Point, one: Predictions, other: Predictions) -> Point:
    """A point with what it reaches before and after."""
    rates = []
    for graded, threshold in zip(_in_common(one, other), point.threshold, strict=True):
        referred, referable = at_operating_point(graded.sample, threshold).referred, graded.sample.referable
        rates.append((float(referred[referable].mean()), float((~referred[~referable]).mean())))
    (sensitivity, specificity), (sensitivity_after, specificity_after) = rates
    return replace(point, sensitivity=(sensitivity, sensitivity_after), specificity=(specificity, specificity_after))


def _milliseconds(before: Bundle, after: Bundle, pictures: Pixels) -> tuple[float, float]:
    def timed(run: Callable[[Pixels], object], picture: Pixels) -> float:
        started = time.perf_counter()
        run(picture[None])
        return (time.perf_counter() - started) * 1e3

    def rounds() -> Iterator[tuple[float, float]]:
        for number in range(_ROUNDS):
            picture = pictures[number % len(pictures)]
            yield timed(before.run, picture), timed(after.run, picture)

    one, other = zip(*rounds(), strict=True)
    return statistics.median(one), statistics.median(other)
