"""What benchmarks/page.py measures, a function a section: each runs its entries in turn and returns tables."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnxruntime as ort

from keras_worker import BATCH, PEAK, SCRIPT, SIDE, KerasWorker
from retigrade import load
from retigrade.bundle import cpu_count, shipped_bundle, strip
from retigrade.fundus.crop import crop, decode_side
from retigrade.fundus.decode import decode
from retigrade.fundus.field import find_field
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from timing import processor_seconds, samples

SEVEN, TWELVE = 2158, 2848  # shorter sides that make so many megapixels at 3:2
OURS = "Retigrade"
SUM = "scaled decode + one inference"
GRADE, HEAT = f"{OURS}, grade and map", f"{OURS}, the map in every pixel too"
PREDICT, KERAS, STEP = "Keras, predict", "Pillow and Keras", "Keras, train_on_batch"
SCRIPTED = "A script with Keras"
NETWORK, BATCHED = "One inference", f"A batch of {BATCH}"
READING, PIPELINE = "Reading a 7-megapixel JPEG", "The whole pipeline, a 7-megapixel JPEG"
PARTS = "A 12-megapixel JPEG against its two unavoidable parts"
COLD, MEMORY = "Cold: a whole process for one photograph", "Peak memory of a process that grades one photograph"
TRAINING = f"A training step with augmentation, {BATCH} photographs of {SIDE} pixels"


@dataclass(slots=True)
class Table:
    """Values of each entry, a round after the other; the first entry is what the others are compared with."""

    title: str
    values: dict[str, list[float]]
    unit: str = "ms"
    note: str = ""


@dataclass
class Bench:
    """What the sections share: rounds, the other environment, the photographs, and what could not be measured."""

    folder: Path
    keras: Path | None
    rounds: int
    compiled: bool
    clock: Literal["wall", "processor"]
    python: Path
    missing: list[str] = field(default_factory=list)
    _worker: KerasWorker | None = None

    @property
    def worker(self) -> KerasWorker | None:
        """Keras, started when it is first asked for."""
        if self.keras is None:
            self.missing.append("Keras on TensorFlow (--keras PYTHON)")
        elif self._worker is None:
            self._worker = KerasWorker(self.keras, clock=self.clock)
        return self._worker

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def photograph(self, side: int) -> Path:
        """A drawn eye as JPEG whose frame has this shorter side, as a camera with 3:2 would write it."""
        path = self.folder / f"eye{side}.jpg"
        if not path.exists():
            pixels = cv2.resize(self._eye, (round(1.505 * side), side), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        return path

    @cached_property
    def _eye(self):
        eye = draw_eye(grade=Grade.MODERATE, size=TWELVE, aspect=1.505, rng=np.random.default_rng(0))
        return cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR)

    def in_turn(self, things: dict[str, Callable[[], object]], *, rounds: int | None = None, warm: int = 2):
        """Milliseconds of each, by the clock."""
        clock = time.perf_counter if self.clock == "wall" else processor_seconds
        measured = samples(things, rounds=rounds or self.rounds, warm=warm, clock=clock)
        return {name: [1e3 * second for second in seconds] for name, seconds in measured.items()}


def network(bench: Bench) -> list[Table]:
    """The network alone: the bundle's, and MobileNetV2 of others."""
    bundle = load().bundle
    size = bundle.metadata.input_size
    tables = []
    compared = _others(bench, size)
    for title, count, rounds in ((NETWORK, 1, bench.rounds), (BATCHED, BATCH, max(3, bench.rounds // 3))):
        photos = np.zeros((count, size, size, 3), np.uint8)
        things = {f"{OURS} (its bundle, {size} pixels)": lambda photos=photos: bundle.run(photos)}
        things |= {name: make(count) for name, make in compared.items()}
        if count == 1 and bench.worker is not None:
            things["Keras, called"] = lambda: bench.worker.ask("call")
        tables.append(Table(title, bench.in_turn(things, rounds=rounds)))
    tables[0].note = (
        f"ONNX Runtime and OpenVINO run the bundle's own network at {size} pixels. PyTorch and Keras run MobileNetV2 "
        f"at {SIDE} pixels with five classes and random weights, which does less: the bundle also gives maps and "
        "features."
    )
    return tables


def _others(bench: Bench, size: int) -> dict[str, Callable[[int], Callable[[], object]]]:
    """Each makes what is timed for a number of photographs."""
    model = strip(shipped_bundle().read_bytes())
    made = {"ONNX Runtime, plain": onnx_runtime(model)}
    try:
        import openvino
    except ImportError:
        bench.missing.append("OpenVINO (pip install openvino)")
    else:
        path = bench.folder / "network.onnx"
        path.write_bytes(model)
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": cpu_count(), "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(path), "CPU", settings)

        def with_openvino(count: int) -> Callable[[], object]:
            photos = np.zeros((count, size, size, 3), np.uint8)
            return lambda: compiled([photos])

        made["OpenVINO"] = with_openvino
    made |= _torch(bench)
    if bench.worker is not None:
        made[PREDICT] = lambda count: lambda: bench.worker.ask(f"predict {count}")
    return made


def onnx_runtime(model: bytes) -> Callable[[int], Callable[[], object]]:
    """Make what runs a bundle's network over a number of photographs, with all processors.

    Its threads do not spin after a run, for they would take the processors from whose turn is next.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = cpu_count()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (photo,) = session.get_inputs()

    def of(count: int) -> Callable[[], object]:
        photos = np.zeros((count, *photo.shape[1:]), np.uint8)
        return lambda: session.run(None, {photo.name: photos})

    return of


def _torch(bench: Bench) -> dict[str, Callable[[int], Callable[[], object]]]:
    try:
        import timm
        import torch
    except ImportError:
        bench.missing.append("PyTorch (pip install '.[train]')")
        return {}
    eager = timm.create_model("mobilenetv2_100", num_classes=5).eval()

    def make(model):
        def of(count: int) -> Callable[[], object]:
            photos = torch.zeros(count, 3, SIDE, SIDE)

            def run() -> object:
                with torch.inference_mode():
                    return model(photos)

            return run

        return of

    made = {"PyTorch, eager": make(eager)}
    if not bench.compiled:
        bench.missing.append("PyTorch, compiled (--no-compiled)")
        return made
    made["PyTorch, compiled"] = make(torch.compile(eager, dynamic=False))
    try:
        made["PyTorch, compiled"](1)()
    except Exception as error:  # no compiler on this machine, most often
        bench.missing.append(f"PyTorch, compiled ({type(error).__name__})")
        del made["PyTorch, compiled"]
    return made


def reading(bench: Bench) -> list[Table]:
    """A file to pixels, and to a grade, of 7 megapixels."""
    grader, path = load(), bench.photograph(SEVEN)
    side = decode_side(grader.bundle.metadata.input_size)
    reads: dict[str, Callable[[], object]] = {
        f"{OURS} (scaled, checked)": lambda: decode(path, min_side=side),
        "OpenCV, full size": lambda: cv2.resize(cv2.imread(str(path)), (SIDE, SIDE)),
    }
    grades: dict[str, Callable[[], object]] = {GRADE: lambda: grader.grade(path)}
    if bench.worker is not None:
        reads["Pillow, full size"] = lambda: bench.worker.ask(f"decode {path}")
        grades[KERAS] = lambda: bench.worker.ask(f"pipeline {path}")
    return [Table(READING, bench.in_turn(reads)), Table(PIPELINE, bench.in_turn(grades))]


def parts(bench: Bench) -> list[Table]:
    """Grading and mapping a photograph of 12 megapixels, against what no program of this kind can do without."""
    grader, path = load(), bench.photograph(TWELVE)
    size = grader.bundle.metadata.input_size
    photo = decode(path, min_side=decode_side(size))
    canonical = crop(photo, find_field(photo), size=size)[None]
    values = bench.in_turn(
        {
            "scaled decode": lambda: decode(path, min_side=decode_side(size)),
            "one inference": lambda: grader.bundle.run(canonical),
            GRADE: lambda: grader.grade(path),
            HEAT: lambda: grader.grade(path).heat,
        },
        rounds=2 * bench.rounds,
    )
    pairs = zip(values["scaled decode"], values["one inference"], strict=True)
    note = "Between them lie the field, the crop, the gate and the map."
    return [Table(PARTS, {SUM: [sum(pair) for pair in pairs], **values}, note=note)]


def cold(bench: Bench) -> list[Table]:
    """Whole processes: how long, and how much memory."""
    path, script = bench.photograph(SEVEN), bench.folder / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if bench.python != Path(sys.executable):
        environment.pop("PYTHONPATH", None)

    def call(*command: str | Path) -> str:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return done.stdout

    def peak(name: str, *command: str | Path) -> None:
        peaks[name].append(float(call(*command).split()[-1]) / 1024)

    ours = f"import sys, retigrade; retigrade.load().grade(sys.argv[1]); {PEAK}"
    peaks: dict[str, list[float]] = {OURS: []}
    times: dict[str, Callable[[], object]] = {
        f"{OURS} (retigrade grade)": lambda: call(bench.python, "-m", "retigrade", "grade", path)
    }
    if bench.keras is None:
        bench.missing.append("Keras on TensorFlow (--keras PYTHON)")
    else:
        peaks[SCRIPTED] = []
        times[SCRIPTED] = lambda: peak(SCRIPTED, bench.keras, script, path)
    seconds = bench.in_turn(times, rounds=max(3, bench.rounds // 3), warm=1)
    for _ in range(max(1, len(peaks.get(SCRIPTED, ())))):
        peak(OURS, bench.python, "-c", ours, path)
    return [Table(COLD, seconds), Table(MEMORY, peaks, unit="MiB")]


def training(bench: Bench) -> list[Table]:
    """One step of the recipe `best` from photographs to changed weights."""
    try:
        import torch

        from retigrade.training.cpu import fast_arithmetic
        from retigrade.training.dataset import TrainingData, soft_targets
        from retigrade.training.device import open_fabric
        from retigrade.training.loop import Start, Trainer
        from retigrade.training.losses import training_loss
        from retigrade.training.recipe import BEST
    except ImportError:
        bench.missing.append("training (pip install '.[train]')")
        return []
    photos = np.random.default_rng(0).integers(0, 256, (4 * BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    grades = np.arange(len(photos)) % 5
    data = TrainingData(
        photos=photos,
        grades=grades,
        targets=soft_targets(grades, (), label_smoothing=0.06),
        subsets=np.zeros(len(photos), np.int64),
        rejected=np.zeros(len(photos), bool),
        train=np.arange(len(photos)),
        validation=np.arange(BATCH),
        fingerprint="drawn",
    )
    run = Trainer(data, BEST, Start(backbone="mobilenetv2_100", pretrained=False, seed=0), fabric=open_fabric())
    run.network.train()
    generator, positions = torch.Generator().manual_seed(0), np.arange(BATCH)

    def batch():
        return run.batch(positions, size=SIDE, rng=np.random.default_rng(0), generator=generator)

    @fast_arithmetic()
    def learn(x, targets) -> None:
        run.fabric.backward(training_loss(run.network(x), targets, BEST))
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

    constant = batch()
    things: dict[str, Callable[[], object]] = {
        OURS: lambda: learn(*batch()),
        f"{OURS}, one constant batch": lambda: learn(*constant),
    }
    if bench.worker is not None:
        things[STEP] = lambda: bench.worker.ask("train")
    return [Table(TRAINING, bench.in_turn(things, rounds=max(3, bench.rounds // 3), warm=1))]


SECTIONS: dict[str, Callable[[Bench], list[Table]]] = {
    "network": network,
    "reading": reading,
    "parts": parts,
    "cold": cold,
    "training": training,
}
