"""Kill a folder run with SIGKILL at random moments, resume it each time, and compare it with an unbroken run.

    python benchmarks/kill.py FOLDER... [--photos 700] [--kills 20] [--seed 0] [--jobs 2]

It runs `retigrade grade LIST --out DIR --resume` as a user would, on photographs taken evenly from the folders; two of
the kills come while the finished run is published. Printed are, for each kill, the rows kept and how much work was
lost: the time since the last row was written, times the jobs. Exit code 1 where a row is missing, double or another, a
file is missing or left over, or more than a second of work was lost.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from retigrade.inputs import expand

JOURNAL, LISTING = Path(".retigrade") / "journal.jsonl", "gradings.jsonl"
LAST = 2  # kills while the run is published
LOST = 1.0  # seconds of work


@dataclass(frozen=True)
class Arguments:
    """The photographs, how many of them, how often to kill, and the seed of the moments."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    photos: int = 700
    kills: int = 20
    seed: int = 0
    jobs: int = 2


def main(arguments: Arguments) -> int:
    rng = np.random.default_rng(arguments.seed)
    found = [item.path.absolute() for item in expand(list(arguments.folders)).items]
    chosen = found[:: max(1, len(found) // arguments.photos)][: arguments.photos]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        listed, unbroken, killed = folder / "list.csv", folder / "unbroken", folder / "killed"
        listed.write_text("path\n" + "".join(f"{path}\n" for path in chosen))
        started = time.monotonic()
        subprocess.run(command(listed, unbroken, arguments.jobs), check=False, capture_output=True)
        print(f"unbroken: {len(chosen)} photographs in {time.monotonic() - started:.0f} s", flush=True)
        pace = (time.monotonic() - started) / len(chosen)
        moments = np.sort(rng.uniform(0, len(chosen), arguments.kills - LAST))
        lost = [
            kill(
                command(listed, killed, arguments.jobs),
                killed,
                after=int(moment),
                pause=rng.uniform(0, pace),
                total=len(chosen),
            )
            for moment in (*moments, *(len(chosen),) * LAST)
        ]
        subprocess.run(command(listed, killed, arguments.jobs), check=False, capture_output=True)
        print(f"work lost: at most {max(lost) * arguments.jobs:.2f} s at {len(lost)} kills")
        return int(differs(unbroken, killed) or max(lost) * arguments.jobs > LOST)


def command(listed: Path, out: Path, jobs: int) -> list[str]:
    grade = [sys.executable, "-m", "retigrade", "grade", str(listed), "--out", str(out), "--resume"]
    return [*grade, "--format", "csv", "--jobs", str(jobs)]


def kill(grading: list[str], out: Path, *, after: int, pause: float, total: int) -> float:
    """Kill a run once so many rows are kept and a pause is over; returns the seconds of work that it had not kept."""
    before, printed = rows_kept(out), out.with_suffix(".csv")
    with (
        printed.open("wb") as stdout,
        subprocess.Popen(grading, stdout=stdout, stderr=subprocess.DEVNULL) as process,
    ):
        while rows_kept(out) < after and process.poll() is None:
            time.sleep(0.1)  # the journal is long
        time.sleep(pause)
        process.kill()
        now = time.time()
    if process.returncode >= 0:
        print(f"the run had ended by itself with {process.returncode}", flush=True)
        return 0.0
    kept, status = rows_kept(out), printed.stat()
    # The head of the table is printed before the first photograph is graded, and each row once it is kept.
    lost = now - status.st_mtime if status.st_size and kept < total else 0.0
    print(f"killed after {kept} rows, {kept - before} of them new; {lost:.2f} s since the last", flush=True)
    return lost


def rows_kept(out: Path) -> int:
    """The inputs that have a whole line in the journal, or in the listing that has taken its place."""
    try:
        return (out / JOURNAL).read_bytes().count(b"\n") - 1
    except OSError:
        return (out / LISTING).read_bytes().count(b"\n") if (out / LISTING).exists() else 0


def differs(unbroken: Path, killed: Path) -> bool:
    """Print whether both folders hold the same rows, but for their seconds, and the same files."""
    first, second = ([timeless(row) for row in read(out)] for out in (unbroken, killed))
    paths = [row["path"] for row in second]
    files = [{str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} for out in (unbroken, killed)]
    found = {
        "rows double": len(paths) - len(set(paths)),
        "rows missing": len({row["path"] for row in first} - set(paths)),
        "rows that differ": sum(one != other for one, other in zip(first, second, strict=False)),
        "files missing": len(files[0] - files[1]),
        "files left over": len(files[1] - files[0]),
    }
    print(f"{len(second)} rows: " + ", ".join(f"{what} {number}" for what, number in found.items()))
    print("\n".join(sorted(files[0] ^ files[1])[:20]))
    return any(found.values()) or len(first) != len(second)


def read(out: Path) -> list[dict[str, str]]:
    with (out / "gradings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def timeless(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != "seconds"}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
