"""MODEL_CARD.md, made from a bundle's metadata and its evaluation, never typed.

python -m retigrade.evaluation.model_card --report report.json [--bundle FILE] --out MODEL_CARD.md
                                           [--external report.json ...] [--left-out evaluation.json]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retigrade.bundle import Bundle
from retigrade.errors import DataError
from retigrade.evaluation import tables
from retigrade.evaluation.report import RETEST, by_chance, faithfulness, second_reader
from retigrade.evaluation.result import ALL, EvaluationResult, Slice
from retigrade.files import write_whole
from retigrade.grader import load
from retigrade.icdr import GRADES
from retigrade.metadata import Metadata
from retigrade.report.document import Block, Document, Section, Table, Text, as_markdown
from retigrade.report.style import CAPTION
from retigrade.text import lineage

_ALWAYS = (
    "It does not look for macular oedema, nor for any other disease.",
    "It sees one field of one eye at a time; a person's result is not the result of one photograph.",
    "Cameras and populations other than those of the data sets named below may give other figures; measure them first: "
    "retigrade evaluate.",
)
_NOT_MEASURED = Text("Not measured in this evaluation.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Evaluations that say what to expect of other clinics.

    external: of the bundle, on data sets that it was neither learned from nor chosen on. left_out: of networks of which
    each learned from all sources but the one that it is measured on.
    """

    external: Sequence[EvaluationResult] = ()
    left_out: EvaluationResult | None = None

    @classmethod
    def read(cls, external: Iterable[Path], left_out: Path | None) -> Elsewhere:
        """Read them from files `report.json` and a run's `evaluation.json`; DataError where one is none."""
        return cls(
            external=[EvaluationResult.read(path) for path in external],
            left_out=None if left_out is None else EvaluationResult.read(left_out),
        )


def model_card(bundle: Bundle, result: EvaluationResult, *, elsewhere: Elsewhere | None = None) -> str:
    """Return the model card as Markdown; DataError where the result is of another bundle."""
    if result.bundle != bundle.identity:
        raise DataError(
            f"the evaluation is of {result.bundle} and the bundle is {bundle.identity}; evaluate this bundle"
        )
    lead = f"Made from the bundle and its evaluation of {result.made}; do not edit."
    sections = tuple(_sections(bundle.metadata, result, elsewhere or Elsewhere()))
    return as_markdown(Document(f"Model card: {result.bundle}", (lead,), sections))


def _sections(metadata: Metadata, result: EvaluationResult, elsewhere: Elsewhere) -> Iterator[Section]:
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
    missing = [Text(f"The bundle lacks {what}.") for what in result.missing]
    yield Section("Limits", (Text(metadata.limits), *map(Text, _ALWAYS), *missing))
    yield Section(
        "Model",
        (
            _facts(
                ("network", f"{metadata.backbone}, {metadata.input_size} x {metadata.input_size} pixels"),
                ("made", metadata.created.isoformat()),
                ("starting weights", lineage(metadata.starting_weights)),
                ("licence", metadata.licence),
                ("decision", f"{metadata.decision.rule} of the five probabilities"),
                ("temperature", f"{metadata.temperature:.3g}"),
                (
                    "second reader",
                    f"advised where the variance of the stage is above {metadata.second_reader_spread:.3g}",
                ),
            ),
        ),
    )
    yield Section(
        "Data and protocol",
        (
            Text(learned.protocol),
            _facts(
                ("photographs learned from", f"{learned.photos:,}"),
                ("epochs", str(learned.epochs)),
                ("sources", ", ".join(f"{name} {count}" for name, count in learned.sources.items())),
                ("stages", ", ".join(f"{grade.stage} {learned.grades[grade]}" for grade in GRADES)),
                ("fingerprint of the data set", learned.fingerprint),
                ("fingerprint of the split", learned.splits),
            ),
        ),
    )
    remarks = (Text(remark, warning=True) for remark in result.remarks)
    yield Section("Evaluated on", (tables.photographs(result), *remarks))
    if result.headline:
        yield Section("Figures", (tables.headline(result), tables.stages(result), tables.confusion(result)))
        yield Section("Operating points", (tables.points(result),))
        sets = () if result.prediction_sets is None else (tables.prediction_sets(result.prediction_sets),)
        yield Section("Reliability", (tables.coverage_curve(result), *sets))
        yield Section("By source", tuple(_by_source(metadata, result)))
        if blocks := tuple(_elsewhere(elsewhere)):
            yield Section("Elsewhere", blocks)
        if result.quality:
            yield Section("By quality", (tables.slices("quality", result.quality),))
    refusals = (tables.refusal_counts(result),) if result.refusals else ()
    yield Section("Refusal", (tables.statuses(result), *refusals, *second_reader(result)))
    heat = tuple(faithfulness(result)) or (_NOT_MEASURED,)
    yield Section("Heatmap", (Text(f"It shows {CAPTION}."), *heat))
    suite = result.robustness
    yield Section("Robustness", (_NOT_MEASURED if suite is None else tables.robustness(suite),))
    noise = (_NOT_MEASURED,) if result.retest is None else (Text(RETEST), tables.retest(result.retest))
    yield Section("Photographed again", noise)


def _by_source(metadata: Metadata, result: EvaluationResult) -> Iterator[Block]:
    yield tables.slices("source", result.sources)
    yield from by_chance(result)
    if metadata.figures == result.stored_figures():
        yield Text("These are the figures that the bundle says of itself.")
    elif metadata.figures:
        rows = [(figure.set, figure.of, figure.title, figure.estimate) for figure in metadata.figures]
        yield Text("What the bundle says of itself, measured on other photographs:")
        yield Table(("set", "photographs", "figure", "value (95 % interval)"), rows)


def _elsewhere(elsewhere: Elsewhere) -> Iterator[Block]:
    if elsewhere.external:
        yield Text("Data sets that this network neither learned from nor was chosen on:")
        yield tables.slices("source", [one for result in elsewhere.external for one in _single(result)])
    if elsewhere.left_out is not None:
        yield Text(
            "Other networks, each trained by a short recipe on all sources but the one that it is measured on: how "
            "much is lost in a clinic that nothing was learned from."
        )
        yield tables.slices("source", _single(elsewhere.left_out))


def _single(result: EvaluationResult) -> Sequence[Slice]:
    """The figures of each source, without those of all together; one alone has none but these."""
    if len(result.sources) == 1:
        return [result.sources[0].model_copy(update={"name": ", ".join(result.photographs.sources)})]
    return [one for one in result.sources if one.name != ALL]


def _facts(*rows: tuple[str, str]) -> Table:
    return Table(("", ""), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The evaluation's report.json, the bundle that it is of, and the file to write."""

    report: Path
    out: Path
    bundle: Path | None = None
    external: tuple[Path, ...] = ()
    left_out: Path | None = None


def main(arguments: Arguments) -> None:
    """Write the model card; raises RetigradeError where an input cannot be used."""
    result = EvaluationResult.read(arguments.report)
    elsewhere = Elsewhere.read(arguments.external, arguments.left_out)
    text = model_card(load(arguments.bundle).bundle, result, elsewhere=elsewhere)
    write_whole(arguments.out, text.encode())


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Arguments)
