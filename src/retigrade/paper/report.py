"""The report: what was printed beside what was measured, as one page, as Markdown, and each table as CSV."""

from __future__ import annotations

from pathlib import Path

from retigrade.files import write_whole
from retigrade.paper.config import printed_name
from retigrade.paper.experiment import Experiment
from retigrade.paper.figures import (
    Album,
    balance_figure,
    confusion_figures,
    curves_figure,
    stages_figure,
    thermal_figure,
)
from retigrade.paper.scores import (
    confusion_table,
    fold_table,
    leak_table,
    means_table,
    protocols_table,
    stages_table,
)
from retigrade.paper.summary import Facts, lay_out
from retigrade.paper.tables import audit_table, data_table, layers_table, networks_table, parts_table, training_table
from retigrade.report.document import Block, Image, Table, Text, as_html, as_markdown

HTML, MARKDOWN, TABLES, FIGURES = "report.html", "report.md", "tables", "figures"

_LEFT_OUT = "{}: photographs are left out of this copy of the report."


def write_report(experiment: Experiment, album: Album, out: Path, *, photographs: bool) -> None:
    """Write the report of the trainings finished so far into a folder, each file whole or not at all.

    photographs: embed some of them in Figures 2 and 4; without, the report may be shown to anyone.
    Raises UsageError where a file cannot be written.
    """
    facts, tables, figures = parts_of(experiment, album, photographs=photographs)
    document = lay_out(facts, tables, figures)
    files = {out / TABLES / f"{table.key}.csv": table.as_csv().encode() for table in tables.values()}
    files |= {out / FIGURES / image.file: image.data for image in document.images()}
    files[out / MARKDOWN] = as_markdown(document, images=FIGURES).encode()
    files[out / HTML] = as_html(document).encode()
    for path, data in files.items():
        write_whole(path, data)
    for folder, suffixes in ((TABLES, (".csv",)), (FIGURES, (".svg", ".jpg"))):
        for old in (out / folder).iterdir():  # of an earlier report, which may have shown more
            if old not in files and old.suffix in suffixes:
                old.unlink()


def parts_of(
    experiment: Experiment, album: Album, *, photographs: bool
) -> tuple[Facts, dict[str, Table], dict[str, Block]]:
    """What the report tells, its tables and its figures by their keys: of what is finished and nothing else."""
    trainings, experiment = len(experiment.config.runs()), experiment.so_far()
    results, config = experiment.results(), experiment.config
    made = [
        protocols_table(experiment, results),
        leak_table(experiment, results),
        parts_table(experiment, results),
        data_table(experiment),
        layers_table(),
        networks_table(experiment),
        training_table(experiment),
        stages_table(experiment, results),
        confusion_table(experiment, results),
        *(
            fold_table(experiment, results, protocol)
            for protocol in config.protocols
            if any(key[0] is protocol for key in results)
        ),
        means_table(experiment, results),
        audit_table(),
    ]
    images: list[Image] = [
        balance_figure(experiment),
        curves_figure(experiment),
        *confusion_figures(experiment, results),
    ]
    figures: dict[str, Block] = {image.key: image for image in images}
    if photographs:
        thermal, answers = thermal_figure(experiment, album)
        figures |= {"figure_2": stages_figure(experiment, album), "figure_4": thermal}
        made.append(answers)
    else:
        figures |= {key: Text(_LEFT_OUT.format(name)) for key, name in _PHOTOGRAPHS.items()}
    return _facts(experiment, trainings=trainings), {table.key: table for table in made}, figures


_PHOTOGRAPHS = {"figure_2": "Figure 2", "figure_4": "Figure 4"}


def _facts(experiment: Experiment, *, trainings: int) -> Facts:
    config, manifest = experiment.config, experiment.manifest
    starts = {name: network.start for name, network in experiment.networks.items() if not network.complete}
    short = list(config.shortfalls(starts))
    if len(experiment.finished) < trainings:
        short.append(f"{len(experiment.finished)} of {trainings} trainings so far")
    return Facts(
        shortfalls=tuple(short),
        network=printed_name(config.networks[0]),
        preparation=config.preparations[0],
        weak=tuple(f"{printed_name(name)} ({start})" for name, start in starts.items()),
        photographs=len(manifest),
        fingerprint=manifest.fingerprint,
        size=config.size,
        seed=config.seed,
        left_out=len(manifest.left_out),
        protocols=config.protocols,
    )
