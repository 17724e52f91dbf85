"""`retigrade.train`: labelled photographs to a bundle, with the record of the run in the same folder."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from retigrade.bundle import Bundle
from retigrade.data.annotations import find_annotated
from retigrade.data.duplicates import find_duplicates
from retigrade.data.groups import independent_groups
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.splits import check_leaks, narrow
from retigrade.errors import LeakError, UsageError
from retigrade.evaluation.evaluate import evaluate
from retigrade.experiments.predictions import (
    TEST,
    PredictionRow,
    as_sample,
    out_of_fold,
    write_folds,
    write_predictions,
)
from retigrade.experiments.record import RUN, DataFound, ExternalSet, RunRecord, commit, machine, versions
from retigrade.experiments.tracking import Tracker, open_tracker
from retigrade.files import make_folder, write_whole
from retigrade.metrics.calibration import reliability
from retigrade.training.backbone import suited
from retigrade.training.checkpoint import CHECKPOINT
from retigrade.training.config import TEST_SHARE, VALIDATION_SHARE, TrainConfig
from retigrade.training.describe import UNSTATED
from retigrade.training.device import open_fabric
from retigrade.training.log import LOG
from retigrade.training.loop import Start
from retigrade.training.pipeline import TrainedBundle, train_manifest
from retigrade.training.progress import Progress
from retigrade.training.recipe import Recipe, recipe_named

HISTORY, FIGURES, EXTERNAL = "history.csv", "figures", "external"


def train(
    data: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    recipe: str | Recipe = "best",
    backbone: str = "mobilenetv2_100",
    weights: Path | None = None,
    random_start: bool = False,
    size: int | None = None,
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    folds: int = 0,
    leave_source_out: bool = False,
    refit: bool = False,
    external: Sequence[Path | str] = (),
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    teachers: int | None = None,
    lesions: Path | None = None,
    mirror: bool = False,
    distill: Sequence[Path] = (),
    splits: Path | None = None,
    name: str | None = None,
    license: str = UNSTATED,
    intended_use: str = UNSTATED,
    seed: int = 1,
    resume: bool = False,
    skip_unreadable: bool = False,
    accelerator: str = "auto",
    mlflow: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train on labelled photographs and write a bundle; returns its path, `out/bundle.onnx`.

    data: labelled folders or CSV files. out: keeps the bundle, its evaluation, the split, the prepared photographs,
    the logs and checkpoints, and the run's record: run.json, history.csv, predictions.csv, folds.csv, figures/.
    recipe: a name in `training.recipe.RECIPES`, or one of your own; size, epochs, batch, lr, teachers: in
    place of the recipe's. backbone: one of timm. weights: what to start from, a safetensors file or a bundle, in place
    of timm's ImageNet weights; random_start: start from random weights. validation, test, folds, leave_source_out,
    refit, lesions, mirror, distill, splits: see `TrainConfig`. external: labelled folders or CSV files to measure the
    bundle on, never learned from or chosen on. name, license, intended_use: what the bundle says of itself. resume: go
    on with the run in `out`. skip_unreadable: leave unusable photographs out. accelerator: `auto`, `cpu` or `gpu`.
    mlflow: address of an MLflow server or folder that hears of it too. progress: hears of each step.

    Raises UsageError for wrong options, a folder that cannot be written, or a training whose loss is not a number;
    DataError where the photographs cannot be used; LeakError where an external photograph is among them.
    """
    options = {key: value for key, value in locals().items() if key not in ("progress", "resume", "skip_unreadable")}
    progress, folder = progress or Progress(), Path(out)
    if folder.exists() and any(folder.glob(f"**/{CHECKPOINT}")) and not resume:
        raise UsageError(f"{folder} holds a training already: go on with --resume, or name another --out")
    config, sentences = _config(options)
    folders = _folders(data)
    externals = {each: read_manifest(each, skip_unreadable=skip_unreadable) for each in _folders(external)}
    manifest = read_manifest(folders, size=config.recipe.size, skip_unreadable=skip_unreadable)
    if splits is not None:
        manifest = narrow(manifest, Path(splits))
    for each in externals.values():
        check_apart(manifest, each)
    _check_not_taught(externals.values(), config)
    fabric = open_fabric(accelerator=accelerator)
    first = fabric.is_global_zero  # of several processes one tells and writes
    make_folder(folder)
    record = _start(folder, options, config, manifest, folders, fabric)
    tracker = open_tracker(mlflow if first else None, record, name=folder.resolve().name)
    if first:
        record = record.model_copy(update={"mlflow": tracker.run})
        record.write(folder)
    listeners = tracker.beside(progress if first else Progress())
    for sentence in (*sentences, *manifest.notes, *(f"left out {photograph}" for photograph in manifest.left_out)):
        listeners.note(sentence)
    predicted = out_of_fold(config.distilled_runs, manifest) if config.distilled_runs else None
    trained = train_manifest(manifest, config, folder=folder, fabric=fabric, progress=listeners, predicted=predicted)
    if trained is not None:
        _finish(folder, record, manifest, trained, externals, tracker, listeners, skip_unreadable=skip_unreadable)
        listeners.note(f"bundle: {trained.path}; retigrade info {trained.path} says what it reached")
    fabric.barrier()
    return folder / "bundle.onnx"


