"""The output folder of an evaluation: report.html, report.md, report.json and predictions.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from retigrade.evaluation.predictions import Predictions, worst
from retigrade.evaluation.result import EvaluationResult
from retigrade.files import make_folder, write_whole
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.icdr import GRADES
from retigrade.report.document import Document, Image, as_html, as_markdown

ILLUSTRATED = 20
"""The mistakes that are shown with their thermal maps."""

COLUMNS = (
    "name", "path", "true_grade", "status", "grade", "p0", "p1", "p2", "p3", "p4", "p_referable", "referable",
    "confidence", "prediction_set", "quality", "reasons", "source", "patient", "group", "sha256",
)  # fmt: skip

Illustrate = Callable[[Sequence[Grading]], Sequence[bytes | None]]
"""Makes a JPEG file of each graded photo and its map, None where it cannot."""


def illustrate_worst(verdicts: Predictions, grader: Grader, illustrate: Illustrate) -> tuple[Image, ...]:
    """Grade the costliest mistakes once more, now with their maps, and make a picture of each."""
    positions = worst(verdicts)[:ILLUSTRATED]
    entries = [verdicts.labelled.entries[position] for position in positions]
    gradings = [grader.grade(entry.path) for entry in entries]
    drawn = illustrate(gradings)
    return tuple(
        Image(data, "jpg", f"{entry.name}: {entry.grade.stage}, decided {grading.stage or grading.status}")
        for entry, grading, data in zip(entries, gradings, drawn, strict=True)
        if data is not None
    )


def write_report(folder: Path, document: Document, found: EvaluationResult, verdicts: Predictions) -> None:
    """Write the four files, each whole or not at all; UsageError where the folder cannot be written."""
    make_folder(folder)
    contents = {
        "predictions.csv": predictions(verdicts),
        "report.json": found.model_dump_json(indent=1) + "\n",
        "report.md": as_markdown(document),
        "report.html": as_html(document),
    }
    for name, text in contents.items():
        write_whole(folder / name, text.encode("utf-8", errors="backslashreplace"))


def predictions(verdicts: Predictions) -> str:
    """Every verdict beside the truth, as CSV; photographs of one group are not independent of each other."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    labelled = verdicts.labelled
    for entry, unit, grading in zip(labelled.entries, labelled.units.tolist(), verdicts.gradings, strict=True):
        given = grading.probabilities
        probabilities = [""] * len(GRADES) if given is None else [f"{p:.8f}" for p in given]
        confidence = "" if given is None or grading.grade is None else f"{given[grading.grade]:.8f}"
        writer.writerow(
            [
                entry.name,
                entry.path,
                int(entry.grade),
                grading.status.value,
                "" if grading.grade is None else int(grading.grade),
                *probabilities,
                "" if grading.p_referable is None else f"{grading.p_referable:.8f}",
                "" if grading.referable is None else str(grading.referable).lower(),
                confidence,
                "" if grading.prediction_set is None else " ".join(str(int(grade)) for grade in grading.prediction_set),
                "" if grading.quality is None else f"{grading.quality:.4f}",
                "; ".join(grading.reasons),
                entry.source,
                entry.patient,
                unit,
                entry.sha256,
            ]
        )
    return buffer.getvalue()
