"""Predictions on labelled photographs that nobody took, for tests of what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradings import graded, refused
from retigrade.data.manifest import Entry, Manifest
from retigrade.evaluation.predictions import LabelledSet, Predictions
from retigrade.grading import Grading
from retigrade.icdr import REFERABLE_FROM, Grade


def entry(number: int, grade: int, **changes: Any) -> Entry:
    """A photograph of its own patient."""
    name = f"set/{number:03}.png"
    values: dict[str, Any] = {
        "path": Path(name),
        "name": name,
        "grade": Grade(grade),
        "patient": name,
        "eye": None,
        "source": "set",
        "sha256": f"{number:064x}",
        "width": 300,
        "height": 200,
    }
    return Entry(**{**values, **changes})


def answer(probabilities: Sequence[float], **changes: Any) -> Grading:
    """The most probable grade, referable from 0.4 on."""
    p = np.array(probabilities, dtype=np.float64)
    p /= p.sum()
    p_referable = min(1.0, float(p[2:].sum()))
    grade = Grade(int(p.argmax()))
    verdict = {"grade": grade, "probabilities": p, "p_referable": p_referable}
    values: dict[str, Any] = {"prediction_set": None, "reasons": (), "quality": 0.9, **changes}
    referable = p_referable >= 0.4 or grade >= REFERABLE_FROM
    if referable and grade < REFERABLE_FROM:
        values["reasons"] = ("refer: moderate or worse is possible", *values["reasons"])
    return graded(**verdict, referable=referable, **values)


def around(grade: int, sure: float) -> list[float]:
    """A grade with this probability and the rest spread evenly."""
    return [sure if place == grade else (1 - sure) / 4 for place in range(5)]


def predictions_on(
    target: Sequence[int], gradings: Sequence[Grading], *, groups: Sequence[int] | None = None
) -> Predictions:
    """Predictions on photographs of these grades; groups: which belong together, each its own if not given."""
    entries = tuple(entry(number, grade) for number, grade in enumerate(target))
    numbers = np.arange(len(target)) if groups is None else np.array(groups)
    return Predictions(LabelledSet(entries, numbers.astype(np.int64)), tuple(gradings))


def manifest_of(predictions: Predictions) -> Manifest:
    """The manifest of their photographs."""
    return Manifest(predictions.labelled.entries)


def some_predictions(count: int, *, seed: int = 0, grades: Sequence[int] = range(5), refuse: int = 0) -> Predictions:
    """Predictions that are right more often the surer they are, the last `refuse` of them without a grade."""
    rng = np.random.default_rng(seed)
    target = rng.choice(list(grades), size=count)
    sure = rng.uniform(0.3, 0.99, size=count)
    predicted = np.where(rng.random(count) < sure, target, np.clip(target + rng.choice([-1, 1, 2], size=count), 0, 4))
    gradings = [
        answer(around(int(d), float(s)), quality=float(rng.uniform())) for d, s in zip(predicted, sure, strict=True)
    ]
    if refuse:
        gradings[-refuse:] = [refused() for _ in range(refuse)]
    return predictions_on([int(grade) for grade in target], gradings)
