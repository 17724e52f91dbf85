"""Predictions to an evaluation result: every figure with its 95 % interval, all from the same resamples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np

from retigrade.arrays import Integers, Reals
from retigrade.data.manifest import Manifest
from retigrade.evaluation.predictions import Graded, Predictions, worst
from retigrade.evaluation.result import (
    ALL,
    STORED,
    CoveragePoint,
    EvaluationResult,
    Mistake,
    Photographs,
    PointHere,
    Refusal,
    RefusalCount,
    ReliabilityBin,
    SetSizes,
    Slice,
    Stage,
)
from retigrade.grader import LOW_CONFIDENCE, Grader
from retigrade.icdr import GRADES, Status
from retigrade.metadata import MAX_SPREAD, Metadata
from retigrade.metrics import classification
from retigrade.metrics.bootstrap import FEWEST_GROUPS, Bootstrap
from retigrade.metrics.calibration import calibration_error_by_chance, reliability
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.registry import at_operating_point
from retigrade.metrics.registry import measure as measure_metrics

HEADLINE = (
    "accuracy", "quadratic_kappa", "balanced_accuracy", "macro_f1", "off_by_two", "referable_auroc",
    "referable_sensitivity", "referable_specificity", "any_auroc", "ece", "brier", "nll",
)  # fmt: skip
"""The metrics at the top of an evaluation."""

DEFAULT_POINT = "default"
CONFIDENCES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_AT_POINT = ("referable_sensitivity", "referable_specificity", "referable_precision")
_BY_SLICE = (*STORED, "set_size")
_RATES = ("accuracy", "specificity", "sensitivity", "precision", "f1")
_TERCILES = ("lowest third", "middle third", "highest third")
_NAMED = 3  # photographs in a remark; the JSON has them all


def measure(
    predictions: Predictions,
    grader: Grader,
    *,
    manifest: Manifest,
    part: str | None = None,
    out_of_fold: bool = False,
    bootstrap: Bootstrap | None = None,
) -> EvaluationResult:
    """Return what the predictions of `grader` on some photographs of `manifest` come to.

    part: the name of these photographs in their split. out_of_fold: each was predicted by a network that did not learn
    from it, though the bundle did. bootstrap: of the intervals. Few photographs, a single grade or none graded leave
    figures undefined and are said in the remarks; they never fail.
    """
    bootstrap = bootstrap or Bootstrap()
    metadata, graded = grader.bundle.metadata, predictions.graded
    sample, groups = graded.sample, graded.groups
    curve = tuple(_coverage_curve(graded, bootstrap))
    sources = measure_sources(predictions, bootstrap)
    known = () if out_of_fold else learned_from(predictions, metadata)
    photographs = _photographs(predictions, manifest, part, known)
    sets = _set_sizes(graded, metadata, sources[0])
    return EvaluationResult(
        bundle=grader.bundle.identity,
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        operating_point=grader.operating_point,
        photographs=photographs,
        statuses={status.value: sum(g.status is status for g in predictions.gradings) for status in Status},
        headline=measure_metrics(sample, HEADLINE, groups=groups, bootstrap=bootstrap) if len(graded) else {},
        confusion=tuple(tuple(row) for row in sample.counts.tolist()),
        stages=tuple(_stages(graded, bootstrap)),
        points=tuple(_points(graded, grader, bootstrap)),
        reliability=tuple(_reliability_bins(graded)),
        coverage_curve=curve,
        rises=_rises(curve),
        second_reader=_second_reader(predictions),
        prediction_sets=sets,
        sources=sources,
        quality=tuple(_by_quality(graded, bootstrap)),
        mistakes=tuple(_mistake(predictions, position) for position in worst(predictions)),
        refusals=tuple(_refusals(predictions)),
        refusal_counts=tuple(_refusal_counts(predictions)),
        robustness=None,
        retest=None,
        faithfulness=None,
        missing=tuple(_missing(metadata)),
        remarks=tuple(_remarks(predictions, photographs, sets, metadata)),
    )


def measure_sources(predictions: Predictions, bootstrap: Bootstrap | None = None) -> tuple[Slice, ...]:
    """The figures that a bundle stores of itself: those of all photographs, then of each source and each subset of one.

    A source is not divided where it has one origin only, or none that is known.
    """
    bootstrap = bootstrap or Bootstrap()
    flags = {name: predictions.source == name for name in set(predictions.source.tolist())}
    source_of = dict(zip(predictions.subset.tolist(), predictions.source.tolist(), strict=True))
    for name in source_of.keys() - flags.keys():
        if not np.array_equal(chosen := predictions.subset == name, flags[source_of[name]]):
            flags[name] = chosen
    slices = [(ALL, np.ones(len(predictions.gradings), bool))]
    slices += [(name, flags[name]) for name in sorted(flags)] if len(flags) > 1 else []
    measured = []
    for name, chosen in slices:
        gradable = bootstrap.share(predictions.is_graded[chosen], groups=predictions.labelled.groups[chosen])
        graded = predictions.graded.where(chosen[predictions.is_graded])
        measured.append(_slice(name, int(chosen.sum()), gradable, graded, bootstrap))
    return tuple(measured)


def _by_quality(graded: Graded, bootstrap: Bootstrap) -> Iterator[Slice]:
    """The graded in thirds of quality; nothing where they are fewer than three."""
    if len(graded) < len(_TERCILES):
        return
    # By rank, so that thirds are thirds even where many scores are equal.
    third = np.argsort(np.argsort(graded.quality, kind="stable"), kind="stable") * len(_TERCILES) // len(graded)
    for number, name in enumerate(_TERCILES):
        chosen = third == number
        low, high = graded.quality[chosen].min(), graded.quality[chosen].max()
        title = f"{name} ({low:.2f} to {high:.2f})"
        yield _slice(title, int(chosen.sum()), Estimate.of(1.0), graded.where(chosen), bootstrap)


def _slice(name: str, photos: int, gradable: Estimate, graded: Graded, bootstrap: Bootstrap) -> Slice:
    by_chance = calibration_error_by_chance(graded.sample.confidence, rng=np.random.default_rng(bootstrap.seed))
    return Slice(
        name=name,
        photos=photos,
        graded=len(graded),
        gradable=gradable,
        figures=measure_metrics(graded.sample, _BY_SLICE, groups=graded.groups, bootstrap=bootstrap),
        ece_by_chance=Estimate.of(by_chance).value,
    )


def _photographs(
    predictions: Predictions, manifest: Manifest, part: str | None, known: tuple[str, ...] | None
) -> Photographs:
    entries = predictions.labelled.entries
    none, mild, moderate, severe, proliferative = (sum(e.grade == grade for e in entries) for grade in GRADES)
    return Photographs(
        count=len(entries),
        groups=len(np.unique(predictions.labelled.groups)),
        grades=(none, mild, moderate, severe, proliferative),
        sources=dict(sorted(Counter(predictions.source.tolist()).items())),
        part=part,
        fingerprint=manifest.fingerprint,
        learned_from=known,
        left_out=tuple(map(str, manifest.left_out)),
        notes=manifest.notes,
    )


def _stages(graded: Graded, bootstrap: Bootstrap) -> Iterator[Stage]:
    """Each stage against the rest."""
    if not len(graded):
        return
    sample = graded.sample

    def figures(rows: Integers) -> Reals:
        drawn = sample.take(rows)
        aurocs = classification.auroc_per_grade(drawn.probabilities, drawn.target)
        return np.concatenate([*(getattr(drawn.rates, name) for name in _RATES), aurocs])

    estimates = bootstrap.estimates(figures, np.arange(len(sample)), groups=graded.groups)
    for grade in GRADES:
        named = dict(zip((*_RATES, "auroc"), estimates[grade :: len(GRADES)], strict=True))
        yield Stage(
            stage=grade.stage,
            support=int(sample.counts[grade].sum()),
            predicted=int(sample.counts[:, grade].sum()),
            **named,
        )


def _points(graded: Graded, grader: Grader, bootstrap: Bootstrap) -> Iterator[PointHere]:
    """The bundle's default threshold and its operating points, on these photographs."""
    metadata = grader.bundle.metadata
    in_use = grader.operating_point or DEFAULT_POINT
    thresholds = {DEFAULT_POINT: metadata.referable_threshold} | {
        name: point.threshold for name, point in metadata.operating_points.items()
    }
    for name, threshold in thresholds.items():
        sample = at_operating_point(graded.sample, threshold)
        figures = measure_metrics(sample, _AT_POINT, groups=graded.groups, bootstrap=bootstrap)
        yield PointHere(
            name=name,
            threshold=threshold,
            in_use=name == in_use,
            sensitivity=figures["referable_sensitivity"],
            specificity=figures["referable_specificity"],
            precision=figures["referable_precision"],
        )


