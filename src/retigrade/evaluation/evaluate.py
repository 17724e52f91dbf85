"""How well a bundle does on labelled photographs: from their folder to the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retigrade.data.annotations import find_annotated, read_annotated
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.splits import narrow, read_splits
from retigrade.errors import UsageError, needs_extra
from retigrade.evaluation.faithfulness import Faithfulness, at_random, evidence, measure_faithfulness
from retigrade.evaluation.measure import measure
from retigrade.evaluation.predictions import LabelledSet, Predictions, open_grader, predict_labelled, worst
from retigrade.evaluation.result import EvaluationResult
from retigrade.evaluation.retest import RETESTED, measure_retest, real_pairs
from retigrade.evaluation.robustness import sample, suite
from retigrade.files import make_folder, write_whole
from retigrade.grader import Grader
from retigrade.icdr import GRADES
from retigrade.output.illustrate import illustrate
from retigrade.output.rows import csv_cell, csv_record
from retigrade.progress import RunProgress
from retigrade.report.document import Image, as_html, as_markdown

ILLUSTRATED = 20
"""The mistakes that are shown with their heatmaps."""
CORRUPTED = 200
"""The most photographs for the corruption suite, each graded 61 times."""

COLUMNS = (
    "name", "path", "true_grade", "status", "grade", "p0", "p1", "p2", "p3", "p4", "p_referable", "referable",
    "confidence", "prediction_set", "quality", "reasons", "source", "patient", "group", "sha256",
)  # fmt: skip


def evaluate(
    data: Path | str | Sequence[Path | str],
    *,
    out: Path | str | None = None,
    bundle: Path | str | None = None,
    splits: Path | str | None = None,
    part: str | None = None,
    operating_point: str | None = None,
    corruptions: bool = False,
    retest: bool = False,
    lesions: Path | str | None = None,
    model_card: Path | str | None = None,
    skip_unreadable: bool = False,
    jobs: int | None = None,
    progress: RunProgress | None = None,
) -> EvaluationResult:
    """Grade labelled photographs and measure how well: figures with 95 % intervals, curves, mistakes, refusals.

    data: labelled folders or CSV files. out: the folder for report.html, report.md, report.json and predictions.csv,
    None writes none. bundle: its file, None the shipped one. splits, part: a split of these photographs and the part of
    it to evaluate. operating_point: from where a photograph is referable, None the bundle's own. corruptions: also
    measure what survives blur, noise, shadow and nine more, on up to 200 of the photographs. retest: also measure how
    much the answer changes when an eye is photographed again, on up to 400 of them. lesions: a folder with
    photos/ and masks/, to measure the heatmap against. model_card: the file for the bundle's model card.
    skip_unreadable: leave out photographs that cannot be read. jobs: photographs at work at once, None one a core.
    progress: hears of each step.

    Raises UsageError where an option is wrong, a file cannot be written or the extra `report` is not installed,
    DataError where the photographs cannot be used, BundleError where the bundle cannot be.
    """
    # What is missing or wrong, and what cannot be written, must not wait for the gradings.
    with needs_extra("report"):
        import scipy  # noqa: F401

        import retigrade.report.plots  # noqa: F401
    if (splits is None) != (part is None):
        raise UsageError("--splits and --part go together: a split, and which part of it to evaluate")
    grader, jobs = open_grader(bundle, jobs=jobs, operating_point=operating_point)
    if out is not None:
        make_folder(Path(out))
    if lesions is not None:
        find_annotated(Path(lesions))
    manifest = read_manifest(data, skip_unreadable=skip_unreadable, progress=progress)
    if splits is not None:
        manifest = narrow(manifest, Path(splits))
    predictions = predict_labelled(grader, _labelled(manifest, splits, part, progress), jobs=jobs, progress=progress)
    result = measure(predictions, grader, manifest=manifest, part=part)
    if corruptions:
        entries = sample(predictions.labelled.entries, CORRUPTED, np.random.default_rng(0))
        result = result.model_copy(update={"robustness": suite(grader, entries, jobs=jobs, progress=progress)})
    if retest:
        entries = sample(predictions.labelled.entries, RETESTED, np.random.default_rng(0))
        real = list(real_pairs(predictions))
        measured = measure_retest(grader, entries, real=real, jobs=jobs, progress=progress)
        result = result.model_copy(update={"retest": measured})
    if lesions is not None:
        result = result.model_copy(update={"faithfulness": _faithfulness(grader, Path(lesions))})
    if out is not None:
        write_report(Path(out), predictions, result, examples=illustrate_worst(predictions, grader))
    if model_card is not None:
        from retigrade.evaluation.model_card import model_card as compose_model_card  # only where one is wanted

        write_whole(Path(model_card), compose_model_card(grader.bundle, result).encode())
    return result


def write_report(
    folder: Path, predictions: Predictions, result: EvaluationResult, *, examples: Sequence[Image] = ()
) -> None:
    """Write the four files, each whole or not at all; UsageError where the folder cannot be written.

    examples: mistakes with their heatmaps.
    """
    from retigrade.evaluation.report import compose, draw_plots  # needs matplotlib

    document = compose(result, draw_plots(predictions.graded, result), examples=examples)
    make_folder(folder)
    contents = {
        "predictions.csv": predictions_csv(predictions),
        "report.json": result.model_dump_json(indent=1) + "\n",
        "report.md": as_markdown(document),
        "report.html": as_html(document),
    }
    for name, text in contents.items():
        write_whole(folder / name, text.encode("utf-8", errors="backslashreplace"))


def illustrate_worst(predictions: Predictions, grader: Grader) -> tuple[Image, ...]:
    """Grade the costliest mistakes once more, now with their heatmaps, and make an image of each."""
    entries = [predictions.labelled.entries[position] for position in worst(predictions)[:ILLUSTRATED]]
    gradings = [grader.grade(entry.path) for entry in entries]
    return tuple(
        Image(drawn.thumbnail, "jpg", f"{entry.name}: {entry.grade.stage}, predicted {grading.stage or grading.status}")
        for entry, grading, drawn in zip(entries, gradings, illustrate(gradings, jobs=1), strict=True)
        if drawn.thumbnail is not None
    )


def predictions_csv(predictions: Predictions) -> str:
    """Every prediction beside the target, as CSV; photographs of one group are not independent of each other."""
    lines = [csv_record(COLUMNS)]
    for (entry, grading), group in zip(predictions.pairs, predictions.labelled.groups.tolist(), strict=True):
        p = grading.probabilities
        confidence = None if p is None or grading.grade is None else float(p[grading.grade])
        sets = grading.prediction_set
        cells = (
            entry.name,
            entry.path,
            int(entry.grade),
            grading.status.value,
            None if grading.grade is None else int(grading.grade),
            *([None] * len(GRADES) if p is None else p.tolist()),
            grading.p_referable,
            grading.referable,
            confidence,
            None if sets is None else " ".join(str(int(grade)) for grade in sets),
            grading.quality,
            "; ".join(grading.reasons),
            entry.source,
            entry.patient,
            group,
            entry.sha256,
        )
        lines.append(csv_record([csv_cell(cell) for cell in cells]))
    return "".join(lines)


def _labelled(
    manifest: Manifest, splits: Path | str | None, part: str | None, progress: RunProgress | None
) -> LabelledSet:
    if splits is None or part is None:
        return LabelledSet.of(manifest, progress=progress)
    split = read_splits(Path(splits), manifest)
    if part not in split.names:
        raise UsageError(f"there is no part {part!r} in {splits}; there are: {', '.join(split.names)}")
    return LabelledSet.of(manifest, split, part=part)


def _faithfulness(grader: Grader, folder: Path) -> Faithfulness:
    """Of the heatmap and of a random map, on annotated photographs that the bundle did not learn from."""
    maps = {"heatmap": evidence(grader), "random map": at_random(np.random.default_rng(0))}
    training = grader.bundle.metadata.training
    annotated = (photo for photo in read_annotated(folder) if not training.has_seen(photo.photo.sha256))
    return measure_faithfulness(grader, annotated, maps)
