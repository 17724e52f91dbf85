"""Write docs/benchmarks.md and its picture: Retigrade beside what others would use.

    pip install '.[train]' openvino && python -m venv keras && keras/bin/pip install tensorflow-cpu pillow
    python -m venv alone && alone/bin/pip install .
    python benchmarks/page.py --keras keras/bin/python --python alone/bin/python [--rounds 15] [--only cold training]

Each round of a section runs every entry once, so that a drifting machine drifts for all of them; a ratio is taken
within a round, and its median and range are over the rounds. Every section's values are kept in benchmarks.json beside
the page as soon as they are there: a run that was cut short goes on with `--only`. What is not installed is named.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

import sections
from retigrade.bundle import cpu_count
from sections import SECTIONS, Bench, Table
from timing import machine


@dataclass(frozen=True)
class Goal:
    """A ratio of two entries that was aimed at."""

    words: str
    table: str
    entry: str
    most: float | None = None
    least: float | None = None

    def reached(self, ratio: float) -> bool:
        return ratio <= self.most if self.most is not None else self.least is not None and ratio >= self.least


GOALS = (
    Goal(
        "the whole pipeline of a 7-megapixel JPEG, a Keras user's over ours",
        sections.PIPELINE,
        sections.KERAS,
        least=10,
    ),
    Goal("`retigrade grade one.jpg`, cold, a Keras script over ours", sections.COLD, sections.SCRIPTED, least=10),
    Goal("a training step, Keras over ours", sections.TRAINING, sections.STEP, least=3.5),
    Goal("a 12-megapixel JPEG graded and mapped, over decode and inference", sections.PARTS, sections.GRADE, most=1.2),
    Goal("... with the map in every pixel of the photograph", sections.PARTS, sections.HEAT, most=1.6),
)


@dataclass(frozen=True)
class Page:
    """Where Keras is, how often each is run, which sections, where the page goes."""

    keras: Path | None = None
    """The Python of an environment with tensorflow-cpu and Pillow."""
    rounds: int = 15
    only: tuple[Literal["network", "reading", "parts", "cold", "training"], ...] = ()
    """Measure these sections anew, and take the others from benchmarks.json."""
    compiled: bool = True
    """Also measure PyTorch compiled, which takes a minute of a compiler."""
    clock: Literal["wall", "processor"] = "wall"
    """processor: seconds of processors, for a machine that does other work too."""
    python: Path = Path(sys.executable)
    """For cold starts: an environment with `pip install .` alone, as the other packages of this one take time too."""
    out: Path = Path("docs")

    def run(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        kept = self.out / "benchmarks.json"
        results = json.loads(kept.read_text("utf-8")) if self.only and kept.exists() else {}
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), self.keras, self.rounds, self.compiled, self.clock, self.python)
            for name in self.only or SECTIONS:
                started = time.perf_counter()
                results[name] = measure(name, bench) | {"seconds": round(time.perf_counter() - started)}
                results = {section: results[section] for section in SECTIONS if section in results}
                kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                page(results, self.out)
                print(f"{name}: {results[name]['seconds']} s", flush=True)
            bench.close()
        print((self.out / "benchmarks.md").read_text("utf-8"))


def measure(name: str, bench: Bench) -> dict[str, object]:
    """Run one section."""
    bench.missing.clear()
    tables = SECTIONS[name](bench)
    used = "one core" if cpu_count() == 1 else f"{cpu_count()} cores"
    load = f"{os.getloadavg()[0]:.1f}"
    clock = "wall clock" if bench.clock == "wall" else "processor time, as the machine did other work too"
    return {
        "measured": f"{time.strftime('%Y-%m-%d')} on {used} of {machine()}, load {load} at the end; {clock}",
        "missing": sorted(set(bench.missing)),
        "tables": [asdict(table) for table in tables],
    }


def page(results: dict[str, dict], folder: Path) -> None:
    """Write the page and its picture from the sections' results."""
    tables = [Table(**table) for result in results.values() for table in result["tables"]]
    draw(tables, folder / "benchmarks.svg")
    (folder / "benchmarks.md").write_text("\n".join(lines(results, tables)) + "\n", encoding="utf-8")


