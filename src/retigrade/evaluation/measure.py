"""Verdicts to findings: every figure of an evaluation, with its 95 % interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import numpy as np

from retigrade.arrays import Integers, Reals
from retigrade.data.manifest import Manifest
from retigrade.evaluation import reliability as trust
from retigrade.evaluation.ask import Ask
from retigrade.evaluation.examples import missing, mistakes, refusals, remarks
from retigrade.evaluation.predictions import Graded, LabelledSet, Predictions
from retigrade.evaluation.reliability import bins, points, rises, sets, steps
from retigrade.evaluation.result import EvaluationResult, Photographs, Stage
from retigrade.evaluation.slices import by_quality, by_source
from retigrade.grader import LOW_CONFIDENCE, Grader
from retigrade.icdr import GRADES, Status
from retigrade.metrics import classification as metrics
from retigrade.metrics.bootstrap import summary
from retigrade.metrics.estimate import Estimate

HEADLINE = {
    "accuracy": "accuracy",
    "quadratic_kappa": "quadratic weighted kappa",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "off_by_two": "two or more stages off",
    "referable_auroc": "referable AUROC",
    "any_auroc": "none-vs-any AUROC",
    "ece": "expected calibration error, 15 equal-mass bins",
    "brier": "Brier score",
    "nll": "negative log likelihood",
}
"""The headline figures by their key in the report, and what they are called."""

_RATES = ("accuracy", "specificity", "sensitivity", "precision", "f1")


def measure(
    verdicts: Predictions,
    grader: Grader,
    *,
    manifest: Manifest,
    part: str | None = None,
    seed: int = 0,
    rounds: int = 1000,
) -> EvaluationResult:
    """Return what the verdicts of `grader` on some photographs of `manifest` come to.

    seed, rounds: of the bootstrap. Few photographs, a single grade or none graded leave figures undefined and are said
    in the remarks; they never fail.
    """
    metadata, graded = grader.bundle.metadata, verdicts.graded
    ask = Ask(np.random.default_rng(seed), rounds=rounds)
    found_steps = tuple(steps(graded, ask))
    return EvaluationResult(
        bundle=grader.bundle.identity,
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        operating_point=grader.operating_point,
        photographs=_photographs(verdicts.labelled, manifest, part),
        statuses={status.value: _count(verdicts, status) for status in Status},
        gradable=ask.share(verdicts.is_graded, units=verdicts.labelled.units),
        headline=_headline(graded, ask),
        confusion=tuple(tuple(map(int, row)) for row in metrics.confusion(graded.target, graded.predicted)),
        stages=tuple(_stages(graded, ask)),
        points=tuple(points(graded, grader, ask)),
        bins=tuple(bins(graded)),
        steps=found_steps,
        rises=rises(found_steps),
        advised=_advised(verdicts) if len(graded) else None,
        sets=sets(graded, metadata, ask),
        trust=tuple(trust.by_source(graded, grader, ask)),
        sources=tuple(by_source(verdicts, ask)),
        quality=tuple(by_quality(graded, ask)),
        mistakes=tuple(mistakes(verdicts)),
        refusals=tuple(refusals(verdicts)),
        robustness=None,
        faithfulness=None,
        missing=tuple(missing(metadata)),
        remarks=tuple(remarks(verdicts, graded)),
    )


def _photographs(labelled: LabelledSet, manifest: Manifest, part: str | None) -> Photographs:
    none, mild, moderate, severe, proliferative = (sum(e.grade == grade for e in labelled.entries) for grade in GRADES)
    return Photographs(
        count=len(labelled.entries),
        groups=len(np.unique(labelled.units)),
        grades=(none, mild, moderate, severe, proliferative),
        sources=dict(sorted(Counter(entry.source for entry in labelled.entries).items())),
        part=part,
        fingerprint=manifest.fingerprint,
        unreadable=tuple(f"{item.path}: {item.reason}" for item in manifest.unreadable),
        notes=manifest.notes,
    )


def _count(verdicts: Predictions, status: Status) -> int:
    return sum(grading.status is status for grading in verdicts.gradings)


def _headline(graded: Graded, ask: Ask) -> dict[str, Estimate]:
    if not len(graded):
        return {}
    found = summary(
        graded.probabilities, graded.predicted, graded.target, groups=graded.units, rng=ask.rng, rounds=ask.rounds
    )
    return {key: getattr(found, key) for key in HEADLINE}


def _stages(graded: Graded, ask: Ask) -> Iterator[Stage]:
    def figures(target: Integers, predicted: Integers, probabilities: Reals) -> Reals:
        rates = metrics.rates(metrics.confusion(target, predicted))
        columns = [getattr(rates, name) for name in _RATES]
        return np.concatenate([*columns, metrics.auroc_per_grade(probabilities, target)])

    found = ask.several(figures, graded.target, graded.predicted, graded.probabilities, units=graded.units)
    for grade in GRADES:
        own = dict(zip((*_RATES, "auroc"), found[grade :: len(GRADES)], strict=True))
        support, predicted = int(np.sum(graded.target == grade)), int(np.sum(graded.predicted == grade))
        yield Stage(stage=grade.stage, support=support, predicted=predicted, **own)


def _advised(verdicts: Predictions) -> float:
    graded = [grading for grading in verdicts.gradings if grading.status is Status.GRADED]
    return sum(LOW_CONFIDENCE in grading.reasons for grading in graded) / len(graded)
