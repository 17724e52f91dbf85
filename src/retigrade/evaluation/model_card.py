"""MODEL_CARD.md, made from a bundle's card and its evaluation, never typed.

python -m retigrade.evaluation.model_card --report report.json [--bundle FILE] --out MODEL_CARD.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retigrade.bundle import Bundle
from retigrade.errors import DataError
from retigrade.evaluation import tables
from retigrade.evaluation.result import EvaluationResult
from retigrade.files import write_whole
from retigrade.grader import load
from retigrade.icdr import GRADES
from retigrade.metadata import Metadata
from retigrade.report.document import Block, Document, Section, Table, Text, as_markdown
from retigrade.report.style import CAPTION

_ALWAYS = (
    "It does not look for macular oedema, nor for any other disease.",
    "It sees one field of one eye at a time; a person's result is not the result of one photograph.",
    "Cameras and populations other than those of the data sets named above may give other figures; measure them first, "
    "with `retigrade evaluate`.",
)


def model_card(bundle: Bundle, found: EvaluationResult) -> str:
    """Return the model card as Markdown; DataError where the findings are of another bundle."""
    if found.bundle != bundle.identity:
        raise DataError(
            f"the evaluation is of {found.bundle} and the bundle is {bundle.identity}; evaluate this bundle"
        )
    return as_markdown(
        Document(
            title=f"Model card: {found.bundle}",
            lead=(f"Made from the bundle and its evaluation of {found.made}; do not edit.",),
            sections=tuple(_sections(bundle.metadata, found)),
        )
    )


def _sections(metadata: Metadata, found: EvaluationResult) -> Iterator[Section]:
    learned = metadata.training
    yield Section(
        "Intended use",
        (
            Text("Research use only, not a medical device.", warning=True),
            Text(metadata.intended_use),
            Text(
                "Three outcomes: referable (moderate or worse) goes to an ophthalmologist; not referable is screened "
                "again in time; without a grade, the photograph is taken again or a person looks at the eye."
            ),
        ),
    )
    yield Section("Limits", (Text(metadata.limits), *map(Text, _ALWAYS), *_absent(found)))
    yield Section(
        "Model",
        (
            Table(
                ("", ""),
                [
                    ("network", f"{metadata.backbone}, {metadata.input_size} x {metadata.input_size} pixels"),
                    ("made", metadata.created.isoformat()),
                    ("starting weights", metadata.starting_weights),
                    ("licence", metadata.licence),
                    ("decision", f"{metadata.decision.rule} of the five probabilities"),
                    ("temperature", f"{metadata.temperature:.3g}"),
                ],
            ),
        ),
    )
    yield Section(
        "Data and protocol",
        (
            Text(learned.protocol),
            Table(
                ("learned from", ""),
                [
                    ("photographs", str(learned.photos)),
                    ("passes", str(learned.epochs)),
                    ("sources", ", ".join(f"{name} {count}" for name, count in learned.sources.items())),
                    ("stages", ", ".join(f"{grade.stage} {learned.grades[grade]}" for grade in GRADES)),
                    ("fingerprint of the data set", learned.fingerprint),
                    ("fingerprint of the split", learned.splits),
                ],
            ),
            *_claims(metadata),
        ),
    )
    yield Section("Evaluated on", (tables.photographs(found), *(Text(one, warning=True) for one in found.remarks)))
    if found.headline:
        yield Section("Figures", (tables.headline(found), tables.stages(found), tables.confusion(found)))
        yield Section("Operating points", (tables.points(found),))
        sets = () if found.sets is None else (tables.sets(found),)
        yield Section("Calibration", (tables.steps(found), *sets, tables.trust(found)))
        yield Section("By source and quality", tuple(_slices(found)))
    yield Section("Refusal", tuple(_refusal(metadata, found)))
    yield Section("Thermal map", tuple(_faithfulness(found)))
    yield Section("Robustness", tuple(_robustness(found)))


def _absent(found: EvaluationResult) -> Iterator[Block]:
    for what in found.missing:
        yield Text(f"The bundle lacks {what}.")


def _claims(metadata: Metadata) -> Iterator[Block]:
    if metadata.figures:
        rows = [(one.set, str(one.photos), str(one.graded), one.metric, str(one.estimate)) for one in metadata.figures]
        yield Text("What the bundle says of itself, measured when it was made:")
        yield Table(("set", "photographs", "graded", "figure", "value (95 % interval)"), rows)


def _slices(found: EvaluationResult) -> Iterator[Block]:
    yield tables.slices("source", found.sources)
    if found.quality:
        yield tables.slices("quality", found.quality)


def _refusal(metadata: Metadata, found: EvaluationResult) -> Iterator[Block]:
    yield tables.statuses(found)
    if found.advised is not None:
        yield Text(
            f"A second reader is advised for {found.advised:.1%} of the graded photographs: those whose "
            f"probabilities have a variance above {metadata.second_reader_spread:.3g} squared stages."
        )


def _faithfulness(found: EvaluationResult) -> Iterator[Block]:
    yield Text(f"It shows {CAPTION}.")
    if found.faithfulness is None:
        yield Text("Not measured against lesions in this evaluation.")
    else:
        yield tables.faithfulness(found.faithfulness)


def _robustness(found: EvaluationResult) -> Iterator[Block]:
    if found.robustness is None:
        yield Text("Not measured in this evaluation.")
    else:
        yield tables.robustness(found.robustness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The evaluation's report.json, the bundle that it is of, and the file to write."""

    report: Path
    out: Path
    bundle: Path | None = None


def main(arguments: Arguments) -> None:
    """Write the model card; raises RetigradeError where an input cannot be used."""
    text = model_card(load(arguments.bundle).bundle, EvaluationResult.read(arguments.report))
    write_whole(arguments.out, text.encode())


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Arguments))
