"""Training runs side by side: their figures on the same photographs, and which differences are noise.

The differences are paired: each resample takes the same patients and duplicate groups for both runs, so what makes a
photograph hard for both cancels (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.arrays import Integers
from retigrade.data.groups import connected_components, positions_by_key
from retigrade.errors import DataError, UsageError, needs_extra
from retigrade.experiments.predictions import MEASURED, TEST, PredictionRow, as_sample, figures_of, read_predictions
from retigrade.experiments.record import RunRecord
from retigrade.files import write_whole
from retigrade.metrics.bootstrap import FEWEST_GROUPS, Bootstrap
from retigrade.metrics.estimate import Estimate
from retigrade.metrics.registry import METRICS, Sample
from retigrade.report.document import Document, Section, Table, Text, as_html, as_markdown

LOWER_IS_BETTER = frozenset({"off_by_two", "ece", "brier", "nll"})
NOISE, BETTER, WORSE = "noise", "better", "worse"
ALL = "all"
"""The name of all common photographs together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A run's figure less the first run's, with the verdict on it: `better`, `worse`, or `noise`."""

    metric: str
    estimate: Estimate

    @property
    def verdict(self) -> str:
        """Noise where the 95 % interval holds 0, or none can be given."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or high is None or low <= 0 <= high:
            return NOISE
        return BETTER if (low > 0) != (self.metric in LOWER_IS_BETTER) else WORSE


@dataclass(frozen=True, slots=True, eq=False)
class ComparedPart:
    """One run on one data set, or on `ALL`: its figures, and their differences from the first run's, if another."""

    data_set: str
    photographs: int
    figures: dict[str, Estimate]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ComparedRun:
    """One run: its name, its record, and its parts: all common photographs first, then each of several data sets."""

    name: str
    record: RunRecord
    parts: tuple[ComparedPart, ...]

    @property
    def figures(self) -> dict[str, Estimate]:
        """On all common photographs."""
        return self.parts[0].figures

    @property
    def differences(self) -> tuple[Difference, ...]:
        """On all common photographs."""
        return self.parts[0].differences


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Runs on the photographs that all of them tested; groups: independent patients or duplicate groups of them."""

    runs: tuple[ComparedRun, ...]
    photographs: int
    groups: int
    remarks: tuple[str, ...]

    def figures_table(self) -> Table:
        """A row for each run and data set."""
        headings = ("data set", "photographs", "run", *(METRICS[key].short for key in MEASURED))
        rows: list[tuple[str | int | Estimate, ...]] = [
            (part.data_set, part.photographs, run.name, *(part.figures[key] for key in MEASURED))
            for together in zip(*(run.parts for run in self.runs), strict=True)
            for run, part in zip(self.runs, together, strict=True)
        ]
        return Table(headings, rows, key="figures", title="Figures", note="With 95 % intervals.")

    def differences_table(self) -> Table:
        """A row for each metric on each data set, of each run but the first."""
        rows = [
            (part.data_set, run.name, METRICS[each.metric].title, _signed(each.estimate), each.verdict)
            for run in self.runs[1:]
            for part in run.parts
            for each in part.differences
        ]
        count = max(1, len(rows))
        return Table(
            ("data set", "run", "metric", f"less {self.runs[0].name}", "verdict"),
            rows,
            key="differences",
            title="Differences",
            note="Paired bootstrap over whole patients and duplicate groups; noise: the interval of the difference "
            f"holds 0. Of {count} differences between equal runs about {0.05 * count:.1f} would look real by chance.",
        )

    def document(self) -> Document:
        """The comparison as a page."""
        options = _options_table(self.runs)
        return Document(
            "Training runs compared",
            (
                f"{self.photographs} photographs of {self.groups} independent patients or duplicate groups, each "
                "predicted by networks that did not learn from it. Research use only, not a medical device.",
            ),
            (
                Section("Figures", (*(Text(remark, warning=True) for remark in self.remarks), self.figures_table())),
                Section("Differences", (self.differences_table(),)),
                Section("What differs between the runs", (options,)),
            ),
        )


def compare(runs: Sequence[Path | str], *, out: Path | str | None = None, rounds: int = 2000) -> Comparison:
    """Compare the test predictions of training runs, photograph by photograph.

    runs: folders of finished runs, the first of which is what the others are compared with. out: a folder for
    compare.html, compare.md, figures.csv and differences.csv, None writes none. rounds: resamples.

    Raises UsageError for fewer than two runs or where the extra `report` is missing, DataError where a folder is no
    finished run, the runs disagree on a photograph's grade, or they tested no photograph in common.
    """
    if len(runs) < 2:
        raise UsageError(f"compare needs the folders of at least two runs, got {len(runs)}")
    with needs_extra("report"):
        import scipy  # noqa: F401
    folders = [Path(run) for run in runs]
    records, tested = [RunRecord.read(folder) for folder in folders], [_tested(folder) for folder in folders]
    common = [digest for digest in tested[0] if all(digest in each for each in tested[1:])]
    if not common:
        raise DataError(
            f"{folders[0]} and {folders[1]} tested no photograph in common; give them the same data and --seed, or "
            "cross-validate both with --folds"
        )
    rows = [[each[digest] for digest in common] for each in tested]
    for other in rows[1:]:
        for mine, theirs in zip(rows[0], other, strict=True):
            if mine.target != theirs.target:
                raise DataError(
                    f"{mine.name}: has grade {mine.target} in one run and {theirs.target} in another; give runs on one "
                    "data set"
                )
    groups = _groups(rows)
    samples, bootstrap = [as_sample(each) for each in rows], Bootstrap(rounds=rounds)
    parts = [
        (name, [_measured(sample, samples[0], positions, groups, bootstrap) for sample in samples], len(positions))
        for name, positions in _data_sets(rows[0]).items()
    ]
    compared = [
        ComparedRun(name, record, tuple(ComparedPart(part, count, *each[number]) for part, each, count in parts))
        for number, (name, record) in enumerate(zip(_names(folders), records, strict=True))
    ]
    independent = len(np.unique(groups))
    found = Comparison(tuple(compared), len(common), independent, tuple(_remarks(records, tested, common, independent)))
    if out is not None:
        _write(found, Path(out))
    return found


def _tested(folder: Path) -> dict[str, PredictionRow]:
    """The test predictions of a run by the photograph's SHA-256."""
    if RunRecord.read(folder).status != "finished":
        raise DataError(f"{folder}: its run is not finished; go on with it: retigrade train ... --resume")
    return {row.sha256: row for row in read_predictions(folder) if row.part == TEST}


