"""A run reported to MLflow as it goes, for groups that keep their experiments there; needs the extra `mlflow`.

What is sent: options, epochs, figures, and the small files of the run folder, in which photographs go by their names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from retigrade.errors import UsageError, needs_extra
from retigrade.experiments.record import RUN, RunRecord
from retigrade.training.progress import EpochResult, Progress

EXPERIMENT = "retigrade"
_ARTIFACTS = (RUN, "history.csv", "folds.csv", "predictions.csv", "evaluation.json", "splits.json", "bundle.onnx")
_LONGEST = 500  # characters that MLflow takes for a parameter
_NOT_IN_NAMES = re.compile(r"[^\w. -]")  # of its figures


class Tracker:
    """Hears of a run; this one reports to nobody."""

    run: str | None = None
    """The run's identifier there."""

    def beside(self, progress: Progress) -> Progress:
        """What hears of a training's progress: this and `progress`."""
        return progress

    def finish(self, record: RunRecord, folder: Path) -> None:
        """Hear that a run is finished, and where its files are."""


def open_tracker(address: str | None, record: RunRecord, *, name: str) -> Tracker:
    """A tracker that tells MLflow at this address, or nobody where there is none; goes on with `record.mlflow`.

    Raises UsageError where the package is missing or the server cannot be reached.
    """
    return Tracker() if address is None else _MlflowTracker(address, record, name=name)


class _MlflowTracker(Tracker):
    def __init__(self, address: str, record: RunRecord, *, name: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent to anybody else
        if "://" not in address or address.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        with needs_extra("mlflow"):
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        self.failure: type[Exception] = MlflowException
        try:
            self._client: Any = MlflowClient(tracking_uri=address)
            if record.mlflow is None:
                found = self._client.get_experiment_by_name(EXPERIMENT)
                experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
                self.run = self._client.create_run(experiment, run_name=name).info.run_id
                for key, value in {**record.options, **record.versions, "commit": record.commit}.items():
                    self._client.log_param(self.run, key, str(value)[:_LONGEST])
                self._client.log_param(self.run, "fingerprint", record.data.fingerprint)
            else:
                self.run = self._client.get_run(record.mlflow).info.run_id
        except (MlflowException, OSError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(
                f"MLflow at {address} cannot be used ({first}); check --mlflow, or leave it out"
            ) from error

    def beside(self, progress: Progress) -> Progress:
        return _Both(progress, self)

    def finish(self, record: RunRecord, folder: Path) -> None:
        try:
            self._tell_results(record, folder)
        except (self.failure, OSError) as error:
            raise UsageError(
                f"MLflow did not take the finished run ({type(error).__name__}); all of it is in {folder}: tell it "
                "again with --resume"
            ) from error

    def _tell_results(self, record: RunRecord, folder: Path) -> None:
        figures = {"test": record.figures} | {name: external.figures for name, external in record.external.items()}
        for part, estimates in figures.items():
            for key, estimate in estimates.items():
                if estimate.value is not None:
                    self._client.log_metric(self.run, f"{_NOT_IN_NAMES.sub('-', part)}/{key}", estimate.value)
        for file in _ARTIFACTS:
            if (folder / file).exists():
                self._client.log_artifact(self.run, str(folder / file))
        for picture in sorted((folder / "figures").glob("*.svg")):
            self._client.log_artifact(self.run, str(picture), "figures")
        self._client.set_terminated(self.run)

    def epoch(self, training: str, result: EpochResult) -> None:
        for key in ("loss", "accuracy", "kappa", "seconds"):
            value = getattr(result, key)
            self._client.log_metric(self.run, f"{training or 'network'}/{key}", value, step=result.epoch)


class _Both(Progress):
    """Tells a listener and MLflow; a server that is away for a moment does not end a training."""

    def __init__(self, progress: Progress, tracker: _MlflowTracker) -> None:
        self._progress, self._tracker, self._training = progress, tracker, ""

    def begin(self, name: str, *, epochs: int) -> None:
        self._training = name
        self._progress.begin(name, epochs=epochs)

    def step(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        self._progress.step(epoch=epoch, step=step, steps=steps, loss=loss)

    def epoch(self, result: EpochResult) -> None:
        self._progress.epoch(result)
        try:
            self._tracker.epoch(self._training, result)
        except (self._tracker.failure, OSError) as error:
            self._progress.note(f"MLflow did not take epoch {result.epoch} ({type(error).__name__}); training goes on")

    def note(self, sentence: str) -> None:
        self._progress.note(sentence)
