from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gradings import graded, heat, refused
from retigrade.grading import Grading
from retigrade.icdr import Status
from retigrade.output.illustrate import illustrate
from retigrade.synthetic import Phantom

MakePhoto = Callable[..., Path]


def graded_photo(path: Path, *, with_heat: bool = True) -> Grading:
    pixels = cv2.imread(str(path))
    height, width = pixels.shape[:2]
    return graded(
        str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        heatmap=heat(width=width, height=height) if with_heat else None,
    )


def size_of(data: bytes | None) -> tuple[int, ...]:
    assert data is not None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape


def test_a_graded_photo_gets_both_pictures(eye: Phantom, photo_path: MakePhoto) -> None:
    (verdict,) = illustrate([graded_photo(photo_path(eye, "eye.jpg"))], jobs=1)
    assert size_of(verdict.thumbnail) == (120, 360, 3)
    assert size_of(verdict.picture)[1] == 1280


def test_without_heat_there_is_only_the_photograph(eye: Phantom, photo_path: MakePhoto) -> None:
    (verdict,) = illustrate([graded_photo(photo_path(eye), with_heat=False)], jobs=1)
    assert size_of(verdict.thumbnail) == (120, 180, 3)
    assert verdict.picture is None


def test_an_unreadable_file_has_neither(tmp_path: Path) -> None:
    (verdict,) = illustrate([refused(str(tmp_path / "gone.jpg"), Status.ERROR)], jobs=1)
    assert (verdict.thumbnail, verdict.picture) == (None, None)


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_photo_that_changed_after_it_was_graded_keeps_its_row_and_warns(
    eye: Phantom, photo_path: MakePhoto, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    path = photo_path(eye)
    grading = graded_photo(path)
    if change == "removed":
        path.unlink()
    else:
        photo_path(replace(eye, pixels=eye.pixels[:, ::-1].copy()))
    with caplog.at_level(logging.WARNING, logger="retigrade"):
        (verdict,) = illustrate([grading], jobs=1)
    assert verdict.row.grade == 2
    assert (verdict.thumbnail, verdict.picture) == (None, None)
    assert "no picture" in caplog.text


@pytest.mark.parametrize("jobs", [1, 3])
def test_order_is_kept_and_only_a_few_are_taken_ahead(jobs: int) -> None:
    taken = 0

    def gradings() -> Iterator[Grading]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield refused(f"{number}.jpg", Status.ERROR)

    verdicts = illustrate(gradings(), jobs=jobs)
    assert next(verdicts).row.path == "0.jpg"
    assert taken <= 3 * jobs
    assert [verdict.row.path for verdict in verdicts] == [f"{number}.jpg" for number in range(1, 50)]


def test_closing_it_ends_its_threads() -> None:
    verdicts = illustrate((refused(str(number), Status.ERROR) for number in range(50)), jobs=2)
    next(verdicts)
    verdicts.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("retigrade-draw")]