def check_apart(manifest: Manifest, external: Manifest) -> None:
    """Raise LeakError, naming a pair, where an external photograph, or a copy of it, is among those to learn from."""
    known = {entry.sha256: entry.name for entry in manifest.entries}
    for entry in external.entries:
        if entry.sha256 in known:
            raise LeakError(
                f"{entry.name} is external and the same file as {known[entry.sha256]}, which is learned from; leave it "
                "out of one of them"
            )
    together = Manifest(
        tuple(
            replace(entry, name=f"{part}:{entry.name}", patient=f"{part}:{entry.patient}")
            for part, entry in _parts(manifest, external)
        )
    )
    learned = len(manifest)
    parts = {"learned from": np.arange(learned), "external": np.arange(learned, len(together))}
    check_leaks(parts, find_duplicates(together.paths), together)


def _check_not_taught(externals: Collection[Manifest], config: TrainConfig) -> None:
    """Raise LeakError where an external photograph was learned from by a bundle given, or has lesions to learn from."""
    if not externals:
        return
    bundles = {path: Bundle.load(path).metadata.training for path in config.given_bundles}
    marked = set() if config.lesions is None else set(map(_digest, find_annotated(config.lesions)))
    for entry in chain.from_iterable(external.entries for external in externals):
        if entry.sha256 in marked:
            raise LeakError(f"{entry.name} is external and among {config.lesions}; leave it out of one of them")
        for path, training in bundles.items():
            if training.has_seen(entry.sha256):
                raise LeakError(f"{entry.name} is external, and {path} learned from it; leave one of them out")


def _digest(annotated: tuple[Path, Path]) -> str:
    return hashlib.sha256(annotated[0].read_bytes()).hexdigest()


def _parts(manifest: Manifest, external: Manifest) -> list[tuple[str, Any]]:
    return [
        *(("learned from", entry) for entry in manifest.entries),
        *(("external", entry) for entry in external.entries),
    ]


def _folders(data: Path | str | Sequence[Path | str]) -> list[Path]:
    return [Path(data)] if isinstance(data, Path | str) else [Path(each) for each in data]


def _config(options: Mapping[str, Any]) -> tuple[TrainConfig, list[str]]:
    """The options as a config, and a sentence on each thing that the backbone cannot follow."""
    recipe = options["recipe"]
    chosen = recipe_named(recipe) if isinstance(recipe, str) else recipe
    changed = {key: options[key] for key in ("epochs", "batch", "lr", "teachers") if options[key] is not None}
    chosen = replace(chosen if options["size"] is None else chosen.resized(options["size"]), **changed)
    chosen, sentences = suited(chosen, options["backbone"])
    if options["leave_source_out"] and options["test"] != TEST_SHARE:
        raise UsageError("--leave-source-out tests on whole data sets: leave --test out")
    shares = (options["validation"], options["test"])
    if options["splits"] is not None and not options["folds"] and shares != (VALIDATION_SHARE, TEST_SHARE):
        raise UsageError("--splits says which photographs validate and test: leave --validation and --test out")
    if options["folds"] and options["test"] != TEST_SHARE:
        raise UsageError("--folds tests every photograph once: leave --test out")
    config = TrainConfig(
        recipe=chosen,
        start=Start(
            backbone=options["backbone"],
            weights=options["weights"],
            pretrained=not options["random_start"],
            seed=options["seed"],
        ),
        distill=tuple(options["distill"]),
        name=options["name"] or f"retigrade-{options['backbone']}".lower(),
        **{key: options[key] for key in _AS_THEY_ARE},
    )
    return config, sentences


_AS_THEY_ARE = (
    "validation", "test", "folds", "leave_source_out", "refit", "lesions", "mirror", "splits", "license",
    "intended_use",
)  # fmt: skip


def _start(
    folder: Path,
    options: Mapping[str, Any],
    config: TrainConfig,
    manifest: Manifest,
    folders: Sequence[Path],
    fabric: Fabric,
) -> RunRecord:
    """The record of a run that begins, or that goes on from an earlier one of the same options."""
    plain = {key: _plain(value) for key, value in options.items() if key != "out"}
    device = fabric.device
    accelerators = [] if device.type == "cpu" else [f"{fabric.world_size} x {device.type}"]
    record = RunRecord(
        status="running",
        started=_now(),
        options=plain | {"recipe": config.recipe.name},
        recipe=asdict(config.recipe),
        versions=versions(),
        commit=commit(),
        seed=config.start.seed,
        data=DataFound(
            folders=tuple(map(str, folders)),
            photographs=len(manifest),
            grades=tuple(np.bincount(manifest.grades, minlength=5).tolist()),
            sources=dict(zip(*_counted(manifest), strict=True)),
            fingerprint=manifest.fingerprint,
            left_out=tuple(map(str, manifest.left_out)),
        ),
        machine=machine(accelerators=accelerators),
    )
    if not (folder / RUN).exists():
        return record
    earlier = RunRecord.read(folder)
    earlier.check_same(record, folder)
    return record.model_copy(update={"started": earlier.started, "mlflow": earlier.mlflow})


