"""Peak memory of grading 100 and 3,000 photographs, each in a process of its own.

python benchmarks/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from retigrade.icdr import GRADES
from retigrade.synthetic import draw_eye

COUNTS = (100, 3000)
EYES = 10


def main() -> None:
    if len(sys.argv) == 3:
        grade(Path(sys.argv[1]), int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in range(EYES):
            eye = draw_eye(grade=GRADES[number % 5], size=712, aspect=1.5, rng=np.random.default_rng(number))
            cv2.imwrite(f"{folder}/{number}.jpg", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))
        peaks = [
            float(subprocess.run([sys.executable, __file__, folder, str(n)], check=True, capture_output=True).stdout)
            for n in COUNTS
        ]
    for count, peak in zip(COUNTS, peaks, strict=True):
        print(f"{count:5} photographs: {peak:6.1f} MB")
    print(f"difference: {peaks[1] - peaks[0]:.1f} MB")


def grade(folder: Path, count: int) -> None:
    """Grade `count` photographs with their maps, two at a time, and print the peak in MB."""
    from retigrade import load

    grader = load(threads=1)
    photos = sorted(folder.glob("*.jpg"))
    for grading in grader.grade_many((photos[n % len(photos)] for n in range(count)), jobs=2):
        if grading.heat is None:
            raise SystemExit(f"{grading.path}: {grading.status} {grading.reasons}")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
