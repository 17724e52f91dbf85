"""The three built-in eyes that a first run grades."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from retigrade.icdr import Grade
from retigrade.synthetic.eye import Phantom, draw_eye

_SEED = 29  # an eye that the shipped bundle reads as it was drawn; not every drawn eye is, and none measures anything


def demo_eyes() -> tuple[tuple[str, Phantom], ...]:
    """Return the built-in eyes, each with its file name: healthy, moderate and severe; always the same pixels."""
    healthy, moderate, severe = (np.random.default_rng(_SEED) for _ in range(3))
    return (
        ("healthy.png", draw_eye(grade=Grade.NONE, aspect=1.5, eye="right", rng=healthy)),
        ("moderate.png", draw_eye(grade=Grade.MODERATE, aspect=1.5, cut=0.08, eye="left", rng=moderate)),
        ("severe.png", draw_eye(grade=Grade.SEVERE, aspect=1.5, cut=0.08, notch=True, rng=severe)),
    )


def write_demo(folder: Path) -> list[Path]:
    """Write the built-in eyes into `folder` as PNG, each file whole or not at all, and return their paths.

    Raises OSError where the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_png(folder / name, eye) for name, eye in demo_eyes()]


def _write_png(path: Path, eye: Phantom) -> Path:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as part:
        try:
            part.write(encoded.tobytes())
            part.close()
            Path(part.name).chmod(0o644)  # a temporary file is private; a picture need not be
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
    return path
