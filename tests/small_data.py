"""A small labelled data set of synthetic eyes, drawn once."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from retigrade.data.annotations import KINDS
from retigrade.data.manifest import Manifest
from retigrade.experiments.predictions import PredictionRow, write_predictions
from retigrade.icdr import GRADES, Grade
from retigrade.synthetic import draw_eye


def write_small_data(folder: Path, *, photos: int = 60, size: int = 160) -> Path:
    """Write `photos` eyes of all grades and their labels.csv; returns the folder."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(photos):
        grade = GRADES[number % 5]
        eye = draw_eye(grade=grade, size=size, rng=np.random.default_rng(number), cut=0.05 * (number % 2), aspect=1.2)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))
        rows.append((f"{number}.png", int(grade), f"patient{number // 2 if number < 8 else number}"))
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "grade", "patient"), *rows])
    return folder


def write_annotated(folder: Path) -> Path:
    """Write four drawn eyes beside the haemorrhages and microaneurysms in them; returns the folder."""
    for number in range(4):
        eye = draw_eye(grade=Grade.SEVERE, size=600, rng=np.random.default_rng(900 + number))
        mask = np.zeros(eye.pixels.shape[:2], np.uint8)
        for kind in ("haemorrhage", "microaneurysm"):
            mask[eye.masks[kind]] |= KINDS[kind]
        for name, pixels in (("photos", cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR)), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name / f"{number}.png"), pixels)
    return folder


def write_one_prediction(folder: Path, manifest: Manifest, probabilities: tuple[float, ...]) -> None:
    """Write predictions.csv into a folder: of every photograph the same, by a network that did not learn from it."""
    rows = [
        PredictionRow(
            path=str(entry.path), name=entry.name, sha256=entry.sha256, source=entry.source, group=entry.name,
            fold="fold1", part="test", target=int(entry.grade), predicted=0, probabilities=probabilities, status="",
        )
        for entry in manifest.entries
    ]  # fmt: skip
    write_predictions(folder, rows)
