from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gradings import graded
from retigrade.arrays import Pixels
from retigrade.fundus.decode import decode
from retigrade.grader import Grader, load
from retigrade.icdr import Grade
from retigrade.inputs import Input
from retigrade.output.comparisons import compare
from retigrade.output.overlay import strip
from retigrade.output.patients import visits_of
from retigrade.output.progression import timelines_of
from retigrade.output.rows import Row, as_row
from retigrade.signals import Stop
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of one eye, one moved by a known step, and of another eye."""
    folder = tmp_path_factory.mktemp("visits")
    eye = draw_eye(grade=Grade.NONE, rng=np.random.default_rng(3), size=400).pixels
    moved = np.asarray(cv2.warpAffine(eye, np.array([[1.0, 0, 14], [0, 1.0, -9]]), (400, 400)), np.uint8)
    other = draw_eye(grade=Grade.NONE, rng=np.random.default_rng(4), size=400).pixels
    for name, pixels in (("first", moved), ("last", eye), ("other", other)):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture(scope="module")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Grader:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx"))


def row(path: Path, date: str, *, patient: str = "P1", p: Sequence[float] = (1, 0, 0, 0, 0)) -> Row:
    values: dict[str, Any] = {f"p{grade}": float(share) for grade, share in enumerate(p)}
    grade = int(np.argmax(p))
    verdict = as_row(graded(path=str(path), sha256=decode(path).sha256))
    whose = {"patient": patient, "eye": "right", "date": date}
    return replace(verdict, grade=grade, p_referable=float(sum(p[2:])), referable=grade >= 2, **values, **whose)


def compared(rows: Sequence[Row], grader: Grader, **options: Any) -> list[Any]:
    sources = {row.path: Input(Path(row.path), Path(row.path).name) for row in rows}
    return compare(timelines_of(visits_of(rows), noise=0.5), sources=sources, grader=grader, **options)


def shown(jpeg: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def test_the_earlier_photograph_is_laid_over_the_later_one(folder: Path, grader: Grader) -> None:
    rows = [row(folder / "first.png", "2023-05-02"), row(folder / "last.png", "2024-05-02")]
    (pair,) = compared(rows, grader, heat=False)
    assert pair.picture is not None
    picture = shown(pair.picture).astype(int)
    half = (picture.shape[1] - picture.shape[1] // 2) - (picture.shape[1] % 2)
    earlier, later = picture[120:280, 100:260], picture[120:280, half + 100 :][:, :160]
    best = min(np.abs(np.roll(later, (dx, dy), (1, 0)) - earlier).mean() for dx in range(-8, 9) for dy in (-1, 0, 1))
    assert best < 6
    assert pair.words.startswith("the photographs of 2023-05-02 and 2024-05-02, the first laid over the second")


def test_maps_stand_beside_where_they_are_wanted(folder: Path, grader: Grader) -> None:
    rows = [row(folder / "first.png", "2023-05-02"), row(folder / "last.png", "2024-05-02")]
    (plain,), (mapped,) = (compared(rows, grader, heat=wanted) for wanted in (False, True))
    assert shown(mapped.picture).shape[1] > 1.9 * shown(plain.picture).shape[1]
    assert len(mapped.small) < len(mapped.picture)


def test_different_eyes_are_not_laid_over_each_other_and_that_is_said(folder: Path, grader: Grader) -> None:
    rows = [row(folder / "other.png", "2023-05-02"), row(folder / "last.png", "2024-05-02")]
    (pair,) = compared(rows, grader)
    assert pair.picture is None
    assert "could not be laid over each other" in pair.words


def test_a_photograph_that_has_gone_or_changed_is_said(folder: Path, grader: Grader) -> None:
    last = row(folder / "last.png", "2024-05-02")
    changed = replace(row(folder / "first.png", "2023-05-02"), sha256="0" * 64)
    assert "has changed since it was graded" in compared([changed, last], grader)[0].words
    gone = replace(row(folder / "first.png", "2023-05-02"), path=str(folder / "gone.png"))
    assert "could not be compared" in compared([gone, last], grader)[0].words


def test_one_visit_is_not_compared(folder: Path, grader: Grader) -> None:
    assert compared([row(folder / "last.png", "2024-05-02")], grader) == []


def test_the_eyes_that_changed_come_first_and_the_number_is_bounded(folder: Path, grader: Grader) -> None:
    severe, moderate = (0, 0, 0, 1, 0), (0, 0, 1, 0, 0)
    rows = [
        row(folder / name, date, patient=patient, p=p)
        for patient, first, last in (("calm", severe, severe), ("worse", (1, 0, 0, 0, 0), moderate))
        for name, date, p in (("other.png", "2023-05-02", first), ("last.png", "2024-05-02", last))
    ]
    rows = [replace(row, path=f"{row.path}") for row in rows]
    assert [pair.timeline.patient for pair in compared(rows, grader)] == ["worse", "calm"]
    assert [pair.timeline.patient for pair in compared(rows, grader, most=1)] == ["worse"]


def test_an_interrupt_ends_it(folder: Path, grader: Grader) -> None:
    stop = Stop()
    stop.asked = True
    rows = [row(folder / "first.png", "2023-05-02"), row(folder / "last.png", "2024-05-02")]
    assert compared(rows, grader, stop=stop) == []


def test_a_strip_holds_its_pictures_in_order() -> None:
    pictures = [np.full((40, 60, 3), tone, np.uint8) for tone in (60, 120, 240)]
    row = strip(pictures, ["one", "two", "three"], side=60)[-20]
    assert [int(row[left + 30, 0]) for left in (0, 62, 124)] == [60, 120, 240]
