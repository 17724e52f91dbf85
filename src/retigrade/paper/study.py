"""What a run has: its photographs, its division into folds, the trainings finished so far, and how they are judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from retigrade.arrays import Integers, Reals
from retigrade.data.groups import Groups, independent_groups
from retigrade.data.manifest import Manifest
from retigrade.metrics.decision import softmax
from retigrade.paper.protocols import Parts, leaking
from retigrade.paper.settings import Job, Preparation, Protocol, Settings
from retigrade.paper.trainer import Contestant, Trained


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Judged:
    """One trained network and the photographs that judge it.

    indices: int64 (n,), into the manifest. truth, decided: int64 (n,), the latter the most probable stage.
    probabilities: float64 (n, 5). learned: int64, the indices that it was trained on.
    """

    protocol: Protocol
    job: Job
    trained: Trained
    learned: Integers
    indices: Integers
    target: Integers
    probabilities: Reals
    predicted: Integers


Key = tuple[Protocol, str, Preparation]


@dataclass(kw_only=True)
class Study:
    """A run of the protocol.

    groups: duplicates. published, honest: the folds, by number from 1; the latter empty where that protocol is not
    asked for. finished: the trainings so far.
    """

    settings: Settings
    manifest: Manifest
    groups: Groups
    contestants: dict[str, Contestant]
    published: tuple[Parts, ...]
    honest: tuple[Parts, ...]
    finished: dict[Job, Trained] = field(default_factory=dict)

    @cached_property
    def units(self) -> Integers:
        """The independent unit of each photograph, int64 (N,), for intervals and twins."""
        return independent_groups(self.manifest, self.groups)

    def so_far(self) -> Study:
        """The study asked for no more than what is finished, so that its report tells of nothing else."""
        settings = self.settings
        finished = {job: self.finished[job] for job in settings.jobs() if job in self.finished}
        epochs = {job.network: job.epochs for job in finished}
        trained = {job.protocol for job in finished}
        prepared = {job.preparation for job in finished}
        ran = replace(
            settings,
            networks=tuple(epochs),
            folds=tuple(max(job.fold for job in finished if job.network == network) for network in epochs),
            epochs=tuple(epochs.values()),
            preparations=tuple(kind for kind in settings.preparations if kind in prepared),
            protocols=tuple(protocol for protocol in settings.protocols if protocol.trained in trained),
        )
        return replace(
            self, settings=ran, contestants={name: self.contestants[name] for name in epochs}, finished=finished
        )

    def parts(self, job: Job) -> Parts:
        """The fold that a job trains on."""
        folds = self.honest if job.protocol is Protocol.HONEST else self.published
        return folds[job.fold - 1]

    def shown(self, job: Job) -> Integers:
        """The photographs of Figure 4: the first of each stage that the job's fold tests, whatever becomes of them."""
        test, grades = self.parts(job).test, self.manifest.grades
        return np.array([test[grades[test] == grade][0] for grade in np.unique(grades[test])], dtype=np.int64)

    def judged(self) -> dict[Key, list[Judged]]:
        """The finished trainings as each protocol asked for judges them: the folds of each network and preparation."""
        found = sorted(self._judged(), key=self._place)
        return {key: list(folds) for key, folds in groupby(found, key=_key)}

    def _judged(self) -> Iterator[Judged]:
        grades = self.manifest.grades
        for job, trained in self.finished.items():
            parts = self.parts(job)
            probabilities = softmax(trained.logits)
            for protocol in self.settings.protocols:
                if protocol.trained is not job.protocol:
                    continue
                overlapping = protocol is Protocol.LEAKING
                indices = leaking(parts, seed=self.settings.seed + job.fold) if overlapping else parts.test
                yield Judged(
                    protocol=protocol,
                    job=job,
                    trained=trained,
                    learned=parts.train,
                    indices=indices,
                    target=grades[indices],
                    probabilities=probabilities[indices],
                    predicted=probabilities[indices].argmax(axis=1),
                )

    def _place(self, one: Judged) -> tuple[int, int, int, int]:
        settings, job = self.settings, one.job
        return (
            list(Protocol).index(one.protocol),
            settings.preparations.index(job.preparation),
            settings.networks.index(job.network),
            job.fold,
        )


def _key(one: Judged) -> Key:
    return one.protocol, one.job.network, one.job.preparation
