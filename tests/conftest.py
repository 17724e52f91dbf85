"""Synthetic eyes for every test, and the way to real photographs for the few that need them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

from retigrade.icdr import GRADES, Grade
from retigrade.synthetic import Phantom, draw_eye

ROOT = Path(__file__).resolve().parents[1]

# Whoever starts the tests in the background may have the signals ignored, which programs started from here inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_DFL)


# A busy machine is slow; a test that depends on seconds says nothing of the program.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def eye() -> Phantom:
    """A healthy eye as a camera frames it: 640 pixels high, 960 wide."""
    return draw_eye(grade=Grade.NONE, aspect=1.5, rng=np.random.default_rng(1))


@pytest.fixture(scope="session")
def eyes() -> Mapping[Grade, Phantom]:
    """One small eye of each grade, 320 x 320; the same eye but for its lesions."""
    return {grade: draw_eye(grade=grade, size=320, rng=np.random.default_rng(2)) for grade in GRADES}


@pytest.fixture
def photo_path(tmp_path: Path) -> Callable[..., Path]:
    """Write a phantom to the test's folder: `photo_path(eye, "a.jpg")`; the name's ending chooses the format."""

    def write(phantom: Phantom, name: str = "eye.png") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written, encoded = cv2.imencode(path.suffix, cv2.cvtColor(phantom.pixels, cv2.COLOR_RGB2BGR))
        if not written:
            raise ValueError(f"OpenCV cannot write {path.suffix}")
        path.write_bytes(encoded.tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs: RETIGRADE_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("RETIGRADE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs: {folder} is absent (set RETIGRADE_DATA)")
    return folder
