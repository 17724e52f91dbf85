"""What storage does to files: mutated photographs, and what grading makes of them.

    python benchmarks/mutations.py FOLDER [--count 500] [--seed 0] [--kinds flip zeroed ...]

Each mutant is a photograph of FOLDER, written anew in one of the formats and then damaged in one way (`plain`: not at
all), all drawn from the seed. It is graded through the command line, and so are the same file before the damage and,
for `plain`, the photograph itself. Printed are the faults of the program (tracebacks, signals, files that take longer
than ten seconds, rows missing or double, wrong exit codes), and by format and damage how many mutants were graded, how
many of them by another stage, by two stages or more, with another referral, and how many of those without a reason.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

BATCH, SLOW = 40, 10.0
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"}
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
class Mutant:
    """path: the mutated file. reference: what its grade is compared with."""

    path: Path
    reference: Path
    format: str
    damage: str


@dataclass
class Faults:
    """What no input may ever cause, and where it was seen."""

    seen: Counter[str]
    examples: list[str]

    def add(self, kind: str, what: object) -> None:
        self.seen[kind] += 1
        self.examples.append(f"{kind}: {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=[PLAIN, *DAMAGES], default=[PLAIN, *DAMAGES])
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--side", type=int, default=1000, help="larger photographs are reduced to this longer side")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--keep", type=Path, help="write the files here and leave them")
    arguments = parser.parse_args()
    photographs = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not photographs:
        parser.error(f"no photographs in {arguments.folder}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        rng = np.random.default_rng(arguments.seed)
        mutants = [mutate(index, photographs, folder, rng, arguments) for index in range(arguments.count)]
        faults = Faults(Counter(), [])
        rows = grade([mutant.path for mutant in mutants], arguments.bundle, faults)
        rows |= grade(sorted({mutant.reference for mutant in mutants}), arguments.bundle, faults)
    report(mutants, rows, faults)


def mutate(
    index: int, photographs: list[Path], folder: Path, rng: np.random.Generator, arguments: argparse.Namespace
) -> Mutant:
    """Write one mutant and what it is compared with."""
    source = photographs[rng.integers(len(photographs))]
    form = arguments.formats[rng.integers(len(arguments.formats))]
    damage = arguments.kinds[rng.integers(len(arguments.kinds))]
    suffix, name, options = FORMATS[form]
    quality = {"quality": int(rng.integers(70, 96))} if form in LOSSY else {}
    with Image.open(source) as picture:
        rgb = picture.convert("RGB")
    rgb.thumbnail((arguments.side, arguments.side))
    buffer = io.BytesIO()
    rgb.save(buffer, name, **options, **quality)
    reference, path = (folder / part / f"{index:05d}{suffix}" for part in ("references", "mutants"))
    for file in (reference, path):
        file.parent.mkdir(parents=True, exist_ok=True)
    data = bytearray(buffer.getvalue())
    if damage == PLAIN:
        rgb.save(reference := reference.with_suffix(".png"))
    else:
        reference.write_bytes(data)
        DAMAGES[damage](data, rng)
    path.write_bytes(data)
    return Mutant(path, reference, form, damage)


def grade(paths: list[Path], bundle: Path | None, faults: Faults) -> dict[Path, Mapping[str, str]]:
    """Grade files through the command line, some at once; those of a batch that fails are graded one by one."""
    rows: dict[Path, Mapping[str, str]] = {}
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        found = run(batch, bundle, None)
        if found is None:
            for path in batch:
                found = run([path], bundle, faults)
                rows |= found or {}
        else:
            rows |= found
        for path in batch:
            if path in rows and float(rows[path]["seconds"]) > SLOW:
                faults.add("slow", path)
    return rows


def run(paths: list[Path], bundle: Path | None, faults: Faults | None) -> dict[Path, Mapping[str, str]] | None:
    """One row a file; None, and a fault where they are counted, if the command did not do what it must."""
    command = [sys.executable, "-m", "retigrade", "grade", *map(str, paths), "--no-heat", "--format", "csv"]
    command += ["--bundle", str(bundle)] if bundle else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + SLOW * len(paths), check=False)
    except subprocess.TimeoutExpired:
        return failed(faults, "hang", paths)
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    if done.returncode < 0:
        return failed(faults, f"signal {-done.returncode}", paths)
    if "Traceback" in done.stderr or "internal error" in done.stdout + done.stderr:
        return failed(faults, "traceback", paths)
    if [row["path"] for row in rows] != [str(path) for path in paths]:
        return failed(faults, "rows missing or double", paths)
    if done.returncode != int(any(row["status"] == "error" for row in rows)):
        return failed(faults, f"wrong exit code {done.returncode}", paths)
    return {Path(row["path"]): row for row in rows}


def failed(faults: Faults | None, kind: str, paths: Iterable[Path]) -> None:
    if faults is not None:
        faults.add(kind, ", ".join(map(str, paths)))


def report(mutants: list[Mutant], rows: Mapping[Path, Mapping[str, str]], faults: Faults) -> None:
    """Print the counts by format and by damage."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for mutant in mutants:
        row, reference = rows.get(mutant.path), rows.get(mutant.reference)
        seen = Counter(mutants=1)
        if row and reference and row["status"] == reference["status"] == "graded":
            apart = abs(int(row["grade"]) - int(reference["grade"]))
            turned = row["referable"] != reference["referable"]
            seen.update(graded=1, other=apart > 0, by_two=apart > 1, referral=turned)
            seen.update(lost=turned and reference["referable"].lower() in ("1", "true", "yes"))
            seen.update(silent=(apart > 1 or turned) and not row["reasons"])
            if apart > 1 or turned:
                print(f"{mutant.path.name} {mutant.format}, {mutant.damage}: "
                      f"{reference['stage']} -> {row['stage']} ({row['reasons'] or 'no reason'})")  # fmt: skip
        elif row and row["status"] == "graded":
            seen["graded only damaged"] = 1
        for key in ((mutant.format, "all"), ("all", mutant.damage), ("all", "all"), ("all", storage(mutant))):
            counts.setdefault(key, Counter()).update(seen)
    columns = ("mutants", "graded", "other", "by_two", "referral", "lost", "silent", "graded only damaged")
    print(f"\n{'':34}" + "".join(f"{column:>10}" for column in columns))
    for key in sorted(counts):
        print(f"{key[0]:18}{key[1]:16}" + "".join(f"{counts[key][column]:10}" for column in columns))
    print(f"\nfaults: {dict(faults.seen) or 'none'}")
    print("\n".join(faults.examples))


def storage(mutant: Mutant) -> str:
    return "written anew" if mutant.damage == PLAIN else "damaged"


if __name__ == "__main__":
    main()
