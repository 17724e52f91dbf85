"""Write docs/benchmarks.md and its picture: Retigrade beside what others would use, everything in turn in one run.

    pip install '.[train]' && python -m venv keras && keras/bin/pip install tensorflow-cpu pillow
    python benchmarks/page.py --keras keras/bin/python [--rounds 15] [--out docs]

Each round runs every entry once, so that a drifting machine drifts for all of them; a ratio is taken within a round,
and its median and range are over the rounds. What is not installed is named as such.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import tyro

from grade import KERAS
from retigrade import load
from retigrade.bundle import shipped_bundle, strip
from retigrade.fundus.crop import decode_side
from retigrade.fundus.decode import decode
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from timing import machine, samples

OURS = "Retigrade"


@dataclass(frozen=True)
class Page:
    """Where Keras is, how often each is run, where the page goes."""

    keras: Path | None = None
    """The Python of an environment with tensorflow-cpu and Pillow."""
    rounds: int = 15
    cold_rounds: int = 3
    compiled: bool = True
    """Also measure PyTorch compiled, which takes minutes of a compiler."""
    out: Path = Path("docs")

    def run(self) -> None:
        missing: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "eye.jpg")
            eye = draw_eye(grade=Grade.MODERATE, size=2176, aspect=1.5, rng=np.random.default_rng(0))
            cv2.imwrite(str(path), cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
            tables, memory = self._warm(path, missing)
            tables["Cold: a whole process for one photograph"] = samples(
                self._cold(path, Path(folder), missing), rounds=self.cold_rounds, warm=1
            )
        tables = {title: seconds for title, seconds in tables.items() if len(seconds) > 1}
        self._write(tables, memory, missing)

    def _warm(self, path: Path, missing: list[str]) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
        grader = load()
        size = grader.bundle.metadata.input_size
        one = np.zeros((1, size, size, 3), np.uint8)
        batch = np.zeros((32, size, size, 3), np.uint8)
        tables = {
            "One inference": {f"{OURS} (its bundle)": lambda: grader.bundle.run(one)},
            "A batch of 32": {f"{OURS} (its bundle)": lambda: grader.bundle.run(batch)},
            "Reading a 7-megapixel JPEG": {
                f"{OURS} (scaled, checked)": lambda: decode(path, min_side=decode_side(size)),
                "OpenCV, full size": lambda: cv2.resize(cv2.imread(str(path)), (224, 224)),
            },
            "The whole pipeline, a 7-megapixel JPEG": {f"{OURS} (grade and map)": lambda: grader.grade(path)},
        }
        self._add_onnx(tables, one, batch)
        self._add_torch(tables, missing)
        self._add_openvino(tables, one, batch, missing)
        keras = self._add_keras(tables, path, missing)
        measured = {title: samples(things, rounds=self.rounds) for title, things in tables.items()}
        memory = {
            f"{OURS}, with all of the above that run in Python beside it": resource.getrusage(
                resource.RUSAGE_SELF
            ).ru_maxrss
            / 1024
        }
        if keras is not None:
            memory["Keras on TensorFlow"] = keras("memory")
        return measured, memory

    def _add_onnx(self, tables: dict[str, dict[str, Callable[[], object]]], one, batch) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        plain = ort.InferenceSession(strip(shipped_bundle().read_bytes()), options, providers=["CPUExecutionProvider"])
        tables["One inference"]["ONNX Runtime, plain"] = lambda: plain.run(None, {"photo": one})
        tables["A batch of 32"]["ONNX Runtime, plain"] = lambda: plain.run(None, {"photo": batch})

    def _add_torch(self, tables: dict[str, dict[str, Callable[[], object]]], missing: list[str]) -> None:
        try:
            import timm
            import torch
        except ImportError:
            missing.append("PyTorch (pip install '.[train]')")
            return
        network = timm.create_model("mobilenetv2_100", num_classes=5).eval()
        one, batch = torch.zeros(1, 3, 224, 224), torch.zeros(32, 3, 224, 224)

        def run(model, photos):
            with torch.inference_mode():
                return model(photos)

        tables["One inference"]["PyTorch, eager"] = lambda: run(network, one)
        tables["A batch of 32"]["PyTorch, eager"] = lambda: run(network, batch)
        if not self.compiled:
            missing.append("PyTorch, compiled (--no-compiled)")
            return
        try:
            compiled = torch.compile(network)
            run(compiled, one)
        except Exception as error:  # no compiler on this machine, most often
            missing.append(f"PyTorch, compiled ({type(error).__name__})")
            return
        tables["One inference"]["PyTorch, compiled"] = lambda: run(compiled, one)

    def _add_openvino(self, tables: dict[str, dict[str, Callable[[], object]]], one, batch, missing: list[str]) -> None:
        try:
            import openvino
        except ImportError:
            missing.append("OpenVINO (pip install openvino)")
            return
        core = openvino.Core()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            path.write_bytes(strip(shipped_bundle().read_bytes()))
            compiled = core.compile_model(core.read_model(path), "CPU")
        tables["One inference"]["OpenVINO"] = lambda: compiled([one])
        tables["A batch of 32"]["OpenVINO"] = lambda: compiled([batch])

    def _add_keras(
        self, tables: dict[str, dict[str, Callable[[], object]]], path: Path, missing: list[str]
    ) -> Callable[[str], float] | None:
        if self.keras is None:
            missing.append("Keras on TensorFlow (--keras PYTHON)")
            return None
        worker = subprocess.Popen(
            [self.keras, Path(__file__).with_name("keras_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

        def ask(command: str) -> float:
            print(command, file=worker.stdin, flush=True)
            return float(worker.stdout.readline())

        ask("one")
        tables["One inference"]["Keras, predict"] = lambda: ask("one")
        tables["One inference"]["Keras, called"] = lambda: ask("call")
        tables["A batch of 32"]["Keras, predict"] = lambda: ask("batch")
        tables["Reading a 7-megapixel JPEG"]["Pillow, full size"] = lambda: ask(f"decode {path}")
        tables["The whole pipeline, a 7-megapixel JPEG"]["Pillow and Keras"] = lambda: ask(f"pipeline {path}")
        return ask

    def _cold(self, path: Path, folder: Path, missing: list[str]) -> dict[str, Callable[[], object]]:
        def call(*command: str | Path) -> None:
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})

        things: dict[str, Callable[[], object]] = {
            f"{OURS} (retigrade grade)": lambda: call(sys.executable, "-m", "retigrade", "grade", path)
        }
        if self.keras is not None:
            script = folder / "script.py"
            script.write_text(KERAS)
            python = self.keras
            things["A script with Keras"] = lambda: call(python, script, path)
        return things

    def _write(
        self, tables: Mapping[str, Mapping[str, list[float]]], memory: Mapping[str, float], missing: list[str]
    ) -> None:
        lines = [
            "# Benchmarks",
            "",
            "Made by `python benchmarks/page.py --keras PYTHON`; every table in one run, each entry once a round. A",
            "ratio is of the same round, so it holds on a machine that drifts; medians, and ranges over the rounds.",
            "Networks other than ours are MobileNetV2 at 224 pixels with five classes and random weights; the bundle",
            "does more than they do: maps, features, colours and the high-resolution head.",
            "",
            f"{machine()}, {time.strftime('%Y-%m-%d')}, load average {os.getloadavg()[0]:.1f} at the end.",
            "",
            "![Ratios](benchmarks.png)",
        ]
        for title, seconds in tables.items():
            lines += [
                "",
                f"## {title}",
                "",
                "| | ms, median | range | times as long as ours | range |",
                "|---|---|---|---|---|",
            ]
            ours = next(iter(seconds.values()))
            for name, values in seconds.items():
                ratios = [theirs / own for theirs, own in zip(values, ours, strict=True)]
                middle, span = statistics.median(values) * 1e3, f"{min(values) * 1e3:.1f}-{max(values) * 1e3:.1f}"
                ratio, reach = statistics.median(ratios), f"{min(ratios):.2f}-{max(ratios):.2f}"
                lines.append(f"| {name} | {middle:.1f} | {span} | {ratio:.2f} | {reach} |")
        lines += ["", "## Peak memory of the process that ran this", "", "| | MiB |", "|---|---|"]
        lines += [f"| {name} | {peak:.0f} |" for name, peak in memory.items()]
        if missing:
            lines += ["", f"Not measured here: {'; '.join(missing)}."]
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "benchmarks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        draw(tables, self.out / "benchmarks.png")
        print("\n".join(lines))


def draw(tables: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Draw the ratios, a bar each with its range."""
    from matplotlib.figure import Figure

    entries = []
    for title, seconds in tables.items():
        ours = next(iter(seconds.values()))
        for name, values in list(seconds.items())[1:]:
            ratios = [theirs / own for theirs, own in zip(values, ours, strict=True)]
            entries.append((f"{title}: {name}", statistics.median(ratios), min(ratios), max(ratios)))
    figure = Figure(figsize=(9, 0.4 * len(entries) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    names, middles, lows, highs = zip(*reversed(entries), strict=True)
    spans = [np.subtract(middles, lows), np.subtract(highs, middles)]
    axes.barh(names, middles, xerr=spans, color="#1b5e8a", ecolor="#5c6670", capsize=3)
    axes.axvline(1, color="#22303a", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times as long as Retigrade takes (logarithmic), with the range over the rounds")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    tyro.cli(Page).run()
