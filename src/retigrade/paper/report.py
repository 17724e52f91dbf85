"""The report: what was printed beside what was measured, as one page, as Markdown, and each table as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from retigrade.files import write_whole
from retigrade.paper.audit import audit
from retigrade.paper.config import Protocol, printed_name
from retigrade.paper.experiment import Experiment, Results
from retigrade.paper.figures import (
    Album,
    balance_figure,
    confusion_figures,
    curves_figure,
    stages_figure,
    thermal_figure,
)
from retigrade.paper.printed import CLAIMS, TABLE_1
from retigrade.paper.scores import fold_table, leak_table, means_table, protocols_table, stages_table
from retigrade.paper.tables import audit_table, data_table, layers_table, networks_table, parts_table, training_table
from retigrade.report.document import Block, Document, Section, Text, as_html, as_markdown

HTML, MARKDOWN, TABLES, FIGURES = "report.html", "report.md", "tables", "figures"

_LEFT_OUT = "{}: photographs are left out of this copy of the report."
_EXPLAINED = {
    Protocol.PUBLISHED: "Published: the whole frame squeezed to a square, whatever its aspect; photographs divided at "
    "random one by one; and the epoch picked on the very photographs that then evaluate it, as the text says "
    "(section 3).",
    Protocol.LEAKING: "Leaking: the networks of the published protocol, evaluated on so many photographs that, as the "
    "printed support of 2,674 implies, most of them must have been learned from.",
    Protocol.HONEST: "Honest: the retina alone on a canonical field, in training so cut that the cut does not go with "
    "the stage; duplicates and patients kept together; the epoch chosen on a part of the training photographs; "
    "evaluated on photographs that nothing was chosen on.",
}


def write_report(experiment: Experiment, album: Album, out: Path, *, photographs: bool) -> None:
    """Write the report of the trainings finished so far into a folder, each file whole or not at all.

    photographs: embed some of them in Figures 2 and 4; without, the report may be shown to anyone.
    Raises UsageError where a file cannot be written.
    """
    document = compose(experiment, album, photographs=photographs)
    files = {out / TABLES / f"{table.key}.csv": table.as_csv().encode() for table in document.tables()}
    files |= {out / FIGURES / image.file: image.data for image in document.images()}
    files[out / MARKDOWN] = as_markdown(document, images=FIGURES).encode()
    files[out / HTML] = as_html(document).encode()
    for path, data in files.items():
        write_whole(path, data)
    for folder, suffixes in ((TABLES, (".csv",)), (FIGURES, (".svg", ".jpg"))):
        for old in (out / folder).iterdir():  # of an earlier report, which may have shown more
            if old not in files and old.suffix in suffixes:
                old.unlink()


def compose(experiment: Experiment, album: Album, *, photographs: bool) -> Document:
    """The report as data: of what is finished and nothing else."""
    trainings, experiment = len(experiment.config.runs()), experiment.so_far()
    results = experiment.results()
    stages = stages_figure(experiment, album) if photographs else Text(_LEFT_OUT.format("Figure 2"))
    thermal: tuple[Block, ...] = (
        thermal_figure(experiment, album) if photographs else (Text(_LEFT_OUT.format("Figure 4")),)
    )
    networks = (
        layers_table(),
        networks_table(experiment),
        training_table(experiment),
        curves_figure(experiment),
    )
    scores = (
        *confusion_figures(experiment, results),
        stages_table(experiment, results),
        *(
            fold_table(experiment, results, protocol)
            for protocol in experiment.config.protocols
            if any(key[0] is protocol for key in results)
        ),
        means_table(experiment, results),
        *thermal,
    )
    return Document(
        title=_title(experiment, trainings=trainings),
        lead=tuple(_lead(experiment, results)),
        sections=(
            Section("The protocols side by side", tuple(_protocols(experiment, results))),
            Section("The photographs", (data_table(experiment), balance_figure(experiment), stages)),
            Section("The networks and their training", networks),
            Section("Results", scores),
            Section("The publication's arithmetic", (Text(_conclusions()), audit_table())),
        ),
    )


def _title(experiment: Experiment, *, trainings: int) -> str:
    """What was run and how far it is from the whole, of which there were to be so many trainings."""
    starts = {name: network.start for name, network in experiment.networks.items() if not network.complete}
    short = list(experiment.config.shortfalls(starts))
    if len(experiment.finished) < trainings:
        short.append(f"{len(experiment.finished)} of {trainings} trainings so far")
    return "The publication run again, " + (f"scaled down: {'; '.join(short)}" if short else "in full")


def _lead(experiment: Experiment, results: Results) -> Iterator[str]:
    config, manifest = experiment.config, experiment.manifest
    yield (
        'Huynh, Do, Huynh, Tran and Tran, "Classification of Stages Diabetic Retinopathy Using MobileNetV2 Model". '
        "Every printed value stands beside the one measured here. Research use only, not a medical device."
    )
    yield (
        f"{len(manifest):,} photographs, fingerprint {manifest.fingerprint[:12]}; the publication has "
        f"{sum(TABLE_1.total):,}. Size {config.size}, seed {config.seed}."
    )
    weak = [f"{printed_name(name)} ({item.start})" for name, item in experiment.networks.items() if not item.complete]
    if weak:
        yield (
            "Not started from complete ImageNet weights, and so not comparable with the publication: "
            f"{', '.join(weak)}."
        )
    accuracies = []
    for (protocol, network, preparation), folds in results.items():
        if (network, preparation) == (config.networks[0], config.preparations[0]):
            right = sum(float((fold.target == fold.predicted).sum()) for fold in folds)
            accuracies.append(f"{right / sum(len(fold.target) for fold in folds):.3f} {protocol}")
    if accuracies:
        yield (
            f"Accuracy of {printed_name(config.networks[0])} on the same photographs: {', '.join(accuracies)}. The "
            f"publication prints {CLAIMS.accuracy / 100:.3f} for MobileNetV2."
        )
    if manifest.left_out:
        yield f"Left out as missing or unreadable: {len(manifest.left_out)} photographs."


def _protocols(experiment: Experiment, results: Results) -> Iterator[Block]:
    yield from (Text(_EXPLAINED[protocol]) for protocol in experiment.config.protocols)
    yield Text(
        "The text trains on 80 % and validates on 20 %, three times, and calls it 3-fold cross-validation. Here a fold "
        "is a fifth of the photographs (less where more than five folds are asked for), disjoint from the others."
    )
    yield protocols_table(experiment, results)
    yield leak_table(experiment, results)
    yield parts_table(experiment, results)


def _conclusions() -> str:
    counts = Counter(finding.conclusion for finding in audit())
    return (
        "Each claim put to the test by the publication's own printed numbers and by public facts: "
        + ", ".join(f"{count} {conclusion}" for conclusion, count in counts.items())
        + "."
    )
