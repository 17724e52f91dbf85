"""What each photograph was predicted as by a network that did not learn from it, and figures by fold.

The probabilities are of every photograph, the bundle's gate apart, so that runs can be compared photograph by
photograph.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from retigrade.arrays import Integers, Reals
from retigrade.data.manifest import Manifest
from retigrade.errors import DataError
from retigrade.files import write_whole
from retigrade.icdr import GRADES, Status
from retigrade.metrics.classification import p_referable
from retigrade.metrics.decision import softmax
from retigrade.metrics.registry import METRICS, Sample
from retigrade.output.rows import csv_cell, csv_record
from retigrade.tables import read_table

PREDICTIONS, FOLDS = "predictions.csv", "folds.csv"
TEST = "test"
MEASURED = (
    "accuracy", "quadratic_kappa", "balanced_accuracy", "macro_f1", "off_by_two", "referable_auroc", "any_auroc", "ece",
    "brier", "nll",
)  # fmt: skip
"""The metrics of each fold: those that a network has without a threshold."""
COLUMNS = (
    "path", "name", "sha256", "source", "group", "fold", "part", "target", "predicted", *(f"p{g:d}" for g in GRADES),
    "status",
)  # fmt: skip


class PredictionRow(BaseModel):
    """One photograph by a network that did not learn from it.

    group: equal for photographs of one patient or one group of duplicates. fold: the network's. part: `validation` or
    `test`. predicted: by the bundle's decision. status: `graded`, or why the bundle gives it no grade; empty where it
    was not asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    name: str
    sha256: str
    source: str
    group: str
    fold: str
    part: str
    target: int = Field(ge=0, le=4)
    predicted: int = Field(ge=0, le=4)
    probabilities: tuple[float, float, float, float, float]
    status: str


def write_predictions(folder: Path, rows: Sequence[PredictionRow]) -> None:
    """Write predictions.csv whole."""
    lines = [csv_record(COLUMNS)]
    for row in rows:
        before = (row.path, row.name, row.sha256, row.source, row.group, row.fold, row.part, row.target, row.predicted)
        lines.append(csv_record([csv_cell(cell) for cell in (*before, *row.probabilities, row.status)]))
    write_whole(folder / PREDICTIONS, "".join(lines).encode("utf-8", errors="backslashreplace"))


def read_predictions(folder: Path) -> list[PredictionRow]:
    """Read predictions.csv back; DataError where it is missing or a row is not one."""
    table = read_table(folder / PREDICTIONS)
    rows = []
    for row in table.rows:
        values: dict[str, Any] = {column: _as_written(row.get(column)) for column in COLUMNS}
        values["probabilities"] = tuple(values.pop(f"p{grade:d}") for grade in GRADES)
        try:
            if row.problem:
                raise ValueError(row.problem)
            rows.append(PredictionRow.model_validate(values))
        except ValueError as error:
            raise DataError(f"{folder / PREDICTIONS}, line {row.line}: not a prediction; train again") from error
    if not rows:
        raise DataError(f"{folder / PREDICTIONS}: holds no predictions; train again")
    return rows


def out_of_fold(folders: Sequence[Path], manifest: Manifest) -> Reals:
    """What cross-validated runs say of photographs, each by the network that did not learn from it: float64 (N, 5).

    The geometric mean over the runs, whose rows sum to 1. Raises DataError where a run lacks a photograph.
    """
    logarithms = []
    for folder in folders:
        known = {row.sha256: row.probabilities for row in read_predictions(folder) if row.part == TEST}
        lacking = [entry.name for entry in manifest.entries if entry.sha256 not in known]
        if lacking:
            raise DataError(
                f"{folder / PREDICTIONS}: lacks {len(lacking)} of the {len(manifest)} photographs, such as "
                f"{lacking[0]}; learn from a run with --folds on the same photographs"
            )
        probabilities = np.array([known[entry.sha256] for entry in manifest.entries])
        logarithms.append(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))
    return softmax(np.mean(logarithms, axis=0))


def _as_written(cell: str) -> str:
    return cell.removeprefix("'")  # what guards a spreadsheet from formulas


def as_sample(rows: Sequence[PredictionRow]) -> Sample:
    """Predictions as arrays; referred: those of a referable stage, for there is no threshold here."""
    probabilities = np.array([row.probabilities for row in rows], dtype=np.float64).reshape(-1, len(GRADES))
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # written with finite digits
    predicted = np.array([row.predicted for row in rows], dtype=np.int64)
    return Sample(
        probabilities=probabilities,
        predicted=predicted,
        target=np.array([row.target for row in rows], dtype=np.int64),
        referred=p_referable(probabilities) >= 0.5,
    )


def figures_of(sample: Sample, rows: Integers) -> Reals:
    """One figure for each of `MEASURED`, of some of the photographs; nan where one is not defined."""
    drawn = sample.take(rows)
    return np.array([METRICS[key].function(drawn) for key in MEASURED])


def write_folds(folder: Path, rows: Sequence[PredictionRow], learned_from: Mapping[str, int]) -> None:
    """Write folds.csv: the figures of each fold's test photographs, their mean and deviation, and all pooled.

    They are of every photograph, also of those that the bundle would refuse.
    """
    tested = [row for row in rows if row.part == TEST]
    folds = list(dict.fromkeys(row.fold for row in tested))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["fold", "learned_from", "photographs", "refused", *MEASURED])
    columns = []
    for fold in folds:
        own = [row for row in tested if row.fold == fold]
        columns.append(figures_of(as_sample(own), np.arange(len(own))))
        refused = sum(row.status not in ("", Status.GRADED.value) for row in own)
        writer.writerow([fold or TEST, learned_from[fold], len(own), refused, *_cells(columns[-1])])
    if len(folds) > 1:
        for name, values in (
            ("mean", np.mean(columns, axis=0)),
            ("standard deviation", np.std(columns, axis=0, ddof=1)),
            ("pooled", figures_of(as_sample(tested), np.arange(len(tested)))),
        ):
            writer.writerow([name, "", "", "", *_cells(values)])
    write_whole(folder / FOLDS, out.getvalue().encode())


def _cells(values: Reals) -> Iterator[str]:
    return ("" if np.isnan(value) else f"{value:.6f}" for value in values.tolist())