def _groups(rows: Sequence[Sequence[PredictionRow]]) -> Integers:
    """Independent groups by what any of the runs holds together: int64 (n,)."""
    links = [group for each in rows for group in positions_by_key(row.group for row in each)]
    group_of = np.arange(len(rows[0]), dtype=np.int64)
    for together in connected_components(links, size=len(rows[0])):
        group_of[list(together)] = together[0]
    return group_of


def _data_sets(rows: Sequence[PredictionRow]) -> dict[str, Integers]:
    """Positions of all photographs and, where there are several data sets, of each one's."""
    sources = np.array([row.source for row in rows])
    names = np.unique(sources).tolist()
    each = {name: np.flatnonzero(sources == name) for name in names} if len(names) > 1 else {}
    return {ALL: np.arange(len(rows)), **each}


def _measured(
    sample: Sample, first: Sample, positions: Integers, groups: Integers, bootstrap: Bootstrap
) -> tuple[dict[str, Estimate], tuple[Difference, ...]]:
    """The figures of one run on some photographs, and their differences from the first run's, if it is another."""
    own = groups[positions]
    pivotal = np.array([METRICS[key].pivotal for key in MEASURED])
    figures = bootstrap.estimates(lambda drawn: figures_of(sample, drawn), positions, groups=own, pivotal=pivotal)
    differences: tuple[Difference, ...] = ()
    if sample is not first:
        less = bootstrap.estimates(
            lambda drawn: np.asarray(figures_of(sample, drawn) - figures_of(first, drawn)), positions, groups=own
        )
        differences = tuple(Difference(key, each) for key, each in zip(MEASURED, less, strict=True))
    return dict(zip(MEASURED, figures, strict=True)), differences


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names of the runs: the folders' own, or their paths where two are called the same."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _remarks(
    records: Sequence[RunRecord], tested: Sequence[dict[str, PredictionRow]], common: Sequence[str], groups: int
) -> list[str]:
    remarks = []
    most = max(map(len, tested))
    if len(common) < most:
        remarks.append(f"Only the {len(common)} photographs that every run tested are compared; one run tested {most}.")
    if groups < FEWEST_GROUPS:
        remarks.append(f"Only {groups} independent patients or duplicate groups: too few for intervals; all is noise.")
    if len({record.seed for record in records}) == 1 and len(records) > 1:
        remarks.append(
            "All runs have one seed: the intervals tell what other photographs would change, not what another seed "
            "would. Repeat each run with other seeds before you believe a small difference."
        )
    return remarks


def _options_table(runs: Sequence[ComparedRun]) -> Table:
    """The options, recipe values and versions in which the runs differ."""
    facts = [
        {**run.record.options, **{f"recipe: {key}": value for key, value in run.record.recipe.items()}, **{
            f"version: {key}": value for key, value in run.record.versions.items()
        }, "commit": run.record.commit, "data set": run.record.data.fingerprint[:12]}
        for run in runs
    ]  # fmt: skip
    keys = dict.fromkeys(key for each in facts for key in each)
    rows = [
        (key, *(str(each.get(key, "")) for each in facts))
        for key in keys
        if len({str(each.get(key, "")) for each in facts}) > 1
    ]
    return Table(("what", *(run.name for run in runs)), rows, key="options")


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not defined"
    interval = "" if estimate.low is None else f" ({estimate.low:+.3f} to {estimate.high:+.3f})"
    return f"{estimate.value:+.3f}{interval}"


def _write(found: Comparison, out: Path) -> None:
    document = found.document()
    files = {f"{table.key}.csv": table.as_csv() for table in (found.figures_table(), found.differences_table())}
    files |= {"compare.html": as_html(document), "compare.md": as_markdown(document)}
    for name, text in files.items():
        write_whole(out / name, text.encode("utf-8", errors="backslashreplace"))
