"""An evaluation result to the plots and sections of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from retigrade.evaluation import tables
from retigrade.evaluation.predictions import Graded
from retigrade.evaluation.result import EvaluationResult
from retigrade.evaluation.robustness import HEADLINE_SEVERITY, Robustness
from retigrade.metrics import classification
from retigrade.metrics.calibration import reliability
from retigrade.metrics.registry import at_operating_point
from retigrade.report.document import Block, Document, Gallery, Image, Section, Text
from retigrade.report.plots import confusion_plot, curves_plot, grid_plot, referable_plot, reliability_plot

_INTERVALS = (
    "Figures are followed by their 95 % interval, from a bootstrap that resamples patients and groups of duplicates as "
    "wholes; a share that is the same in every resample has Wilson's interval instead. A figure without an interval "
    "rests on too few of them."
)


def draw_plots(graded: Graded, result: EvaluationResult) -> dict[str, Image]:
    """Return the plots by what they show: confusion, referable, reliability, coverage, robustness.

    Those that need graded photographs, or a corruption suite, are left out where there are none.
    """
    plots = {}
    if len(graded):
        sample = graded.sample
        plots["confusion"] = Image(
            confusion_plot({"": sample.counts}),
            "svg",
            "Confusion matrix: each cell with its count and its share of the true stage",
        )
        plots["referable"] = Image(
            _referable_plot(graded, result), "svg", "Referable and any retinopathy, with the operating points"
        )
        plots["reliability"] = Image(
            reliability_plot({"predicted stage": reliability(sample.confidence, sample.correct)}),
            "svg",
            "Reliability in 15 bins of equal mass, with 95 % intervals",
        )
        plots["coverage"] = Image(
            _coverage_plot(result), "svg", "What leaving the less certain photographs to a reader gains"
        )
    if result.robustness is not None:
        plots["robustness"] = Image(
            _robustness_plot(result.robustness), "svg", "What survives each corruption; severity 1 is slight, 5 gross"
        )
    return plots


def compose(result: EvaluationResult, plots: Mapping[str, Image], *, examples: Sequence[Image] = ()) -> Document:
    """Return the report; plots: as `draw_plots` makes them; examples: the costliest mistakes with their heatmaps."""
    return Document(
        f"Evaluation of {result.bundle}",
        (f"{result.photographs.count} photographs, {result.made}",),
        tuple(_sections(result, plots, tuple(examples))),
    )


def _sections(result: EvaluationResult, plots: Mapping[str, Image], examples: tuple[Image, ...]) -> Iterator[Section]:
    remarks = [Text(remark, warning=True) for remark in result.remarks]
    missing = [Text(f"The bundle lacks {what}.") for what in result.missing]
    notes = [Text(f"Note: {note}.") for note in result.photographs.notes]
    left_out = [Text(f"Left out: {photograph}") for photograph in result.photographs.left_out]
    yield Section("Photographs", (*remarks, tables.photographs(result), *missing, *notes, *left_out))
    yield Section("Verdicts", (tables.statuses(result), *second_reader(result)))
    if result.headline:
        yield Section("Headline figures", (Text(_INTERVALS), tables.headline(result)))
        yield Section("Stages", (*_named(plots, "confusion"), tables.confusion(result), tables.stages(result)))
        yield Section("Referable", (*_named(plots, "referable"), tables.points(result)))
        yield Section("Reliability", tuple(_reliability(result, plots)))
        yield Section("By source", (tables.slices("source", result.sources), *by_chance(result)))
        if result.quality:
            yield Section("By quality", (tables.slices("quality", result.quality),))
    if result.robustness is not None:
        text = Text(_robustness_text(result.robustness))
        yield Section("Corruptions", (text, *_named(plots, "robustness"), tables.robustness(result.robustness)))
    if result.faithfulness is not None:
        yield Section("Heatmaps", tuple(faithfulness(result)))
    if result.retest is not None:
        yield Section("Photographed again", (Text(RETEST), tables.retest(result.retest)))
    if result.mistakes:
        text = Text(
            f"{len(result.mistakes)} wrong stages, the costliest first: by the squared distance from the true stage, "
            f"then by confidence. {_listed(len(result.mistakes))}"
        )
        gallery: tuple[Block, ...] = (Gallery(examples),) if examples else ()
        yield Section("Mistakes", (text, *gallery, tables.mistakes(result)))
    if result.refusals:
        listed = Text(_listed(len(result.refusals)))
        yield Section("Without a grade", (tables.refusal_counts(result), listed, tables.refusals(result)))


RETEST = (
    "Each photograph beside a second one made of it: mirrored, turned and moved, exposed otherwise, compressed. A "
    "change over time is claimed only beyond what such pairs differ by."
)


def second_reader(result: EvaluationResult) -> Iterator[Block]:
    """For how many a second reader is advised."""
    if result.second_reader is not None:
        yield Text(
            f"A second reader is advised for {result.second_reader:.1%} of the graded photographs: those whose "
            "probabilities are spread widest over the stages."
        )


def by_chance(result: EvaluationResult) -> Iterator[Block]:
    """What the last column of the slices means."""
    yield Text(
        "Few photographs a bin scatter even where the probabilities are perfect: the ECE by chance alone is that of "
        "photographs right just as often as their confidence says."
    )


def faithfulness(result: EvaluationResult) -> Iterator[Block]:
    """How the heatmaps lie over annotated lesions."""
    if (maps := result.faithfulness) is None:
        return
    yield Text(
        "Against experts' annotations of every lesion, dilated a little. Relevance-mass accuracy is the share of the "
        "heat inside lesions; the ratio is over the lesions' share of the retina, 1 for a map that knows nothing. "
        "Pointing game: how often the hottest pixel lies in a lesion. Deletion and insertion: mean probability of the "
        "predicted stage while the hottest pixels are blurred away first, and while they come first out of the blur."
    )
    yield tables.faithfulness(maps)
    yield tables.lesion_kinds(maps)
    if maps.without_field:
        yield Text(f"In {maps.without_field} photographs no retinal disc was found.")


def _reliability(result: EvaluationResult, plots: Mapping[str, Image]) -> Iterator[Block]:
    yield from _named(plots, "reliability", "coverage")
    yield tables.coverage_curve(result)
    if result.rises is not None:
        rises = "rises" if result.rises else "does not rise"
        yield Text(f"Accuracy {rises} with every step of confidence.", warning=not result.rises)
    if result.prediction_sets is not None:
        yield tables.prediction_sets(result.prediction_sets)


def _robustness_text(suite: Robustness) -> str:
    kept = suite.mean_kept()
    mean = "is not defined" if kept is None else f"is {kept:.3f}"
    kappa = "not defined" if suite.clean_kappa is None else f"{suite.clean_kappa:.3f}"
    return (
        f"{suite.photos} photographs, each graded clean (kappa {kappa}) and corrupted. Kappa kept is the corrupted "
        "photographs' over that of the same photographs clean; agreement is with the clean stage; both are of those "
        f"still graded. The mean of the kappa kept at severity {HEADLINE_SEVERITY} {mean}."
    )


def _listed(count: int) -> str:
    if count <= tables.LISTED:
        return "All are listed."
    return f"The first {tables.LISTED} of {count} are listed; report.json has them all."


def _named(plots: Mapping[str, Image], *names: str) -> tuple[Image, ...]:
    return tuple(plots[name] for name in names if name in plots)


def _referable_plot(graded: Graded, result: EvaluationResult) -> bytes:
    sample = graded.sample
    p_referable = classification.p_referable(sample.probabilities)
    points = {}
    for point in result.points:
        if point.sensitivity.value is not None and point.specificity.value is not None:
            referred = at_operating_point(sample, point.threshold).referred
            rates = classification.at_threshold(referred.astype(float), sample.referable, 0.5)
            points[f"{point.name} (≥ {point.threshold:.2f})"] = rates
    sets = {
        "referable": (p_referable, sample.referable),
        "any retinopathy": (classification.p_any(sample.probabilities), sample.target > 0),
    }
    return referable_plot(sets, points=points)


def _coverage_plot(result: EvaluationResult) -> bytes:
    confidence = np.array([point.at_least for point in result.coverage_curve])
    accuracy = np.array([point.accuracy.number for point in result.coverage_curve])
    share = np.array([point.share for point in result.coverage_curve])
    return curves_plot(
        {"accuracy of those kept": (confidence, accuracy), "share kept": (confidence, share)},
        x="confidence at least",
        y="share",
        title="Accuracy by confidence",
    )


def _robustness_plot(suite: Robustness) -> bytes:
    names = list(dict.fromkeys(cell.corruption for cell in suite.cells))
    severities = sorted({cell.severity for cell in suite.cells})
    kept, agreement = (np.full((len(names), len(severities)), np.nan) for _ in range(2))
    for cell in suite.cells:
        place = names.index(cell.corruption), severities.index(cell.severity)
        kept[place] = np.nan if cell.kappa_kept is None else cell.kappa_kept
        agreement[place] = np.nan if cell.agreement is None else cell.agreement
    return grid_plot(
        {"kappa kept": kept, "agreement with the clean stage": agreement},
        rows=names,
        columns=[str(severity) for severity in severities],
        x="severity",
    )
