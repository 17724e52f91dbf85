"""What a Keras user would write, in a process of its own: the Python that has Keras need not be the one that has us.

`KerasWorker` starts this file with that Python and asks by lines on standard input; each answer is the seconds that it
took, or what is wrong. Commands: `predict N` and `call` run MobileNetV2 at 224 pixels, `decode PATH` and `pipeline
PATH` read a photograph as the publication's stack does, `train` is one step with augmentation on a batch of 32.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE, BATCH = 224, 32

PEAK = 'print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
"""Prints the most memory that this program has held, in KiB; a parent's does not count, as it does in `getrusage`."""
SCRIPT = f"""
import sys
import numpy as np
from PIL import Image
import keras
model = keras.applications.MobileNetV2(weights=None, classes=5)
photo = np.asarray(Image.open(sys.argv[1]).convert("RGB").resize((224, 224)), "float32")[None] / 127.5 - 1
print(model.predict(photo, verbose=0).argmax())
{PEAK}
"""
"""A whole program that grades one photograph with Keras, and prints its peak at the end."""


class KerasWorker:
    """The worker's process, asked from outside."""

    def __init__(self, python: Path, *, clock: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [python, __file__, clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def ask(self, command: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise SystemExit(f"the Keras process ended at {command!r}:\n{self._errors.read()[-2000:]}")
        return float(answer)

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    import keras
    import numpy as np
    from PIL import Image

    model = keras.applications.MobileNetV2(weights=None, classes=5)
    clock, step = {"wall": time.perf_counter, "processor": time.process_time}[sys.argv[1]], None

    def read(path: str):
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB").resize((SIDE, SIDE)), "float32")[None] / 127.5 - 1

    for line in sys.stdin:
        command, _, word = line.strip().partition(" ")
        photos = np.zeros((int(word), SIDE, SIDE, 3), "float32") if command == "predict" else None
        if command == "train" and step is None:
            step = training_step()
        started = clock()
        match command:
            case "predict":
                model.predict(photos, verbose=0)
            case "call":
                np.asarray(model(np.zeros((1, SIDE, SIDE, 3), "float32"), training=False))
            case "decode":
                read(word)
            case "pipeline":
                model.predict(read(word), verbose=0)
            case "train":
                step()
            case _:
                raise SystemExit(f"no command {command!r}")
        print(clock() - started, flush=True)


def training_step():
    """The same augmentation as layers, float32, `train_on_batch`."""
    import keras
    import numpy as np
    from keras import layers

    augment = keras.Sequential(
        [
            layers.RandomRotation(0.5),
            layers.RandomZoom(0.1),
            layers.RandomTranslation(0.03, 0.03),
            layers.RandomFlip(),
            layers.RandomBrightness(0.3, value_range=(0, 255)),
            layers.RandomContrast(0.25),
        ]
    )
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3), pooling="avg")
    inputs = layers.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(augment(inputs))
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.Dropout(0.2)(base(x))))
    model.compile(optimizer=keras.optimizers.AdamW(5e-4), loss="sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    batch, target = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype("float32"), np.arange(BATCH) % 5
    return lambda: model.train_on_batch(batch, target)


if __name__ == "__main__":
    main()
