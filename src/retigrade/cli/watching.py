"""How long trainings are told to somebody who waits for them."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from retigrade.paper.trainer import EpochLine


class Watching:
    """A bar on standard error where that is a terminal, and a line for each epoch in any case."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._task = self._bar.add_task("preparing", total=None)
        self._epochs, self._name = 0, ""

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def training(self, name: str, *, number: int, of: int, epochs: int) -> None:
        """Name the training that begins or is continued."""
        self._epochs, self._name = epochs, f"training {number} of {of}: {name}"
        self._bar.reset(self._task, total=epochs, description=self._name)

    def step(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            completed=epoch - 1 + step / steps,
            description=f"{self._name}, epoch {epoch} of {self._epochs}, loss {loss:.3f}",
        )

    def epoch(self, done: EpochLine) -> None:
        """Print a line."""
        self._console.print(
            f"{self._name}, epoch {done.epoch} of {self._epochs}: loss {done.loss:.3f}, validation accuracy "
            f"{done.accuracy:.3f}, kappa {done.kappa:.3f}, {done.seconds:.0f} s",
            markup=False,
        )
