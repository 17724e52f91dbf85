"""One inference of several bundles in turn, and how many times the first's time each takes.

    python benchmarks/inference.py FIRST.onnx OTHER.onnx... [--rounds N]

The networks alone, as ONNX Runtime runs them, so that bundles of earlier versions can be compared too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from timing import machine, samples


def inference(path: Path) -> tuple[int, Callable[[], object]]:
    """The side of a bundle's photo in pixels, and one inference of it on random pixels."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (photo,) = session.get_inputs()
    side = int(photo.shape[1])
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return side, lambda: session.run(None, {photo.name: pixels})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    sides, things = {}, {}
    for path in arguments.bundles:
        sides[str(path)], things[str(path)] = inference(path)
    seconds = samples(things, rounds=arguments.rounds, warm=5)
    first = next(iter(seconds.values()))
    print(machine())
    for name, values in seconds.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"{name}: {sides[name]} pixels, {statistics.median(values) * 1e3:.1f} ms, {ratio:.2f} times the first")


if __name__ == "__main__":
    main()
