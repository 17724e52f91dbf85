"""How a training goes: the record of an epoch, what hears of it, and a display for the terminal. Needs no torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import monotonic
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_SILENCE = 30.0  # seconds after which a plain line is due


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch: its number from 1, mean training loss, validation accuracy and quadratic kappa, seconds."""

    epoch: int
    loss: float
    accuracy: float
    kappa: float
    seconds: float


class Progress:
    """Hears how trainings go; this one keeps silent. Override what you want to hear."""

    def begin(self, name: str, *, epochs: int) -> None:
        """Hear that the training called `name` begins or is continued; the last of several names tells which."""

    def step(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """Hear of one step and the epoch's mean loss so far."""

    def epoch(self, result: EpochResult) -> None:
        """Hear of one epoch."""

    def note(self, sentence: str) -> None:
        """Hear of something that a person should know, or of work beside the training."""


class TerminalProgress(Progress):
    """A bar where the stream is a terminal, and plain lines: one an epoch, and one where 30 seconds brought none."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """stream: standard error if not given."""
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True, markup=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = RichProgress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._task = self._bar.add_task("preparing", total=None)
        self._name, self._epochs, self._told = "", 0, monotonic()

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def begin(self, name: str, *, epochs: int) -> None:
        """Name the training."""
        self._name, self._epochs = f"{name}, " if name else "", epochs
        self._bar.reset(self._task, total=epochs, description=name or "training")
        self._say(f"{self._name}{epochs} epochs")

    def step(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        place = f"{self._name}epoch {epoch} of {self._epochs}"
        self._bar.update(self._task, completed=epoch - 1 + step / steps, description=f"{place}, loss {loss:.3f}")
        if not self._console.is_terminal and monotonic() - self._told > _SILENCE:
            self._say(f"{place}, step {step} of {steps}: loss {loss:.3f}")

    def epoch(self, result: EpochResult) -> None:
        """Print a line."""
        self._say(
            f"{self._name}epoch {result.epoch} of {self._epochs}: loss {result.loss:.3f}, validation accuracy "
            f"{result.accuracy:.3f}, kappa {result.kappa:.3f}, {result.seconds:.0f} s"
        )

    def note(self, sentence: str) -> None:
        """Print a line."""
        self._say(sentence)

    def _say(self, line: str) -> None:
        self._console.print(line)
        self._told = monotonic()
