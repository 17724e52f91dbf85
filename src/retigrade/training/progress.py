"""What a training says while it runs: a line in the terminal, a CSV and a TensorBoard log."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from retigrade.files import make_folder, writing
from retigrade.training.loop import Epoch


class Log:
    """A `Progress` of one or more trainings, written below one folder."""

    def __init__(self, folder: Path, *, visible: bool) -> None:
        """visible: only one of several processes shows and writes."""
        self._root, self._folder, self._epochs, self._visible = folder, folder, 0, visible
        self._bar = Progress(
            TextColumn("{task.description}epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  validation QWK {task.fields[kappa]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )

    def __enter__(self) -> Self:
        """Open the logs."""
        if self._visible:
            make_folder(self._root)
            self._board = SummaryWriter(str(self._root / "tensorboard"))
        self._bar.start()
        self._task = self._bar.add_task("", total=None, epoch=0, epochs=0, loss=float("nan"), kappa="-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the logs."""
        self._bar.stop()
        if self._visible:
            self._board.close()

    def begin(self, folder: Path, *, epochs: int) -> None:
        """Write from here on beside the checkpoints of one training."""
        self._folder, self._epochs = folder, epochs
        self._bar.reset(self._task, total=None, description=f"{self._name} ".lstrip())
        self._bar.update(self._task, epoch=0, epochs=epochs, loss=float("nan"), kappa="-")

    @property
    def _name(self) -> str:
        """The training's folder within the run's; empty for the run's own."""
        return self._folder.relative_to(self._root).as_posix().removeprefix(".")

    def step(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """Show one step."""
        self._bar.update(
            self._task, total=self._epochs * steps, completed=(epoch - 1) * steps + step, epoch=epoch, loss=loss
        )

    def epoch(self, done: Epoch) -> None:
        """Write one pass."""
        self._bar.update(self._task, kappa=f"{done.kappa:.3f}")
        if not self._visible:
            return
        for field in ("loss", "accuracy", "kappa"):
            self._board.add_scalar(f"{self._name}/{field}".lstrip("/"), getattr(done, field), done.epoch)
        path = self._folder / "log.csv"
        with writing(path):
            fresh = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, [field.name for field in fields(Epoch)])
                if fresh:
                    writer.writeheader()
                writer.writerow(asdict(done))