def _reliability_bins(graded: Graded) -> Iterator[ReliabilityBin]:
    """The reliability diagram, in 15 bins of equal mass."""
    if not len(graded):
        return
    diagram = reliability(graded.sample.confidence, graded.sample.correct)
    columns = (diagram.confidence, diagram.accuracy, diagram.low, diagram.high, diagram.count)
    for confidence, accuracy, low, high, count in zip(*(column.tolist() for column in columns), strict=True):
        yield ReliabilityBin(confidence=confidence, accuracy=accuracy, low=low, high=high, photos=count)


def _coverage_curve(graded: Graded, bootstrap: Bootstrap) -> Iterator[CoveragePoint]:
    """Accuracy of those whose stage has at least some confidence, as long as there are any."""
    sample = graded.sample
    for at_least in CONFIDENCES:
        sure = sample.confidence >= at_least
        if not sure.any():
            return
        yield CoveragePoint(
            at_least=at_least,
            photos=int(sure.sum()),
            share=float(sure.mean()),
            accuracy=bootstrap.share(sample.correct, among=sure, groups=graded.groups),
        )


def _rises(curve: Sequence[CoveragePoint]) -> bool | None:
    """Whether leaving out less certain photographs always raised accuracy; None where no step leaves any out."""
    kept = [point for before, point in pairwise(curve) if point.photos < before.photos]
    if not kept:
        return None
    accuracies = [point.accuracy.number for point in (curve[0], *kept)]
    return all(later > earlier or later == 1.0 for earlier, later in pairwise(accuracies))


