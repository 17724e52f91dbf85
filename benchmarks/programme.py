"""What the pictures of a programme's run cost, how large its folder is, and whom EyePACS names speak of.

    python benchmarks/programme.py ../shared/data/aptos2019/colored_images [--eyepacs ../shared/data/eyepacs/train]

The photographs are listed as those of patients with two eyes and two visits, and graded into a folder with and without
thermal pictures in turn, each in a process of its own. Both visits of an eye are photographs of different people here,
so the eyes that are compared are compared in vain, at the cost of others.
"""

from __future__ import annotations

import csv
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from retigrade.grading import Eye
from retigrade.identity import identify
from retigrade.inputs import expand
from retigrade.subjects import NamePattern
from timing import machine


@dataclass(frozen=True)
class Arguments:
    """Photographs, how many of them, how often, whether with patients, and a folder with EyePACS names."""

    folder: Annotated[Path, tyro.conf.Positional]
    photographs: int = 1000
    rounds: int = 2
    patients: bool = True
    eyepacs: Path | None = None


def write_list(path: Path, photographs: list[Path], *, patients: bool) -> None:
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("path", "patient", "eye", "date"))
        for number, photograph in enumerate(photographs):
            eye, year = ("right", "left")[number % 2], (2023, 2024)[number // 2 % 2]
            whose = (f"P{number // 4:04}", eye, f"{year}-05-02") if patients else ()
            table.writerow((photograph.resolve(), *whose))


def run(*arguments: str | Path) -> tuple[float, float]:
    """Grade, and return seconds by the clock and of the processor; the latter hardly depend on what else runs."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "retigrade", "grade", *map(str, arguments), "--format", "csv"]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, spent


def megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def costs(arguments: Arguments) -> None:
    photographs = [item.path for item in islice(expand([arguments.folder]).items, arguments.photographs)]
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        listing, out = Path(folder) / "list.csv", Path(folder) / "out"
        write_list(listing, photographs, patients=arguments.patients)
        for _ in range(arguments.rounds):
            seconds["without pictures"].append(run(listing, "--out", Path(folder) / "plain", "--no-heat"))
            seconds["with pictures"].append(run(listing, "--out", out))
        print(f"{len(photographs)} photographs")
        for place, clock in enumerate(("by the clock", "of the processor")):
            plain, pictures = (statistics.median(pair[place] for pair in pairs) for pairs in seconds.values())
            print(f"{clock}: {plain:.1f} s without pictures, {pictures:.1f} s with them, ratio {pictures / plain:.2f}")
        for name in ("heat", "thumbnails", "aligned", "report.html"):
            if (out / name).exists():
                print(f"{name}: {megabytes(out / name):.1f} MB")


def names(folder: Path) -> None:
    eyes = defaultdict(set)
    items = identify(expand([folder]), pattern=NamePattern.of("eyepacs")).items
    for item in items:
        eyes[item.subject.patient].add(item.subject.eye)
    both = sum(found == {Eye.RIGHT, Eye.LEFT} for found in eyes.values())
    unknown = sum(item.subject.eye is None for item in items)
    print(f"{len(items)} names: {len(eyes)} patients, {both} with both eyes; of an unknown eye {unknown}")


def main(arguments: Arguments) -> None:
    print(machine())
    if arguments.eyepacs:
        names(arguments.eyepacs)
    costs(arguments)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
