"""How far a run has come, on standard error: a line that is drawn anew on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Self, TextIO

from retigrade.icdr import Status
from retigrade.output.rows import Row

REFERABLE = "referable"
_BAR = 24  # characters
_FIRST_SECONDS, _TERMINAL_SECONDS, _PLAIN_SECONDS = 1.0, 0.1, 30.0
_CLEAR = "\r\x1b[K"


class RunProgress:
    """Counts rows and tells of them; a short run says nothing."""

    def __init__(self, stream: TextIO, *, total: int) -> None:
        """Begin to measure time; `total` is the number of inputs."""
        self._stream, self._total = stream, total
        self._is_terminal = stream.isatty()
        self._started = time.monotonic()
        self._told = self._started + _FIRST_SECONDS if self._is_terminal else self._started
        self._counts: Counter[str] = Counter()
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def count(self, row: Row) -> None:
        """Count a row, and tell of it where it is time."""
        self.add({row.status: 1, REFERABLE: int(bool(row.referable))})

    def add(self, counts: Mapping[str, int]) -> None:
        """Count several rows: how many there are of each status, and how many are `REFERABLE`; tell of them as well."""
        self._counts.update(counts)
        now = time.monotonic()
        if now - self._told >= (_TERMINAL_SECONDS if self._is_terminal else _PLAIN_SECONDS):
            self._told = now
            self._write(f"{_CLEAR}{self._bar()} {self._line()}" if self._is_terminal else f"{self._line()}\n")
            self._drawn = self._is_terminal

    def hide(self) -> None:
        """Take the line off the terminal, so that others can write there."""
        if self._drawn:
            self._write(_CLEAR)
            self._drawn = False
            self._told = 0.0  # draw it again at once

    def summary(self) -> str:
        """Return the counts by verdict, such as `40 graded (12 referable), 2 ungradable`."""
        named = (
            (f"{self._counts[status]} {status.replace('_', ' ')}", self._counts[status], status) for status in Status
        )
        texts = [
            f"{text} ({self._counts[REFERABLE]} referable)" if status is Status.GRADED else text
            for text, number, status in named
            if number or status is Status.GRADED
        ]
        return ", ".join(texts)

    @property
    def _done(self) -> int:
        return sum(self._counts[status] for status in Status)

    def _line(self) -> str:
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        left = (self._total - self._done) / rate if rate else 0.0
        return f"{self._done} of {self._total}, {rate:.1f}/s, {duration(left)} left: {self.summary()}"

    def _bar(self) -> str:
        filled = round(_BAR * self._done / max(self._total, 1))
        return f"[{'#' * filled}{'.' * (_BAR - filled)}]"

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it
            self._stream.write(text)
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds, such as `1:05:09` or `0:12`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
