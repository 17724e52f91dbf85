"""What storage does to files: mutated photographs, and what grading makes of them.

    python benchmarks/mutations.py FOLDER... [--count 500] [--seed 0] [--damages flip zeroed ...] [--formats png ...]

A photograph of the folders is written anew in one of the formats, or taken as it is, and damaged in some ways
(`plain`: not at all), all drawn from the seed. The mutants are graded through the command line, and so are the same
file before the damage and, for `plain`, the pixels without loss. Printed are the faults of the program (tracebacks,
signals, files that take longer than ten seconds, rows missing or double, wrong exit codes), and by format and damage
how many mutants were graded, how many of them by another stage, by two stages or more, with another referral, and how
many of those without a reason. A run that is interrupted prints what it has.
"""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from retigrade.inputs import expand

SLOW = 10.0  # seconds
ROUND = 100  # references at once; each with its mutants
SECTOR = 512

# How a photograph is written anew: ending, Pillow's name, options.
FORMATS: Mapping[str, tuple[str, str, Mapping[str, object]]] = {
    "jpeg": (".jpg", "JPEG", {}),
    "jpeg progressive": (".jpg", "JPEG", {"progressive": True}),
    "jpeg restarts": (".jpg", "JPEG", {"restart_marker_rows": 4}),
    "png": (".png", "PNG", {}),
    "webp": (".webp", "WEBP", {}),
    "webp lossless": (".webp", "WEBP", {"lossless": True, "method": 0, "quality": 20}),
    "tiff": (".tif", "TIFF", {}),
    "tiff lzw": (".tif", "TIFF", {"compression": "tiff_lzw"}),
    "tiff deflate": (".tif", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff jpeg": (".tif", "TIFF", {"compression": "jpeg"}),
    "bmp": (".bmp", "BMP", {}),
}
AS_FOUND = "as found"
LOSSY = {"jpeg", "jpeg progressive", "jpeg restarts", "webp", "tiff jpeg"}


def flip(data: bytearray, rng: np.random.Generator) -> None:
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def flips(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(10):
        flip(data, rng)


def header(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(3):
        data[rng.integers(min(len(data), 256))] = int(rng.integers(256))


def zeroed(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data) // SECTOR + 1)) * SECTOR
    data[start : start + SECTOR] = bytes(len(data[start : start + SECTOR]))


def zeroed_tail(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.uniform(0.05, 0.95) * len(data))
    data[start:] = bytes(len(data) - start)


def cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.uniform(0.4, 0.95) * len(data)) :]


def cut_and_ended(data: bytearray, rng: np.random.Generator) -> None:
    end = data[-12:] if data[:4] == b"\x89PNG" else data[-2:]
    cut(data, rng)
    data += end


def lost(data: bytearray, rng: np.random.Generator) -> None:
    share = rng.uniform(0.05, 0.6)
    start = int(rng.uniform(0, 1 - share) * len(data))
    del data[start : start + int(share * len(data))]


def lost_sector(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data) // SECTOR + 1)) * SECTOR
    del data[start : start + SECTOR]


def repeated_sector(data: bytearray, rng: np.random.Generator) -> None:
    first, second = (int(at) * SECTOR for at in rng.integers(len(data) // SECTOR + 1, size=2))
    piece = data[first : first + SECTOR]
    data[second : second + len(piece)] = piece


DAMAGES: Mapping[str, Callable[[bytearray, np.random.Generator], None]] = {
    "flip": flip,
    "flips": flips,
    "header": header,
    "zeroed": zeroed,
    "zeroed tail": zeroed_tail,
    "cut": cut,
    "cut and ended": cut_and_ended,
    "lost": lost,
    "lost sector": lost_sector,
    "repeated sector": repeated_sector,
}
PLAIN = "plain"


@dataclass(frozen=True)
class Arguments:
    """Folders or lists of photographs, how many mutants to make of them, and how."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    count: int = 500
    each: int = 4
    """Mutants of one file."""
    seed: int = 0
    damages: tuple[str, ...] = (PLAIN, *DAMAGES)
    formats: tuple[str, ...] = (AS_FOUND, *FORMATS)
    side: int = 1000
    """Larger photographs are reduced to this longer side before they are written anew."""
    least: int = 0
    """Use only photographs whose longer side has so many pixels."""
    bundle: Path | None = None
    keep: Path | None = None
    """Write the files here and leave them: a few megabytes for each reference."""


@dataclass(frozen=True)
class Mutant:
    """path: the mutated file. reference: what its grade is compared with."""

    path: Path
    reference: Path
    format: str
    damage: str


@dataclass
class Result:
    """Counts by format and damage, and what no input may ever cause, with where it was seen."""

    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def fault(self, kind: str, what: object) -> None:
        self.faults[kind] += 1
        self.examples.append(f"{kind}: {what}")
        print(self.examples[-1], flush=True)


def main(arguments: Arguments) -> None:
    photographs = [item.path for item in expand(list(arguments.folders)).items]
    rounds = -(-arguments.count // (ROUND * arguments.each))
    result = Result()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for number in range(rounds):
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as temporary:
                mutants = make(number, photographs, arguments.keep or Path(temporary), arguments)
                rows = grade([mutant.path for mutant in mutants], arguments.bundle, result)
                rows |= grade(sorted({mutant.reference for mutant in mutants}), arguments.bundle, result)
                compare(mutants, rows, result)
            print(f"round {number + 1} of {rounds}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    finally:
        report(result)


def make(number: int, photographs: list[Path], folder: Path, arguments: Arguments) -> list[Mutant]:
    """Write the mutants of one round; each reference has a generator of its own, so that any can be made again."""
    mutants: list[Mutant] = []
    for index in range(number * ROUND, (number + 1) * ROUND):
        rng = np.random.default_rng((arguments.seed, index))
        mutants += mutate(index, photographs, folder, rng, arguments)
    return mutants[: arguments.count - number * ROUND * arguments.each]


def mutate(
    index: int, photographs: list[Path], folder: Path, rng: np.random.Generator, arguments: Arguments
) -> list[Mutant]:
    """Write a reference and its mutants."""
    form = arguments.formats[rng.integers(len(arguments.formats))]
    while True:
        source = photographs[rng.integers(len(photographs))]
        with Image.open(source) as picture:
            if max(picture.size) >= arguments.least:
                rgb = picture.convert("RGB")
                break
    suffix, data = written(source, rgb, form, rng, side=arguments.side)
    mutants = []
    for number in range(arguments.each):
        damage = arguments.damages[rng.integers(len(arguments.damages))]
        lossless = damage == PLAIN
        reference = folder / "references" / f"{index:05d}{'.png' if lossless else suffix}"
        path = folder / "mutants" / f"{index:05d}-{number}{suffix}"
        for file in (reference, path):
            file.parent.mkdir(parents=True, exist_ok=True)
        damaged = bytearray(data)
        if lossless:
            rgb.save(reference, compress_level=1)
        else:
            reference.write_bytes(data)
            DAMAGES[damage](damaged, rng)
        path.write_bytes(damaged)
        mutants.append(Mutant(path, reference, form, damage))
    return mutants


def written(source: Path, rgb: Image.Image, form: str, rng: np.random.Generator, *, side: int) -> tuple[str, bytes]:
    """A photograph's ending and bytes in one of the formats; `rgb` is reduced in its place."""
    if form == AS_FOUND:
        return source.suffix, source.read_bytes()
    suffix, name, options = FORMATS[form]
    quality = {"quality": int(rng.integers(70, 96))} if form in LOSSY else {}
    rgb.thumbnail((side, side))
    buffer = io.BytesIO()
    rgb.save(buffer, name, **options, **quality)
    return suffix, buffer.getvalue()


def grade(paths: list[Path], bundle: Path | None, result: Result) -> dict[Path, Mapping[str, str]]:
    """Grade files through the command line, all at once; if that fails, one by one."""
    rows = run(paths, bundle, None)
    if rows is None:
        rows = {}
        for path in paths:
            rows |= run([path], bundle, result) or {}
    for path in [path for path, row in rows.items() if float(row["seconds"]) > SLOW]:
        again = run([path], bundle, None)  # alone, as a busy machine makes any file slow
        if again is None or float(again[path]["seconds"]) > SLOW:
            result.fault("slow", path)
    return rows


def run(paths: list[Path], bundle: Path | None, result: Result | None) -> dict[Path, Mapping[str, str]] | None:
    """One row a file; None, and a fault where they are counted, if the command did not do what it must."""
    command = [
        sys.executable,
        "-m",
        "retigrade",
        "grade",
        *map(str, paths),
        "--no-heat",
        "--jobs",
        "1",
        "--format",
        "csv",
    ]
    command += ["--bundle", str(bundle)] if bundle else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 + 2 * SLOW + 2 * len(paths), check=False
        )
    except subprocess.TimeoutExpired:
        return failed(result, "hang", paths)
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    if done.returncode < 0:
        return failed(result, f"signal {-done.returncode}", paths)
    if "Traceback" in done.stderr or "internal error" in done.stdout + done.stderr:
        return failed(result, "traceback", paths)
    if [row["path"] for row in rows] != [str(path) for path in paths]:
        return failed(result, "rows missing or double", paths)
    if done.returncode != int(any(row["status"] == "error" for row in rows)):
        return failed(result, f"wrong exit code {done.returncode}", paths)
    return {Path(row["path"]): row for row in rows}


def failed(result: Result | None, kind: str, paths: Iterable[Path]) -> None:
    if result is not None:
        result.fault(kind, ", ".join(map(str, paths)))


def compare(mutants: list[Mutant], rows: Mapping[Path, Mapping[str, str]], result: Result) -> None:
    """Count what grading made of the mutants, and print those that were graded far from their references."""
    for mutant in mutants:
        row, reference = rows.get(mutant.path), rows.get(mutant.reference)
        seen = Counter(mutants=1)
        if row and reference and row["status"] == reference["status"] == "graded":
            apart = abs(int(row["grade"]) - int(reference["grade"]))
            turned = row["referable"] != reference["referable"]
            seen.update(graded=1, other=apart > 0, by_two=apart > 1, referral=turned)
            seen.update(lost=turned and reference["referable"] == "true")
            seen.update(silent=(apart > 1 or turned) and not row["reasons"])
            if apart > 1 or turned:
                what = f"{mutant.path.name} {mutant.format}, {mutant.damage}"
                stages = f"{reference['stage']} -> {row['stage']}"
                print(f"{what}: {stages} ({row['reasons'] or 'no reason'})", flush=True)
        elif row and row["status"] == "graded":
            seen["graded only damaged"] = 1
        kind = "written anew" if mutant.damage == PLAIN else "damaged"
        for key in ((mutant.format, "all"), ("all", mutant.damage), ("all", "all"), ("all", kind)):
            result.counts.setdefault(key, Counter()).update(seen)


def report(result: Result) -> None:
    """Print the counts by format and by damage."""
    columns = ("mutants", "graded", "other", "by_two", "referral", "lost", "silent", "graded only damaged")
    print(f"\n{'':34}" + "".join(f"{column:>10}" for column in columns))
    for key in sorted(result.counts):
        print(f"{key[0]:18}{key[1]:16}" + "".join(f"{result.counts[key][column]:10}" for column in columns))
    every = result.counts.get(("all", "all"), Counter())
    print(f"\nby two or more: {every['by_two'] / max(every['graded'], 1):.2%} of those graded; "
          f"another referral: {every['referral'] / max(every['mutants'], 1):.2%} of all")  # fmt: skip
    print(f"faults: {dict(result.faults) or 'none'}")
    print("\n".join(result.examples), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
