"""The tables of an evaluation, for its report and for the model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retigrade.evaluation.faithfulness import Faithfulness, OverlapFigures
from retigrade.evaluation.result import OUT_OF_FOLD, EvaluationResult, SetSizes, Slice
from retigrade.evaluation.retest import QUANTILE, Retest
from retigrade.evaluation.robustness import Robustness
from retigrade.icdr import GRADES
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.registry import METRICS
from retigrade.report.document import Cell, Table

LISTED = 100
"""Mistakes and refusals on a page; predictions.csv has every photograph."""

_VALUE = "value (95 % interval)"


def photographs(result: EvaluationResult) -> Table:
    """What was evaluated."""
    of = result.photographs
    learned = "the bundle does not say" if of.learned_from is None else str(len(of.learned_from))
    if of.part == OUT_OF_FOLD:
        learned = "all; each was graded here by a network made the same way that did not learn from it"
    rows: list[tuple[Cell, ...]] = [
        ("photographs", f"{of.count}, {_part(of.part)}" if of.part else of.count),
        ("independent patients or duplicate groups", of.groups),
        ("stages", ", ".join(f"{grade.stage} {of.grades[grade]}" for grade in GRADES)),
        ("sources", ", ".join(f"{name} {count}" for name, count in of.sources.items())),
        ("photographs that the bundle learned from", learned),
        ("fingerprint of the data set", of.fingerprint),
        ("bundle", result.bundle),
        ("operating point", result.operating_point or "the bundle's default"),
    ]
    return Table(("", ""), rows)


def _part(name: str) -> str:
    return name if name == OUT_OF_FOLD else f"part {name!r} of the split"


def statuses(result: EvaluationResult) -> Table:
    """The verdicts, and the gradable rate."""
    rows: list[tuple[Cell, ...]] = [(name.replace("_", " "), count) for name, count in result.statuses.items()]
    return Table(("verdict", "photographs"), [*rows, ("gradable rate", str(result.gradable))])


def headline(result: EvaluationResult) -> Table:
    """The headline figures, of the graded photographs."""
    rows = [(METRICS[key].title, estimate) for key, estimate in result.headline.items()]
    return Table((_of_graded(result.sources[0]), _VALUE), rows)


def confusion(result: EvaluationResult) -> Table:
    """Rows true, columns predicted."""
    rows: list[tuple[Cell, ...]] = [(grade.stage, *result.confusion[grade]) for grade in GRADES]
    return Table(("true stage", *(f"predicted {grade.stage}" for grade in GRADES)), rows)


def stages(result: EvaluationResult) -> Table:
    """Each stage against the rest."""
    names = ("accuracy", "specificity", "sensitivity", "precision", "f1", "auroc")
    rows = [
        (stage.stage, stage.support, stage.predicted, *(getattr(stage, name) for name in names))
        for stage in result.stages
    ]
    headings = ("stage", "true", "predicted", "accuracy", "specificity", "sensitivity", "precision", "F1", "AUROC")
    return Table(headings, rows)


def points(result: EvaluationResult) -> Table:
    """The operating points."""
    rows = [
        (
            f"{point.name} (in use)" if point.in_use else point.name,
            f"{point.threshold:.3g}",
            point.sensitivity,
            point.specificity,
            point.precision,
        )
        for point in result.points
    ]
    return Table(("operating point", "from probability", "sensitivity", "specificity", "precision"), rows)


def coverage_curve(result: EvaluationResult) -> Table:
    """Accuracy by confidence."""
    rows = [
        (f"{point.at_least:.1f}", point.photos, f"{point.share:.0%}", point.accuracy) for point in result.coverage_curve
    ]
    return Table(("confidence at least", "photographs", "share", "accuracy"), rows)


def prediction_sets(sets: SetSizes) -> Table:
    """Coverage and size of the prediction sets."""
    rows: list[tuple[Cell, ...]] = [
        ("promised coverage", f"{sets.promised:.0%}"),
        ("coverage here", sets.coverage),
        ("mean size", sets.size),
        *((f"photographs with {size} in the set", count) for size, count in enumerate(sets.sizes, start=1)),
    ]
    return Table(("prediction sets", ""), rows)


def slices(name: str, parts: Sequence[Slice]) -> Table:
    """The stored figures by source or by quality."""
    keys = list(parts[0].figures)
    rows = [
        (part.name, part.photos, part.graded, part.gradable, *(part.figures[key] for key in keys), part.ece_by_chance)
        for part in parts
    ]
    shorts = (METRICS[key].short for key in keys)
    note = "Every figure but the gradable rate is of the graded photographs."
    return Table((name, "photographs", "graded", "gradable", *shorts, "ECE by chance alone"), rows, note=note)


def mistakes(result: EvaluationResult) -> Table:
    """The costliest wrong grades."""
    rows = [
        (
            mistake.name,
            GRADES[mistake.true_grade].stage,
            GRADES[mistake.predicted_grade].stage,
            mistake.cost,
            f"{mistake.confidence:.2f}",
            ", ".join(GRADES[grade].stage for grade in mistake.prediction_set or ()),
            "" if mistake.quality is None else f"{mistake.quality:.2f}",
            "; ".join(mistake.reasons),
        )
        for mistake in result.mistakes[:LISTED]
    ]
    headings = ("photograph", "true", "predicted", "cost", "confidence", "prediction set", "quality", "reasons")
    return Table(headings, rows)


def refusals(result: EvaluationResult) -> Table:
    """The photographs without a grade."""
    rows = [
        (refusal.name, GRADES[refusal.true_grade].stage, refusal.status.replace("_", " "), "; ".join(refusal.reasons))
        for refusal in result.refusals[:LISTED]
    ]
    return Table(("photograph", "true", "verdict", "reasons"), rows)


def refusal_counts(result: EvaluationResult) -> Table:
    """Refusals by source, stage and reason."""
    rows = [
        (
            count.source,
            GRADES[count.true_grade].stage,
            count.status.replace("_", " "),
            count.reason,
            f"{count.refused} of {count.photos}",
        )
        for count in result.refusal_counts
    ]
    return Table(("source", "true stage", "verdict", "reason", "photographs"), rows)


def robustness(suite: Robustness) -> Table:
    """Kappa kept, agreement and refusals by corruption and severity."""
    severities = sorted({cell.severity for cell in suite.cells})
    cells = {(cell.corruption, cell.severity): cell for cell in suite.cells}
    rows = []
    for name in dict.fromkeys(cell.corruption for cell in suite.cells):
        row = [cells[name, severity] for severity in severities]
        rows.append((name, *(f"{_share(c.kappa_kept)} / {_share(c.agreement)} / {c.refused:.0%}" for c in row)))
    mean = ("mean of kappa kept", *(_share(suite.mean_kept(severity)) for severity in severities))
    headings = ("kappa kept / agreement / refused", *(f"severity {severity}" for severity in severities))
    return Table(headings, [*rows, mean])


def retest(noise: Retest) -> Table:
    """What two photographs of one unchanged eye differ by."""
    rows: list[tuple[Cell, ...]] = [
        ("pairs of photographs of one unchanged eye", noise.pairs),
        ("pairs with one and the same stage", noise.same_grade),
        (f"difference of expected grades within which {QUANTILE:.0%} of the pairs lie", f"{noise.expected_grade:.3f}"),
        ("pairs that differ by more than the noise of the other half of them", noise.beyond),
    ]
    if noise.claimed is not None:
        rows.append((f"pairs that differ by more than the bundle's {noise.claimed:.3f}", noise.beyond_claimed))
    if noise.real_pairs:
        rows.append((f"of the data's own {noise.real_pairs} pairs of one eye, beyond the noise", noise.real_beyond))
    return Table(("photographed again", ""), rows)


def faithfulness(maps: Faithfulness) -> Table:
    """Each kind of map, over lesions of all kinds."""
    rows: list[tuple[Cell, ...]] = [
        (name, figures.photos, figures.cool, *_overlap(figures.overlap), figures.deletion, figures.insertion)
        for name, figures in maps.maps.items()
    ]
    headings = (
        "map", "photographs", "of them without heat", *_OVERLAP, "deletion (lower is better)",
        "insertion (higher is better)",
    )  # fmt: skip
    return Table(headings, rows)


def lesion_kinds(maps: Faithfulness) -> Table:
    """Each kind of map over each kind of lesion."""
    rows: list[tuple[Cell, ...]] = [
        (name, kind, overlap.photos, *_overlap(overlap))
        for name, figures in maps.maps.items()
        for kind, overlap in figures.kinds.items()
    ]
    return Table(("map", "lesion", "photographs with it", *_OVERLAP), rows)


_OVERLAP = ("relevance-mass accuracy", "lesions' share of the retina", "ratio", "pointing game")


def _overlap(figures: OverlapFigures) -> Iterator[Estimate]:
    yield from (figures.mass_accuracy, figures.chance, figures.ratio, figures.pointing)


def _of_graded(everyone: Slice) -> str:
    return f"figure of the {everyone.graded} graded of {everyone.photos} photographs"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
