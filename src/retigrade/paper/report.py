"""The report: what was printed beside what was measured, as one page, as Markdown, and each table as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retigrade.files import write_whole
from retigrade.paper.arithmetic import Verdict, audit
from retigrade.paper.document import Document, Figure, Section, Table
from retigrade.paper.drawings import (
    Album,
    balance_figure,
    confusion_figures,
    curves_plot,
    stages_figure,
    thermal_figure,
)
from retigrade.paper.printed import CLAIMS, TABLE_1
from retigrade.paper.scores import (
    Folds,
    fold_table,
    leak_table,
    means_table,
    protocols_table,
    stages_table,
)
from retigrade.paper.settings import Protocol, printed_name
from retigrade.paper.study import Study
from retigrade.paper.tables import data_table, layers_table, networks_table, parts_table, training_table

_LEFT_OUT = "{}: photographs are left out of this copy of the report."

HTML, MARKDOWN, TABLES, FIGURES = "report.html", "report.md", "tables", "figures"

_EXPLAINED = {
    Protocol.PUBLISHED: "Published: the whole frame squeezed to a square, whatever its aspect; photographs divided at "
    "random one by one; and the epoch picked on the very photographs that then judge it, as the text says (section 3).",
    Protocol.LEAKING: "Leaking: the networks of the published protocol, judged on so many photographs that, as the "
    "printed support of 2,674 implies, most of them must have been learned from.",
    Protocol.HONEST: "Honest: the retina alone on a canonical field, in training so cut that the cut does not go with "
    "the stage; duplicates and patients kept together; the epoch chosen on a part of the training photographs; judged "
    "on photographs that nothing was chosen on.",
}


def write_report(study: Study, album: Album, out: Path, *, photographs: bool) -> None:
    """Write the report of the trainings finished so far into a folder, each file whole or not at all.

    photographs: embed some of them in Figures 2 and 4; without, the report may be shown to anyone.
    Raises UsageError where a file cannot be written.
    """
    document = compose(study, album, photographs=photographs)
    kept = set()
    for table in document.tables():
        path = out / TABLES / f"{table.key}.csv"
        write_whole(path, table.as_csv().encode())
        kept.add(path)
    for figure in document.figures():
        path = out / FIGURES / figure.file
        write_whole(path, figure.data)
        kept.add(path)
    write_whole(out / MARKDOWN, document.as_markdown(figures=FIGURES).encode())
    write_whole(out / HTML, document.as_html().encode())
    for folder, suffixes in ((TABLES, (".csv",)), (FIGURES, (".svg", ".jpg"))):
        for old in (out / folder).iterdir():  # of an earlier report, which may have shown more
            if old not in kept and old.suffix in suffixes:
                old.unlink()


def compose(study: Study, album: Album, *, photographs: bool) -> Document:
    """The report as data: of what is finished and nothing else."""
    asked, study = study, study.so_far()
    judged = study.judged()
    return Document(
        title=_title(study, trainings=len(asked.settings.jobs())),
        lead=tuple(_lead(study, judged)),
        sections=(
            Section("The protocols side by side", tuple(_protocols(study, judged))),
            Section("The photographs", tuple(_photographs(study, album, photographs=photographs))),
            Section("The networks and their training", tuple(_networks(study))),
            Section("Results", tuple(_results(study, judged, album, photographs=photographs))),
            Section("The publication's arithmetic", tuple(_arithmetic())),
        ),
    )


def _title(study: Study, *, trainings: int) -> str:
    """What was run and how far it is from the whole, of which there were to be so many trainings."""
    starts = {name: one.start for name, one in study.contestants.items() if not one.complete}
    short = list(study.settings.shortfalls(starts))
    if len(study.finished) < trainings:
        short.append(f"{len(study.finished)} of {trainings} trainings so far")
    return "The publication run again, " + (f"scaled down: {'; '.join(short)}" if short else "in full")


def _lead(study: Study, judged: Folds) -> Iterator[str]:
    yield (
        'Huynh, Do, Huynh, Tran and Tran, "Classification of Stages Diabetic Retinopathy Using MobileNetV2 Model". '
        "Every printed value stands beside the one measured here. Research use only, not a medical device."
    )
    yield (
        f"{len(study.manifest):,} photographs, fingerprint {study.manifest.fingerprint[:12]}; the publication has "
        f"{sum(TABLE_1.total):,}. Size {study.settings.size}, seed {study.settings.seed}."
    )
    weak = [f"{printed_name(one.network)} ({one.start})" for one in study.contestants.values() if not one.complete]
    if weak:
        yield (
            "Not started from complete ImageNet weights, and so not comparable with the publication: "
            f"{', '.join(weak)}."
        )
    found = _accuracies(study, judged)
    if found:
        name = printed_name(study.settings.networks[0])
        yield (
            f"Accuracy of {name} on the same photographs: {', '.join(found)}. The publication prints "
            f"{CLAIMS.accuracy / 100:.3f} for MobileNetV2."
        )
    if study.manifest.unreadable:
        yield f"Left out as missing or unreadable: {len(study.manifest.unreadable)} photographs."


def _accuracies(study: Study, judged: Folds) -> list[str]:
    """Of each protocol for the first network and preparation, all folds together."""
    first = (study.settings.networks[0], study.settings.preparations[0])
    found = []
    for (protocol, *rest), folds in judged.items():
        if tuple(rest) == first:
            right = sum(float((one.target == one.predicted).sum()) for one in folds)
            found.append(f"{right / sum(len(one.target) for one in folds):.3f} {protocol}")
    return found


def _protocols(study: Study, judged: Folds) -> Iterator[str | Table | Figure]:
    yield from (_EXPLAINED[protocol] for protocol in study.settings.protocols)
    yield (
        "The text trains on 80 % and validates on 20 %, three times, and calls it 3-fold cross-validation. Here a fold "
        "is a fifth of the photographs (less where more than five folds are asked for), disjoint from the others."
    )
    yield protocols_table(study, judged)
    yield leak_table(study, judged)
    yield parts_table(study)


def _photographs(study: Study, album: Album, *, photographs: bool) -> Iterator[str | Table | Figure]:
    yield data_table(study)
    yield balance_figure(study)
    yield stages_figure(study, album) if photographs else _LEFT_OUT.format("Figure 2")


def _networks(study: Study) -> Iterator[str | Table | Figure]:
    yield layers_table()
    yield networks_table(study)
    yield training_table(study)
    yield curves_plot(study)


def _results(study: Study, judged: Folds, album: Album, *, photographs: bool) -> Iterator[str | Table | Figure]:
    yield from confusion_figures(study, judged)
    yield stages_table(study, judged)
    for protocol in study.settings.protocols:
        if any(key[0] is protocol for key in judged):
            yield fold_table(study, judged, protocol)
    yield means_table(study, judged)
    if photographs:
        yield from thermal_figure(study, album)
    else:
        yield _LEFT_OUT.format("Figure 4")


def _arithmetic() -> Iterator[str | Table | Figure]:
    findings = audit()
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    yield (
        "Each claim put to the test by the publication's own printed numbers and by public facts: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        + "."
    )
    yield Table(
        "arithmetic",
        "The audit",
        ("claim", "where", "verdict", "computed", "how"),
        tuple((one.claim, one.where, one.verdict, one.computed, one.how) for one in findings),
    )
