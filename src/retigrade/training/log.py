"""A training's log beside its checkpoint: a CSV with one line an epoch, and the same curves for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from retigrade.files import make_folder, write_whole
from retigrade.training.progress import EpochResult

LOG = "log.csv"


class TrainingLog:
    """Writes `log.csv` and `tensorboard/` into a training's folder."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        """enabled: only one of several processes writes."""
        self._folder, self._enabled = folder, enabled
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Open the curves."""
        if self._enabled:
            make_folder(self._folder)
            self._board = self._open.enter_context(SummaryWriter(str(self._folder / "tensorboard")))
        return self

    def __exit__(self, *_: object) -> None:
        """Close the curves."""
        self._open.close()

    def write(self, history: Sequence[EpochResult]) -> None:
        """Write the whole log, which so agrees with the checkpoint whenever a run was killed, and the last points."""
        if not (self._enabled and history):
            return
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, [field.name for field in fields(EpochResult)])
        writer.writeheader()
        writer.writerows(map(asdict, history))
        write_whole(self._folder / LOG, out.getvalue().encode())
        last = history[-1]
        for name in ("loss", "accuracy", "kappa"):
            self._board.add_scalar(name, getattr(last, name), last.epoch)
