"""An experiment: its photographs, their folds, the trainings finished so far, and how each protocol evaluates them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from retigrade.arrays import Flags, Integers, Reals
from retigrade.data.groups import Groups, independent_groups
from retigrade.data.manifest import Manifest
from retigrade.metrics.decision import softmax
from retigrade.paper.config import ExperimentConfig, Preparation, Protocol, TrainingRun
from retigrade.paper.protocols import leaking
from retigrade.paper.trainer import CheckpointResult, NetworkDescription
from retigrade.training.dataset import Fold


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FoldResult:
    """One trained network and the photographs that evaluate it.

    indices: int64 (n,), into the manifest. target, predicted: int64 (n,), the latter the most probable stage.
    probabilities: float64 (n, 5). learned: int64, the indices that it was trained on.
    """

    protocol: Protocol
    run: TrainingRun
    trained: CheckpointResult
    learned: Integers
    indices: Integers
    target: Integers
    probabilities: Reals
    predicted: Integers

    def seen(self, groups: Integers) -> tuple[Flags, Flags]:
        """Which of its photographs were learned from, and of which others a duplicate or the patient was; bool (n,).

        groups: int64 (N,), equal for photographs of one patient or duplicate group.
        """
        trained_on = np.isin(self.indices, self.learned)
        return trained_on, np.isin(groups[self.indices], groups[self.learned]) & ~trained_on


ResultKey = tuple[Protocol, str, Preparation]
Results = Mapping[ResultKey, Sequence[FoldResult]]
"""The folds of each protocol, network and preparation."""


@dataclass(kw_only=True)
class Experiment:
    """A run of the protocols.

    duplicates: the groups found. published, honest: the folds, by number from 1; the latter empty where that protocol
    is not asked for. finished: the trainings so far.
    """

    config: ExperimentConfig
    manifest: Manifest
    duplicates: Groups
    networks: dict[str, NetworkDescription]
    published: tuple[Fold, ...]
    honest: tuple[Fold, ...]
    finished: dict[TrainingRun, CheckpointResult] = field(default_factory=dict)

    @cached_property
    def groups(self) -> Integers:
        """The patient or duplicate group of each photograph, int64 (N,)."""
        return independent_groups(self.manifest, self.duplicates)

    def so_far(self) -> Experiment:
        """The experiment asked for no more than what is finished, so that its report tells of nothing else."""
        config = self.config
        finished = {run: self.finished[run] for run in config.runs() if run in self.finished}
        epochs = {run.network: run.epochs for run in finished}
        ran = replace(
            config,
            networks=tuple(epochs),
            folds=tuple(max(run.fold for run in finished if run.network == network) for network in epochs),
            epochs=tuple(epochs.values()),
            preparations=tuple(dict.fromkeys(run.preparation for run in finished)),
            protocols=tuple(
                protocol for protocol in config.protocols if protocol.trained in {run.protocol for run in finished}
            ),
        )
        return replace(self, config=ran, networks={name: self.networks[name] for name in epochs}, finished=finished)

    def fold(self, run: TrainingRun) -> Fold:
        """The fold that a run trains on."""
        return (self.honest if run.protocol is Protocol.HONEST else self.published)[run.fold - 1]

    def shown(self, run: TrainingRun) -> Integers:
        """The photographs of Figure 4: the first of each stage that the run's fold tests, whatever becomes of them."""
        test, grades = self.fold(run).test, self.manifest.grades
        return np.array([test[grades[test] == grade][0] for grade in np.unique(grades[test])], dtype=np.int64)

    def results(self) -> Results:
        """The finished trainings as each protocol asked for evaluates them."""
        config = self.config
        ordered = sorted(
            self._results(),
            key=lambda result: (
                list(Protocol).index(result.protocol),
                config.preparations.index(result.run.preparation),
                config.networks.index(result.run.network),
                result.run.fold,
            ),
        )
        return {key: list(folds) for key, folds in groupby(ordered, key=_key)}

    def _results(self) -> Iterator[FoldResult]:
        for run, trained in self.finished.items():
            fold, probabilities = self.fold(run), softmax(trained.logits)
            for protocol in self.config.protocols:
                if protocol.trained is not run.protocol:
                    continue
                indices = leaking(fold, seed=self.config.seed + run.fold) if protocol is Protocol.LEAKING else fold.test
                yield FoldResult(
                    protocol=protocol,
                    run=run,
                    trained=trained,
                    learned=fold.train,
                    indices=indices,
                    target=self.manifest.grades[indices],
                    probabilities=probabilities[indices],
                    predicted=probabilities[indices].argmax(axis=1),
                )


def _key(result: FoldResult) -> ResultKey:
    return result.protocol, result.run.network, result.run.preparation
