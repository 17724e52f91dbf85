"""Run the protocol: every training that is not finished yet, a report after each; what is finished is never lost."""

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
from retigrade.paper.outcome import read_outcome, write_outcome
from retigrade.paper.pictures import View, pictures
from retigrade.paper.report import write_report
from retigrade.paper.settings import Job, Preparation, Protocol, Settings, recipe_of
from retigrade.paper.study import Study
from retigrade.paper.trainer import NetworkTrainer, Task, Trained
from retigrade.training.progress import Progress

SPLIT = "honest-split.json"
WORK = "work"


def run(
    data: Sequence[Path],
    *,
    out: Path,
    settings: Settings,
    trainer: NetworkTrainer,
    progress: Progress,
    photographs: bool = True,
    skip_unreadable: bool = False,
) -> Study:
    """Run what `settings` ask for on the photographs of `data` and write the report into `out`.

    Trainings that an earlier call finished there are read back. The report is written after each training, so that one
    is there however the run ends. photographs: embed some of them in the report's Figures 2 and 4.
    Raises UsageError and DataError as the options, the folder or the photographs have it.
    """
    make_folder(out)
    contestants = {network: trainer.contestant(network, size=settings.size) for network in settings.networks}
    needs_discs = Protocol.HONEST in settings.protocols
    manifest = read_manifest(data, size=settings.size if needs_discs else None, skip_unreadable=skip_unreadable)
    division = _division(manifest, out / SPLIT, settings)
    study = Study(
        settings=settings,
        manifest=manifest,
        groups=division.groups,
        contestants=contestants,
        published=protocols.published(len(manifest), folds=settings.most_folds, seed=settings.seed),
        honest=tuple(
            protocols.honest(division, manifest, fold=fold)
            for fold in range(1, settings.most_folds + 1)
            if Protocol.HONEST in settings.protocols
        ),
    )
    album = _Album(manifest, size=settings.size, folder=out / WORK)
    jobs = settings.jobs()
    for job in jobs:
        kept = read_outcome(out / WORK / job.name, identity=_identity(job, study))
        if kept is not None:
            study.finished[job] = kept
    if study.finished:
        write_report(study, album, out, photographs=photographs)
    for number, job in enumerate(jobs, start=1):
        if job not in study.finished:
            progress.begin(f"training {number} of {len(jobs)}: {job}", epochs=job.epochs)
            study.finished[job] = _train(job, study, album, trainer, progress, out / WORK / job.name)
            write_report(study, album, out, photographs=photographs)
    return study


class _Album:
    """The prepared photographs of a data set, each view made when it is first asked for."""

    def __init__(self, manifest: Manifest, *, size: int, folder: Path) -> None:
        self._manifest, self._size, self._folder = manifest, size, folder
        self._opened: dict[tuple[View, Preparation], Pixels] = {}

    def __call__(self, protocol: Protocol, preparation: Preparation) -> Pixels:
        key = protocols.VIEWS[protocol], preparation
        if key not in self._opened:
            self._opened[key] = pictures(
                self._manifest, view=key[0], preparation=key[1], size=self._size, folder=self._folder
            )
        return self._opened[key]


def _division(manifest: Manifest, path: Path, settings: Settings) -> Splits:
    """The honest division: read back where it was written, which also spares looking for duplicates again."""
    if path.exists():
        division = read_splits(path, manifest)
        if (len(division.names), division.seed) == (protocols.parts_of(settings.most_folds), settings.seed):
            return division
        groups = division.groups
    else:
        groups = find_duplicates(manifest.paths)
    division = protocols.divide_honestly(manifest, groups, folds=settings.most_folds, seed=settings.seed)
    write_splits(division, path, manifest)
    return division


def _identity(job: Job, study: Study) -> dict[str, str]:
    """What makes a training this one and no other."""
    contestant = study.contestants[job.network]
    return {
        "data set": study.manifest.fingerprint,
        "training": job.name,
        "division": study.parts(job).digest,
        "recipe": repr(recipe_of(job, size=study.settings.size)),
        "seed": str(study.settings.seed + job.fold),
        "start": contestant.digest or contestant.start,
    }


def _train(job: Job, study: Study, album: _Album, trainer: NetworkTrainer, progress: Progress, folder: Path) -> Trained:
    """Train, from where an earlier call stopped, and keep the outcome."""
    parts, identity = study.parts(job), _identity(job, study)
    task = Task(
        network=job.network,
        recipe=recipe_of(job, size=study.settings.size),
        seed=study.settings.seed + job.fold,
        photos=album(job.protocol, job.preparation),
        grades=study.manifest.grades,
        train=parts.train,
        validation=parts.validation,
        shown=study.shown(job),
        identity=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    )
    under_way = folder / "under-way"
    trained = trainer.train(task, folder=under_way, progress=progress)
    write_outcome(trained, folder, identity=identity)
    shutil.rmtree(under_way, ignore_errors=True)
    return trained
