"""Run an experiment: every training that is not finished yet, a report after each; what is finished is never lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from retigrade.arrays import Pixels
from retigrade.data.duplicates import find_duplicates
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.splits import Splits, read_splits, write_splits
from retigrade.files import make_folder
from retigrade.paper import protocols
from retigrade.paper.config import ExperimentConfig, Preparation, Protocol, TrainingRun, recipe_for
from retigrade.paper.experiment import Experiment
from retigrade.paper.pictures import View, pictures
from retigrade.paper.report import write_report
from retigrade.paper.results import read_result, write_result
from retigrade.paper.trainer import CheckpointResult, NetworkTrainer, TrainingTask
from retigrade.training.progress import Progress

SPLIT = "honest-split.json"
WORK = "work"


def run_experiment(
    data: Sequence[Path],
    *,
    out: Path,
    config: ExperimentConfig,
    trainer: NetworkTrainer,
    progress: Progress,
    photographs: bool = True,
    skip_unreadable: bool = False,
) -> Experiment:
    """Run what `config` asks for on the photographs of `data` and write the report into `out`.

    Trainings that an earlier call finished there are read back. The report is written after each training, so that one
    is there however the run ends. photographs: embed some of them in the report's Figures 2 and 4.
    Raises UsageError and DataError as the options, the folder or the photographs have it.
    """
    make_folder(out)
    networks = {network: trainer.describe(network, size=config.size) for network in config.networks}
    needs_discs = Protocol.HONEST in config.protocols
    manifest = read_manifest(data, size=config.size if needs_discs else None, skip_unreadable=skip_unreadable)
    division = _division(manifest, out / SPLIT, config)
    experiment = Experiment(
        config=config,
        manifest=manifest,
        duplicates=division.groups,
        networks=networks,
        published=protocols.published(len(manifest), folds=config.most_folds, seed=config.seed),
        honest=tuple(
            protocols.honest(division, manifest, fold=fold)
            for fold in range(1, config.most_folds + 1)
            if Protocol.HONEST in config.protocols
        ),
    )
    album, runs = _Album(manifest, size=config.size, folder=out / WORK), config.runs()
    for run in runs:
        result = read_result(out / WORK / run.name, identity=_identity(run, experiment))
        if result is not None:
            experiment.finished[run] = result
    if experiment.finished:
        write_report(experiment, album, out, photographs=photographs)
    for number, run in enumerate(runs, start=1):
        if run not in experiment.finished:
            progress.begin(f"training {number} of {len(runs)}: {run}", epochs=run.epochs)
            experiment.finished[run] = _train(run, experiment, album, trainer, progress, out / WORK / run.name)
            write_report(experiment, album, out, photographs=photographs)
    return experiment


class _Album:
    """The prepared photographs of a data set, each view made when it is first asked for."""

    def __init__(self, manifest: Manifest, *, size: int, folder: Path) -> None:
        self._manifest, self._size, self._folder = manifest, size, folder
        self._opened: dict[tuple[View, Preparation], Pixels] = {}

    def __call__(self, protocol: Protocol, preparation: Preparation) -> Pixels:
        view = protocols.VIEWS[protocol]
        if (view, preparation) not in self._opened:
            self._opened[view, preparation] = pictures(
                self._manifest, view=view, preparation=preparation, size=self._size, folder=self._folder
            )
        return self._opened[view, preparation]


def _division(manifest: Manifest, path: Path, config: ExperimentConfig) -> Splits:
    """The honest division: read back where it was written, which also spares looking for duplicates again."""
    if path.exists():
        division = read_splits(path, manifest)
        if (len(division.names), division.seed) == (protocols.parts_of(config.most_folds), config.seed):
            return division
        duplicates = division.groups
    else:
        duplicates = find_duplicates(manifest.paths)
    division = protocols.divide_honestly(manifest, duplicates, folds=config.most_folds, seed=config.seed)
    write_splits(division, path, manifest)
    return division


def _identity(run: TrainingRun, experiment: Experiment) -> dict[str, str]:
    """What makes a training this one and no other."""
    network = experiment.networks[run.network]
    return {
        "data set": experiment.manifest.fingerprint,
        "training": run.name,
        "division": experiment.fold(run).digest,
        "recipe": repr(recipe_for(run, size=experiment.config.size)),
        "seed": str(experiment.config.seed + run.fold),
        "start": network.digest or network.start,
    }


def _train(
    run: TrainingRun,
    experiment: Experiment,
    album: _Album,
    trainer: NetworkTrainer,
    progress: Progress,
    folder: Path,
) -> CheckpointResult:
    """Train, from where an earlier call stopped, and keep the result."""
    identity = _identity(run, experiment)
    task = TrainingTask(
        network=run.network,
        recipe=recipe_for(run, size=experiment.config.size),
        seed=experiment.config.seed + run.fold,
        photos=album(run.protocol, run.preparation),
        grades=experiment.manifest.grades,
        fold=experiment.fold(run),
        shown=experiment.shown(run),
        identity=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    )
    under_way = folder / "under-way"
    result = trainer.train(task, folder=under_way, progress=progress)
    write_result(result, folder, identity=identity)
    shutil.rmtree(under_way, ignore_errors=True)
    return result