def _second_reader(predictions: Predictions) -> float | None:
    graded = [grading for grading in predictions.gradings if grading.status is Status.GRADED]
    return sum(LOW_CONFIDENCE in grading.reasons for grading in graded) / len(graded) if graded else None


def _set_sizes(graded: Graded, metadata: Metadata, everyone: Slice) -> SetSizes | None:
    """Coverage and size of the prediction sets; None where the bundle makes none."""
    sets = graded.sample.prediction_set
    if metadata.conformal is None or sets is None:
        return None
    one, two, three, four, five = (int(np.sum(sets.sum(axis=1) == size)) for size in range(1, len(GRADES) + 1))
    return SetSizes(
        promised=metadata.conformal.coverage,
        coverage=everyone.figures["coverage"],
        size=everyone.figures["set_size"],
        sizes=(one, two, three, four, five),
    )


def _mistake(predictions: Predictions, position: int) -> Mistake:
    entry, grading = predictions.pairs[position]
    if grading.grade is None or grading.probabilities is None:
        raise ValueError(f"{entry.name} has no grade to be wrong")
    return Mistake(
        name=entry.name,
        true_grade=int(entry.grade),
        predicted_grade=int(grading.grade),
        cost=(int(grading.grade) - int(entry.grade)) ** 2,
        confidence=float(grading.probabilities[grading.grade]),
        prediction_set=None if grading.prediction_set is None else tuple(map(int, grading.prediction_set)),
        quality=grading.quality,
        reasons=grading.reasons,
    )


