"""One inference of several bundles in turn, and how many times the first's time each takes.

    python benchmarks/inference.py FIRST.onnx OTHER.onnx... [--rounds N]

The networks alone, as ONNX Runtime runs them, so that bundles of earlier versions can be compared too.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from sections import onnx_runtime
from timing import machine, samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    things = {str(path): onnx_runtime(path.read_bytes())(1) for path in arguments.bundles}
    seconds = samples(things, rounds=arguments.rounds)
    first = next(iter(seconds.values()))
    print(machine())
    for name, values in seconds.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"{name}: {statistics.median(values) * 1e3:.1f} ms, {ratio:.2f} times the first")


if __name__ == "__main__":
    main()
