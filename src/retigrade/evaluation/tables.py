"""The tables of an evaluation, for its report and for the model card."""

from __future__ import annotations

from collections.abc import Sequence

from retigrade.evaluation.faithfulness import Faithfulness
from retigrade.evaluation.measure import HEADLINE
from retigrade.evaluation.result import EvaluationResult, Slice
from retigrade.evaluation.robustness import Robustness
from retigrade.icdr import GRADES
from retigrade.report.document import Table

LISTED = 100
"""Mistakes and refusals on a page; predictions.csv has every photograph."""


def photographs(found: EvaluationResult) -> Table:
    """What was evaluated."""
    of = found.photographs
    rows = [
        ("photographs", f"{of.count}, part {of.part!r} of the split" if of.part else str(of.count)),
        ("independent patients or duplicate groups", str(of.groups)),
        ("stages", ", ".join(f"{grade.stage} {of.grades[grade]}" for grade in GRADES)),
        ("sources", ", ".join(f"{name} {count}" for name, count in of.sources.items())),
        ("fingerprint of the data set", of.fingerprint),
        ("bundle", found.bundle),
        ("operating point", found.operating_point or "the bundle's default"),
    ]
    return Table(("", ""), rows)


def statuses(found: EvaluationResult) -> Table:
    """The verdicts, and the gradable rate."""
    rows = [(name.replace("_", " "), str(count)) for name, count in found.statuses.items()]
    return Table(("verdict", "photographs"), [*rows, ("gradable rate", str(found.gradable))])


def headline(found: EvaluationResult) -> Table:
    """The headline figures."""
    rows = [(HEADLINE[key], str(figure)) for key, figure in found.headline.items()]
    return Table(("figure", "value (95 % interval)"), rows)


def confusion(found: EvaluationResult) -> Table:
    """Rows true, columns decided."""
    rows = [(grade.stage, *map(str, found.confusion[grade])) for grade in GRADES]
    return Table(("true stage", *(f"decided {grade.stage}" for grade in GRADES)), rows)


def stages(found: EvaluationResult) -> Table:
    """Each stage against the rest."""
    names = ("accuracy", "specificity", "sensitivity", "precision", "f1", "auroc")
    rows = [
        (one.stage, str(one.support), str(one.predicted), *(str(getattr(one, name)) for name in names))
        for one in found.stages
    ]
    return Table(
        ("stage", "true", "predicted", "accuracy", "specificity", "sensitivity", "precision", "F1", "AUROC"), rows
    )


def points(found: EvaluationResult) -> Table:
    """The operating points."""
    rows = [
        (
            f"{one.name} (in use)" if one.in_use else one.name,
            f"{one.threshold:.3g}",
            *map(str, (one.sensitivity, one.specificity, one.precision)),
        )
        for one in found.points
    ]
    return Table(("operating point", "from probability", "sensitivity", "specificity", "precision"), rows)


def steps(found: EvaluationResult) -> Table:
    """Accuracy by confidence."""
    rows = [(f"{one.at_least:.1f}", str(one.photos), f"{one.share:.0%}", str(one.accuracy)) for one in found.steps]
    return Table(("confidence at least", "photographs", "share", "accuracy"), rows)


def sets(found: EvaluationResult) -> Table:
    """Coverage and size of the sets of possible grades."""
    if found.sets is None:
        raise ValueError("this bundle names no possible grades")
    one = found.sets
    rows = [
        ("promised coverage", f"{one.promised:.0%}"),
        ("coverage here", str(one.coverage)),
        ("mean size", str(one.size)),
        *((f"photographs with {size} possible", str(count)) for size, count in enumerate(one.sizes, start=1)),
    ]
    return Table(("sets of possible stages", ""), rows)


def trust(found: EvaluationResult) -> Table:
    """Calibration, possible grades and referable stages at the point in use, of all and of each source."""
    rows = [
        (
            one.name,
            str(one.photos),
            _share(one.ece, digits=3),
            _share(one.ece_by_chance, digits=3),
            *("–" if figure is None else str(figure) for figure in (one.coverage, one.size)),
            *map(str, (one.sensitivity, one.specificity)),
        )
        for one in found.trust
    ]
    headings = (
        "source", "graded", "ECE", "ECE by chance alone", "coverage of the possible", "their mean number",
        "referable sensitivity", "referable specificity",
    )  # fmt: skip
    return Table(headings, rows)


def slices(name: str, parts: Sequence[Slice]) -> Table:
    """The figures by source or by quality."""
    rows = [
        (
            one.name,
            str(one.photos),
            *map(str, (one.gradable, one.accuracy, one.quadratic_kappa, one.referable_auroc, one.any_auroc)),
        )
        for one in parts
    ]
    return Table((name, "photographs", "gradable", "accuracy", "kappa", "referable AUROC", "none-vs-any AUROC"), rows)


def mistakes(found: EvaluationResult) -> Table:
    """The costliest wrong grades."""
    rows = [
        (
            one.name,
            GRADES[one.true_grade].stage,
            GRADES[one.decided_grade].stage,
            str(one.cost),
            f"{one.confidence:.2f}",
            "" if one.prediction_set is None else ", ".join(GRADES[grade].stage for grade in one.prediction_set),
            "" if one.quality is None else f"{one.quality:.2f}",
            "; ".join(one.reasons),
        )
        for one in found.mistakes[:LISTED]
    ]
    return Table(
        ("photograph", "true", "predicted", "cost", "confidence", "prediction_set", "quality", "remarks"), rows
    )


def refusals(found: EvaluationResult) -> Table:
    """The photographs without a grade."""
    rows = [
        (one.name, GRADES[one.true_grade].stage, one.status.replace("_", " "), "; ".join(one.reasons))
        for one in found.refusals[:LISTED]
    ]
    return Table(("photograph", "true", "verdict", "why"), rows)


def robustness(found: Robustness) -> Table:
    """Kappa kept, agreement and refusals by corruption and severity."""
    severities = sorted({cell.severity for cell in found.cells})
    cells = {(cell.corruption, cell.severity): cell for cell in found.cells}
    rows = []
    for name in dict.fromkeys(cell.corruption for cell in found.cells):
        own = [cells[name, severity] for severity in severities]
        rows.append((name, *(f"{_share(c.kappa_kept)} / {_share(c.agreement)} / {c.refused:.0%}" for c in own)))
    mean = ("mean of kappa kept", *(_share(found.mean_kept(severity)) for severity in severities))
    return Table(("kappa kept / agreement / refused", *(f"severity {one}" for one in severities)), [*rows, mean])


def faithfulness(found: Faithfulness) -> Table:
    """Each kind of map."""
    names = ("share", "chance", "ratio", "pointing", "deletion", "insertion")
    rows = [
        (name, str(one.photos), str(one.cool), *(str(getattr(one, field)) for field in names))
        for name, one in found.maps.items()
    ]
    headings = (
        "map", "photographs", "of them cool", "heat inside lesions", "lesions' share of the retina", "ratio",
        "pointing game", "deletion (lower is better)", "insertion (higher is better)",
    )  # fmt: skip
    return Table(headings, rows)


def _share(value: float | None, *, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
