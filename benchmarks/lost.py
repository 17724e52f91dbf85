"""Is a JPEG that lost a part of its scan, but ends as it should, ever graded without what it lost?

    python benchmarks/lost.py FOLDER... [--count 80] [--bundle FILE]

Of each JPEG, 5 to 60 percent of the scan are taken away from its end, from its middle, or made zero in its middle; the
end marker stays. Prints how many of these copies can be decoded, how many are graded, and how many of those lose a
referable grade. Exit code 1 where any does.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from retigrade import load
from retigrade.errors import PhotoError
from retigrade.fundus.decode import decode_bytes
from retigrade.icdr import Status
from retigrade.inputs import expand

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
END = 2  # bytes


@dataclass(frozen=True)
class Arguments:
    """Folders or lists of JPEGs, and how many to use."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    count: int = 80
    bundle: Path | None = None
    seed: int = 0


def damaged(data: bytes, share: float, rng: np.random.Generator) -> dict[str, bytes]:
    """The same JPEG without a part of its last scan."""
    start = data.rfind(b"\xff\xda") + 14
    stop = len(data) - END
    length = int(share * (stop - start))
    first = start + int(rng.uniform(0, 1) * (stop - start - length))
    return {
        "end lost": data[: stop - length] + data[stop:],
        "middle lost": data[:first] + data[first + length :],
        "middle zeroed": data[:first] + bytes(length) + data[first + length :],
    }


def main(arguments: Arguments) -> int:
    grader = load(arguments.bundle, threads=1)
    rng = np.random.default_rng(arguments.seed)
    paths = [item.path for item in expand(list(arguments.folders)).items]
    jpegs = [path for path in paths if path.read_bytes()[-END:] == b"\xff\xd9"]
    counts: dict[str, Counter[str]] = {}
    for path in jpegs[:: max(1, len(jpegs) // arguments.count)][: arguments.count]:
        data = path.read_bytes()
        for share in SHARES:
            for name, copy in damaged(data, share, rng).items():
                seen = counts.setdefault(name, Counter())
                seen["copies"] += 1
                try:
                    decode_bytes(copy, name=path.name)
                except PhotoError:
                    continue
                seen["decoded"] += 1
                plain, grading = grader.grade(data, heat=False), grader.grade(copy, heat=False)
                seen["graded"] += grading.status is Status.GRADED
                seen["lost"] += bool(plain.referable) and grading.referable is False
    columns = ("copies", "decoded", "graded", "lost")
    print(f"{'':16}" + "".join(f"{column:>10}" for column in columns))
    for name, seen in counts.items():
        print(f"{name:16}" + "".join(f"{seen[column]:10}" for column in columns))
    return int(any(seen["lost"] for seen in counts.values()))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
