"""The pictures of an evaluation, as SVG files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retigrade.evaluation.predictions import Graded
from retigrade.evaluation.result import EvaluationResult
from retigrade.evaluation.robustness import Robustness
from retigrade.metrics import classification as metrics
from retigrade.metrics.calibration import reliability
from retigrade.report.document import Image
from retigrade.report.plots import confusion_plot, curves_plot, grid_plot, referable_plot, reliability_plot


def draw(graded: Graded, found: EvaluationResult) -> dict[str, Image]:
    """Return the pictures by what they show: confusion, referable, reliability, confidence, robustness.

    Those that need graded photographs, or a corruption suite, are left out where there are none.
    """
    return dict(_drawn(graded, found))


def _drawn(graded: Graded, found: EvaluationResult) -> Iterator[tuple[str, Image]]:
    if len(graded):
        yield (
            "confusion",
            _svg(
                confusion_plot({"": metrics.confusion(graded.target, graded.predicted)}),
                "Confusion matrix: each cell with its count and its share of the true stage",
            ),
        )
        yield "referable", _svg(_referable(graded, found), "Referable and any retinopathy, with the operating points")
        yield (
            "reliability",
            _svg(
                reliability_plot({"decided stage": reliability(graded.confidence, graded.correct)}),
                "Reliability in 15 bins of equal mass, with 95 % intervals",
            ),
        )
        yield "confidence", _svg(_confidence(found), "What leaving the less certain photographs to a reader gains")
    if found.robustness is not None:
        yield (
            "robustness",
            _svg(_robustness(found.robustness), "What survives each corruption; severity 1 is slight, 5 gross"),
        )


def _svg(data: bytes, caption: str) -> Image:
    return Image(data, "svg", caption)


def _referable(graded: Graded, found: EvaluationResult) -> bytes:
    score = metrics.p_referable(graded.probabilities)
    points = {
        one.name: metrics.at_threshold(score, graded.referable, one.threshold)
        for one in found.points
        if None not in (one.sensitivity.value, one.specificity.value)
    }
    sets = {
        "referable": (score, graded.referable),
        "any retinopathy": (metrics.p_any(graded.probabilities), graded.target > 0),
    }
    return referable_plot(sets, points=points)


def _confidence(found: EvaluationResult) -> bytes:
    places = np.array([step.at_least for step in found.steps])
    accuracy = np.array([step.accuracy.value for step in found.steps], dtype=np.float64)
    share = np.array([step.share for step in found.steps])
    return curves_plot(
        {"accuracy of those kept": (places, accuracy), "share kept": (places, share)},
        x="confidence at least",
        y="share",
        title="Accuracy by confidence",
    )


def _robustness(found: Robustness) -> bytes:
    names = list(dict.fromkeys(cell.corruption for cell in found.cells))
    severities = sorted({cell.severity for cell in found.cells})
    kept, agreement = (np.full((len(names), len(severities)), np.nan) for _ in range(2))
    for cell in found.cells:
        place = names.index(cell.corruption), severities.index(cell.severity)
        kept[place] = np.nan if cell.kappa_kept is None else cell.kappa_kept
        agreement[place] = np.nan if cell.agreement is None else cell.agreement
    return grid_plot(
        {"kappa kept": kept, "agreement with the clean stage": agreement},
        rows=names,
        columns=[str(severity) for severity in severities],
        x="severity",
    )
