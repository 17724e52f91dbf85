"""Kill a training at random moments, resume it each time, and compare it with an unbroken one, bit for bit.

    python benchmarks/resume.py [--kills 3] [--epochs 12] [--photos 60] [--seed 0]

It runs `retigrade train` as a user would, on drawn eyes, and ends it with SIGKILL. Exit code 1 where anything differs.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from safetensors.torch import load_file

from retigrade.icdr import GRADES
from retigrade.synthetic import draw_eye
from retigrade.training.checkpoint import CHECKPOINT, read_checkpoint
from retigrade.training.pipeline import BUNDLE, WEIGHTS


@dataclass(frozen=True)
class Arguments:
    """How often to kill, how long to train on how many photographs, and the seed of the moments."""

    kills: int = 3
    epochs: int = 12
    photos: int = 60
    seed: int = 0


def main(arguments: Arguments) -> int:
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        data, unbroken, killed = (Path(scratch) / name for name in ("eyes", "unbroken", "killed"))
        draw(data, arguments.photos)
        subprocess.run(command(data, unbroken, arguments), check=True, capture_output=True)
        pace = np.mean([float(row["seconds"]) for row in log(unbroken)])
        print(f"unbroken: {arguments.epochs} epochs of {pace:.2f} s")
        for moment in np.sort(rng.uniform(0, arguments.epochs - 1, arguments.kills)):
            done = kill_at(moment, pace, command(data, killed, arguments))
            print(f"killed {moment % 1 * pace:.2f} s into epoch {int(moment) + 1}; {done} epochs were kept")
        subprocess.run(command(data, killed, arguments), check=True, capture_output=True)
        return compare(unbroken, killed)


def draw(folder: Path, photos: int) -> None:
    for number in range(photos):
        grade = GRADES[number % len(GRADES)]
        eye = draw_eye(grade=grade, size=160, rng=np.random.default_rng(number)).pixels
        path = folder / ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")[grade] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(eye, cv2.COLOR_RGB2BGR))


def command(data: Path, out: Path, arguments: Arguments) -> list[str]:
    train = [sys.executable, "-m", "retigrade", "train", str(data), "--out", str(out), "--resume", "--random-start"]
    return [*train, "--backbone", "test_efficientnet", "--batch", "8", "--epochs", str(arguments.epochs)]


def kill_at(moment: float, pace: float, training: list[str]) -> int:
    """Start, and kill so many epochs into the training; returns how many epochs a checkpoint keeps."""
    out = Path(training[training.index("--out") + 1])
    with subprocess.Popen(training, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # The first epoch begins once the photographs are prepared; each later one when the one before it is logged.
        while not (list(out.glob("prepared-*.npy")) if moment < 1 else len(log(out)) >= int(moment)):
            if process.poll() is not None:
                raise RuntimeError(f"the training ended by itself with {process.returncode}")
            time.sleep(0.005)
        time.sleep(moment % 1 * pace)
        process.kill()
    return len(kept(out)["history"]) if (out / CHECKPOINT).exists() else 0


def log(out: Path) -> list[dict[str, str]]:
    path = out / "log.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def kept(out: Path):
    return read_checkpoint(out / CHECKPOINT)[1]


def compare(unbroken: Path, killed: Path) -> int:
    """Print both runs' last figures and whether all that they left is the same."""
    first, second = kept(unbroken), kept(killed)
    for name, state in (("unbroken", first), ("resumed", second)):
        last = state["history"][-1]
        figures = (f"{figure} {last[figure]!r}" for figure in ("loss", "accuracy", "kappa"))
        print(f"{name:8}  epoch {last['epoch']}: {', '.join(figures)}")
    same = {
        "figures of every epoch": timeless(first["history"]) == timeless(second["history"]),
        "lines of the log": timeless(log(unbroken)) == timeless(log(killed)),
        "weights": equal(first["network"], second["network"]),
        "moving average": equal(first["average"], second["average"]),
        WEIGHTS: equal(load_file(unbroken / WEIGHTS), load_file(killed / WEIGHTS)),
        BUNDLE: digest(unbroken / BUNDLE) == digest(killed / BUNDLE),
    }
    for what, is_same in same.items():
        print(f"{what}: {'identical' if is_same else 'DIFFERENT'}")
    return 0 if all(same.values()) else 1


def timeless(rows) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
