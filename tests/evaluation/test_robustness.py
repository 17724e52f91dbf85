from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from predictions_by_hand import entry
from retigrade.arrays import Pixels
from retigrade.data.manifest import Entry
from retigrade.evaluation.robustness import Robustness, sample, suite
from retigrade.grader import Grader, load
from retigrade.icdr import GRADES, Grade
from retigrade.synthetic import Phantom
from tiny_bundle import write_tiny_bundle


@pytest.fixture
def grader(tmp_path: Path) -> Grader:
    return load(write_tiny_bundle(tmp_path / "tiny.onnx"), threads=1)


@pytest.fixture
def entries(eyes: Mapping[Grade, Phantom], photo_path: Callable[..., Path], grader: Grader) -> list[Entry]:
    """Five eyes whose true grade is what the tiny bundle says, so that its clean kappa is perfect."""
    paths = [photo_path(eyes[grade], f"{grade}.png") for grade in GRADES]
    grades = [grader.grade(path).grade for path in paths]
    assert None not in grades
    return [entry(number, grade, path=path) for number, (path, grade) in enumerate(zip(paths, grades, strict=True))]  # type: ignore[arg-type]


def same(pixels: Pixels, _severity: int, _rng: np.random.Generator) -> Pixels:
    return pixels


def black(pixels: Pixels, _severity: int, _rng: np.random.Generator) -> Pixels:
    return np.zeros_like(pixels)


def test_what_changes_nothing_keeps_everything(grader: Grader, entries: list[Entry]) -> None:
    found = suite(grader, entries, corruptions={"same": same}, severities=(1, 3))
    assert found.photos == 5
    assert [(cell.corruption, cell.severity) for cell in found.cells] == [("same", 1), ("same", 3)]
    assert all((cell.agreement, cell.refused) == (1.0, 0.0) for cell in found.cells)


def test_what_destroys_the_picture_is_refused(grader: Grader, entries: list[Entry]) -> None:
    (cell,) = suite(grader, entries, corruptions={"black": black}, severities=(5,)).cells
    assert cell.refused == 1.0
    assert cell.agreement is None
    assert cell.kappa_kept is None


@pytest.mark.slow
def test_jobs_change_nothing(grader: Grader, entries: list[Entry]) -> None:
    alone, together = (suite(grader, entries, severities=(2, 5), jobs=jobs) for jobs in (1, 3))
    assert alone == together
    assert len(alone.cells) == 24


def test_a_photograph_that_is_gone_is_left_out(grader: Grader, entries: list[Entry], tmp_path: Path) -> None:
    found = suite(grader, [*entries, entry(9, 2, path=tmp_path / "gone.png")], corruptions={"same": same})
    assert found.photos == 5


def test_no_photographs_no_figures(grader: Grader) -> None:
    found = suite(grader, [], corruptions={"same": same}, severities=(1,))
    assert (found.photos, found.clean_kappa, found.mean_kept()) == (0, None, None)


def test_the_mean_is_of_one_severity(grader: Grader) -> None:
    cells = [
        {"corruption": name, "severity": severity, "refused": 0.0, "agreement": 1.0, "kappa_kept": kept}
        for name, severity, kept in (("a", 3, 0.8), ("b", 3, 1.0), ("c", 3, None), ("a", 5, 0.2))
    ]
    found = Robustness.model_validate({"photos": 9, "clean_kappa": 0.9, "cells": cells})
    assert found.mean_kept() == pytest.approx(0.9)
    assert found.mean_kept(5) == pytest.approx(0.2)


def test_a_sample_keeps_the_order() -> None:
    entries = [entry(number, 0) for number in range(30)]
    drawn = sample(entries, 10, np.random.default_rng(0))
    assert len(drawn) == 10
    assert drawn == sorted(drawn, key=lambda one: one.name)
    assert sample(entries, 100, np.random.default_rng(0)) == entries


def test_a_squeezed_frame_is_made_round_before_it_is_turned(
    eye: Phantom, photo_path: Callable[..., Path], grader: Grader
) -> None:
    squeezed = replace(eye, pixels=cv2.resize(eye.pixels, (640, 640)))
    seen: list[tuple[int, ...]] = []

    def look(pixels: Pixels, _severity: int, _rng: np.random.Generator) -> Pixels:
        seen.append(pixels.shape)
        return pixels

    suite(grader, [entry(0, 0, path=photo_path(squeezed))], corruptions={"look": look}, severities=(1,))
    ((height, width, _),) = seen
    assert width / height == pytest.approx(eye.pixels.shape[1] / eye.pixels.shape[0], rel=0.03)
