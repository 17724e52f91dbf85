"""Run folders that no training wrote, for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retigrade.experiments.predictions import PredictionRow, write_predictions
from retigrade.experiments.record import DataFound, Machine, RunRecord


def record(**changes: Any) -> RunRecord:
    """A finished run's record."""
    values: dict[str, Any] = {
        "status": "finished",
        "started": "2026-01-01T00:00:00+00:00",
        "options": {"epochs": 2, "folds": 2},
        "recipe": {"lr": 1e-3},
        "versions": {"python": "3.11"},
        "commit": None,
        "seed": 1,
        "data": DataFound(
            folders=("eyes",), photographs=60, grades=(12,) * 5, sources={"eyes": 60}, fingerprint="f" * 64, left_out=()
        ),
        "machine": Machine(system="test", processor="test", cpus=1, memory=None, accelerators=()),
    }
    return RunRecord(**{**values, **changes})


def rows(count: int = 60, *, right: float = 0.7, seed: int = 0, **changes: Any) -> list[PredictionRow]:
    """Predictions that are right with a probability of `right`; two photographs a patient."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        target = number % 5
        predicted = target if rng.random() < right else (target + 1) % 5
        p = [0.6 if grade == predicted else 0.1 for grade in range(5)]
        values: dict[str, Any] = {
            "path": f"eyes/{number}.png",
            "name": f"eyes/{number}.png",
            "sha256": f"{number:064x}",
            "source": "eyes",
            "group": f"eyes/{number // 2 * 2}.png",
            "fold": f"fold{1 + number // 2 % 2}",
            "part": "test",
            "target": target,
            "predicted": predicted,
            "probabilities": tuple(p),
            "status": "graded",
        }
        made.append(PredictionRow(**{**values, **changes}))
    return made


def write_run(folder: Path, predictions: list[PredictionRow], **changes: Any) -> Path:
    """A finished run's folder with these predictions."""
    record(**changes).write(folder)
    write_predictions(folder, predictions)
    return folder
