"""What a bundle says of itself, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from retigrade.icdr import GRADES
from retigrade.metadata import Metadata
from retigrade.metrics.decision import Decision
from retigrade.text import lineage


def describe(metadata: Metadata, *, bundle: str) -> RenderableType:
    """Return the metadata as text in sections; `bundle` is the bundle's identity."""
    learned = metadata.training
    return Group(
        *_section("bundle", _facts(_identity(metadata, bundle))),
        *_section(
            "learned from",
            _facts(
                [
                    ("photographs", f"{learned.photos}, {learned.epochs} epochs"),
                    ("data sets", _counts(learned.sources)),
                    ("stages", _counts({grade.stage: learned.grades[grade] for grade in GRADES})),
                    ("protocol", learned.protocol),
                    ("starting weights", lineage(metadata.starting_weights)),
                    ("fingerprint", learned.fingerprint),
                ]
            ),
        ),
        *_section("measured at (95 % intervals in brackets)", _figures(metadata)),
        *_section("decides by", _facts(_decisions(metadata))),
        *_section(
            "may be used for",
            _facts(
                [("intended use", metadata.intended_use), ("limits", metadata.limits), ("licence", metadata.licence)]
            ),
        ),
    )


def _identity(metadata: Metadata, bundle: str) -> Iterator[tuple[str, str]]:
    yield "identity", bundle
    yield "made", metadata.created.isoformat()
    yield "network", f"{metadata.backbone}, {metadata.input_size} x {metadata.input_size} pixels"


def _decisions(metadata: Metadata) -> Iterator[tuple[str, str]]:
    yield "stage", _rule(metadata.decision)
    yield "temperature", f"{metadata.temperature:.3g}"
    yield "referable", f"from probability {metadata.referable_threshold:.3g}"
    for name, point in metadata.operating_points.items():
        yield (
            name,
            f"from {point.threshold:.3g}: sensitivity {point.sensitivity}, specificity {point.specificity}",
        )
    yield (
        "prediction sets",
        "none"
        if metadata.conformal is None
        else f"hold the true stage for {metadata.conformal.coverage:.0%} of photographs like those learned from",
    )
    yield "second reader", f"advised where the variance of the stage is above {metadata.second_reader_spread:.3g}"
    yield (
        "change over time",
        "not judged: the noise of photographing again was not measured"
        if metadata.retest_noise is None
        else f"claimed beyond {metadata.retest_noise:.2f} grades, which photographing again stays within in 98 %",
    )
    yield (
        "out of distribution",
        "not recognised"
        if metadata.out_of_distribution is None
        else f"refused beyond distance {metadata.out_of_distribution.limit:.3g} from the photographs learned from",
    )
    yield (
        "poor quality",
        "refused by the gate, which measures light, colour and sharpness"
        if metadata.quality_head is None
        else "refused by the gate, which measures light, colour and sharpness, and by what the network sees",
    )


def _rule(decision: Decision) -> str:
    match decision.rule:
        case "argmax":
            return "the most probable one"
        case "median":
            return "the median of the probabilities"
        case "mean":
            return f"the expected grade, cut at {', '.join(f'{cut:.3g}' for cut in decision.cuts)}"


def _figures(metadata: Metadata) -> RenderableType:
    if not metadata.figures:
        return Text("  nothing: this bundle carries no figures")
    table = Table.grid(padding=(0, 2))
    of = None
    for figure in metadata.figures:
        if (heading := f"  {figure.set}: {figure.of}") != of:
            table.add_row(Text(heading))
            of = heading
        table.add_row(Text(f"    {figure.title}", style="dim"), Text(str(figure.estimate)))
    return table


def _section(title: str, body: RenderableType) -> tuple[RenderableType, ...]:
    return Text(title, style="bold"), body, Text()


def _facts(pairs: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=18)
    table.add_column(overflow="fold")
    for name, fact in pairs:
        table.add_row(Text(f"  {name}", style="dim"), Text(fact))
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