def _counted(manifest: Manifest) -> tuple[list[str], list[int]]:
    names, counts = np.unique(manifest.sources, return_counts=True)
    return names.tolist(), counts.tolist()


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Recipe):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _finish(
    folder: Path,
    record: RunRecord,
    manifest: Manifest,
    trained: TrainedBundle,
    externals: Mapping[Path, Manifest],
    tracker: Tracker,
    progress: Progress,
    *,
    skip_unreadable: bool,
) -> None:
    """Measure on the external photographs, and write what the run found."""
    rows = prediction_rows(manifest, trained)
    write_predictions(folder, rows)
    write_folds(folder, rows, {fold.fold: fold.learned_from for fold in trained.folds})
    history = _write_history(folder)
    _draw(folder, rows, history)
    measured: dict[str, ExternalSet] = {}
    for path, photographs in externals.items():
        name = _free_name(path.resolve().name if path.is_dir() else path.stem, measured)
        progress.note(f"measuring on {len(photographs)} external photographs of {name}")
        result = evaluate(path, bundle=trained.path, out=folder / EXTERNAL / name, skip_unreadable=skip_unreadable)
        measured[name] = ExternalSet(
            data=str(path),
            photographs=result.photographs.count,
            graded=result.statuses["graded"],
            fingerprint=photographs.fingerprint,
            figures=result.headline,
        )
    finished = record.model_copy(
        update={
            "status": "finished",
            "finished": _now(),
            "bundle": trained.result.bundle.partition("@")[0],
            "figures": trained.result.headline,
            "external": measured,
        }
    )
    finished.write(folder)
    tracker.finish(finished, folder)


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name}-{number + 1}"
    return free


def prediction_rows(manifest: Manifest, trained: TrainedBundle) -> list[PredictionRow]:
    """What each fold's network says of every photograph that it did not learn from."""
    groups = independent_groups(manifest, trained.splits.groups)
    statuses = {
        entry.sha256: grading.status.value
        for entry, grading in zip(trained.predictions.labelled.entries, trained.predictions.gradings, strict=True)
    }
    rows = []
    for fold in trained.folds:
        predicted = trained.metadata.decision.decide_all(fold.probabilities)
        for index, grade, probabilities in zip(
            fold.indices.tolist(), predicted.tolist(), fold.probabilities, strict=True
        ):
            entry = manifest.entries[index]
            none, mild, moderate, severe, proliferative = probabilities.tolist()
            rows.append(
                PredictionRow(
                    path=str(entry.path),
                    name=entry.name,
                    sha256=entry.sha256,
                    source=entry.source,
                    group=manifest.entries[groups[index]].name,
                    fold=fold.fold,
                    part=fold.part,
                    target=int(entry.grade),
                    predicted=grade,
                    probabilities=(none, mild, moderate, severe, proliferative),
                    status=statuses.get(entry.sha256, "") if fold.part == TEST else "",
                )
            )
    return rows


def _write_history(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Every training's epochs in one file, history.csv; returned by the training's name, empty for the only one."""
    history: dict[str, list[dict[str, str]]] = {}
    for path in sorted(folder.glob(f"**/{LOG}")):
        training = path.parent.relative_to(folder).as_posix().removeprefix(".")
        if training.partition("/")[0] != EXTERNAL:
            with path.open(newline="") as file:
                history[training] = list(csv.DictReader(file))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    columns = list(next(iter(next(iter(history.values()))))) if history else []
    writer.writerow(["training", *columns])
    for training, epochs in history.items():
        writer.writerows([training, *(epoch[column] for column in columns)] for epoch in epochs)
    write_whole(folder / HISTORY, out.getvalue().encode())
    return history


def _draw(folder: Path, rows: Sequence[PredictionRow], history: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Curves, confusion matrices and reliability as SVG."""
    from retigrade.report.plots import confusion_plot, reliability_plot, training_plot

    samples = {
        fold or TEST: as_sample([row for row in rows if row.fold == fold and row.part == TEST])
        for fold in dict.fromkeys(row.fold for row in rows)
    }
    kept = {name or "the network": epochs for name, epochs in history.items() if "teacher" not in name}
    plots = {
        "training": training_plot(
            {name: [float(epoch["loss"]) for epoch in epochs] for name, epochs in kept.items()},
            {name: [float(epoch["kappa"]) for epoch in epochs] for name, epochs in kept.items()},
        ),
        "confusion": confusion_plot({name: sample.counts for name, sample in samples.items()}),
        "reliability": reliability_plot(
            {name: reliability(sample.confidence, sample.correct) for name, sample in samples.items()}
        ),
    }
    for name, svg in plots.items():
        write_whole(folder / FIGURES / f"{name}.svg", svg)