def lines(results: dict[str, dict], tables: list[Table]) -> Iterator[str]:
    yield from (
        "# Speed and memory beside others",
        "",
        "Made by `python benchmarks/page.py --keras PYTHON`. Within a section each round runs every entry once, and a",
        "ratio is of the same round, so it holds on a machine that drifts. Medians, and ranges over the rounds; every",
        "value is in [benchmarks.json](benchmarks.json). The photographs are drawn eyes, saved as JPEG of quality 90.",
        "",
        "![Ratios](benchmarks.svg)",
        "",
        "## What was aimed at",
        "",
        "| ratio | aim | median | range | reached |",
        "|---|---|---|---|---|",
    )
    by_title = {table.title: table for table in tables}
    for goal in GOALS:
        aim = f"at most {goal.most:g}" if goal.most is not None else f"at least {goal.least:g}"
        table = by_title.get(goal.table)
        if table is None or goal.entry not in table.values:
            yield f"| {goal.words} | {aim} | not measured | | |"
            continue
        found = ratios(table)[goal.entry]
        middle = statistics.median(found)
        yield f"| {goal.words} | {aim} | {middle:.2f} | {span(found, 2)} | {'yes' if goal.reached(middle) else 'no'} |"
    for result in results.values():
        for table in (Table(**table) for table in result["tables"]):
            base = next(iter(table.values))
            digits = 0 if table.unit == "MiB" else 1
            yield from ("", f"## {table.title}", "")
            yield from (table.note, "") if table.note else ()
            yield f"| | {table.unit}, median | range | times {base} | range |"
            yield "|---|---|---|---|---|"
            for name, found in ratios(table).items():
                values = table.values[name]
                yield (
                    f"| {name} | {statistics.median(values):.{digits}f} | {span(values, digits)} | "
                    f"{statistics.median(found):.2f} | {span(found, 2)} |"
                )
        yield from ("", f"Measured {result['measured']}.")
        if result["missing"]:
            yield f"Not measured here: {'; '.join(result['missing'])}."
    if absent := [name for name in SECTIONS if name not in results]:
        yield from ("", f"Sections that have not been measured: {', '.join(absent)}.")


def ratios(table: Table) -> dict[str, list[float]]:
    """Each entry over the first one, round by round."""
    base = next(iter(table.values.values()))
    return {
        name: [value / first for value, first in zip(values, base, strict=True)]
        for name, values in table.values.items()
    }


def span(values: list[float], digits: int) -> str:
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


def draw(tables: list[Table], path: Path) -> None:
    """Draw the ratios, a panel a table, a bar an entry with its range."""
    from matplotlib.figure import Figure

    counts = [len(table.values) - 1 for table in tables]
    figure = Figure(figsize=(8.5, 0.3 * sum(counts) + 0.62 * len(tables)), layout="constrained")
    panels = figure.subplots(len(tables), 1, height_ratios=[count + 0.4 for count in counts], squeeze=False)[:, 0]
    widest = max(max(found) for table in tables for found in ratios(table).values())
    for axes, table in zip(panels, tables, strict=True):
        base, *entries = ratios(table).items()
        names = [name for name, _ in reversed(entries)]
        middles = [statistics.median(found) for _, found in reversed(entries)]
        low = [middle - min(found) for middle, (_, found) in zip(middles, reversed(entries), strict=True)]
        high = [max(found) - middle for middle, (_, found) in zip(middles, reversed(entries), strict=True)]
        from_one = [middle - 1 for middle in middles]
        axes.barh(names, from_one, left=1, xerr=[low, high], height=0.62, color="#2a7f8e", ecolor="#5c6670", capsize=2)
        for place, (middle, above) in enumerate(zip(middles, high, strict=True)):
            axes.annotate(f"{middle:.2g}" if middle < 10 else f"{middle:.0f}", (max(1, middle + above), place),
                          xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        axes.axvline(1, color="#22303a", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(0.2, 2.2 * widest)
        axes.set_title(f"{table.title} (1 = {base[0]})", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)
    panels[-1].set_xlabel(
        "times as much as the entry named 1, logarithmic; whiskers: range over the rounds", fontsize=8
    )
    panels[-1].xaxis.set_major_formatter("{x:g}")
    figure.savefig(path)


if __name__ == "__main__":
    tyro.cli(Page).run()