def _refusals(predictions: Predictions) -> Iterator[Refusal]:
    """The photographs without a grade."""
    for entry, grading in predictions.pairs:
        if grading.status is not Status.GRADED:
            yield Refusal(
                name=entry.name,
                source=entry.source,
                true_grade=int(entry.grade),
                status=grading.status.value,
                reasons=grading.reasons,
            )


def _refusal_counts(predictions: Predictions) -> Iterator[RefusalCount]:
    """Refusals by source, stage and first reason, its measured numbers left out."""
    photos = Counter((entry.source, int(entry.grade)) for entry in predictions.labelled.entries)
    refused = Counter(
        (refusal.source, refusal.true_grade, refusal.status, refusal.reasons[0].partition(":")[0].partition(" (")[0])
        for refusal in _refusals(predictions)
    )
    for (source, grade, status, reason), count in sorted(refused.items()):
        yield RefusalCount(
            source=source,
            true_grade=grade,
            status=status,
            reason=reason,
            refused=count,
            photos=photos[source, grade],
        )


def _missing(metadata: Metadata) -> Iterator[str]:
    """What a bundle may carry and this one does not."""
    if not metadata.operating_points:
        yield "operating points"
    if metadata.conformal is None:
        yield "prediction sets"
    if metadata.second_reader_spread >= MAX_SPREAD:
        yield "a limit beyond which a second reader is advised"
    if metadata.out_of_distribution is None:
        yield "an out-of-distribution detector"


def _remarks(
    predictions: Predictions, photographs: Photographs, sets: SetSizes | None, metadata: Metadata
) -> Iterator[str]:
    """What a reader must know before the figures."""
    yield from learned_from_remarks(photographs.learned_from, photographs.count)
    graded = predictions.graded
    if not len(graded):
        yield "No photograph was graded, so there are no figures; the refusals say why."
        return
    groups = len(np.unique(graded.groups))
    if groups < FEWEST_GROUPS:
        yield (
            f"Only {groups} independent patients or duplicate groups were graded: fewer than {FEWEST_GROUPS} give no "
            "intervals, and the figures mean little."
        )
    present = np.unique(graded.sample.target)
    referable = graded.sample.referable
    if len(present) == 1:
        yield f"All photographs are of grade {present[0]}: kappa, AUROC and the other grades' figures are not defined."
    elif not referable.any():
        yield "No photograph is referable: sensitivity, precision and the referable AUROC are not defined."
    elif referable.all():
        yield "Every photograph is referable: specificity and the referable AUROC are not defined."
    if refused := len(predictions.gradings) - len(graded):
        yield f"{refused} photographs have no grade; every figure but the gradable rate is of the graded ones alone."
    if sets is not None and sets.coverage.high is not None and sets.coverage.high < sets.promised:
        yield (
            f"The prediction sets hold the true stage less often than promised: {sets.coverage} against "
            f"{sets.promised:.0%}; these photographs are unlike those that the promise was made on."
        )


def learned_from(predictions: Predictions, metadata: Metadata) -> tuple[str, ...] | None:
    """The names of the photographs that a bundle learned from; None where it does not say which it did."""
    training = metadata.training
    known = tuple(entry.name for entry in predictions.labelled.entries if training.has_seen(entry.sha256))
    return known if known or training.photo_hashes else None


def learned_from_remarks(names: Sequence[str] | None, count: int) -> Iterator[str]:
    """Say how many of `count` photographs the bundle learned from, naming some; None where it does not say."""
    if names is None:
        yield "The bundle does not say which photographs it learned from: figures on those would flatter it."
    elif names:
        some = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        yield (
            f"The bundle learned from {len(names)} of these {count} photographs ({some}): figures on them say nothing "
            "about new photographs; evaluate on others."
        )
