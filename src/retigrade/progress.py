"""How far a command has come, on standard error: a line drawn anew on a terminal, one each half minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Self, TextIO, TypeVar

_Item = TypeVar("_Item")
_BAR = 24  # characters
_FIRST_SECONDS, _TERMINAL_SECONDS, _PLAIN_SECONDS = 1.0, 0.1, 30.0
_CLEAR = "\r\x1b[K"


class RunProgress:
    """Counts what is done of one stage after another and tells of it; a short stage says nothing.

    Each thing done is counted by its kind, such as "graded"; details of a kind, such as "referable", stand behind it in
    parentheses.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """stream: where to write; None keeps silent."""
        self._stream = stream
        self._is_terminal = stream is not None and stream.isatty()
        self._drawn = False
        self.begin("", total=0)

    @classmethod
    def on_stderr(cls) -> Self:
        """Write to standard error."""
        return cls(sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.hide()
        if kind is KeyboardInterrupt and self._total:
            self._write(f"interrupted while {self._doing}: {self._place()}\n")

    def begin(self, doing: str, *, total: int, kinds: Iterable[str] = ()) -> None:
        """Begin a stage of `total` things and measure its time; kinds: those that are counted even where there is none.

        doing: what is done, as in "reading photographs".
        """
        self.hide()
        self._doing, self._total, self._done = doing, total, 0
        self._kinds: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._details: dict[str, Counter[str]] = {}
        self._started = time.monotonic()
        self._told = self._started + _FIRST_SECONDS if self._is_terminal else self._started

    def count(self, kind: str | None = None, *details: str) -> None:
        """Count one thing as done, and tell of it where it is time."""
        self._done += 1
        if kind is not None:
            self._kinds[kind] += 1
            self._details.setdefault(kind, Counter()).update(details)
        self._tell()

    def add(self, counts: Mapping[str, int], *, details: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """Count several things as done, by kind, and the details of some kinds."""
        self._done += sum(counts.values())
        self._kinds.update(counts)
        for kind, more in (details or {}).items():
            self._details.setdefault(kind, Counter()).update(more)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= (_TERMINAL_SECONDS if self._is_terminal else _PLAIN_SECONDS):
            self._told = now
            self._write(f"{_CLEAR}{self._bar()} {self._line()}" if self._is_terminal else f"{self._line()}\n")
            self._drawn = self._is_terminal

    def track(
        self, items: Iterable[_Item], doing: str, *, total: int, kind: Callable[[_Item], str | None] = lambda _: None
    ) -> Iterator[_Item]:
        """Yield the items of a stage, each counted once it is there."""
        self.begin(doing, total=total)
        for item in items:
            self.count(kind(item))
            yield item

    def hide(self) -> None:
        """Take the line off the terminal, so that others can write there."""
        if self._drawn:
            self._write(_CLEAR)
            self._drawn = False
            self._told = 0.0  # draw it again at once

    def summary(self) -> str:
        """Return the counts of the stage by kind, such as `40 graded (12 referable), 2 ungradable`."""
        texts = []
        for kind, number in self._kinds.items():
            counts = self._details.get(kind, {}).items()
            details = ", ".join(f"{count} {detail}" for detail, count in counts if count)
            words = f"{number} {kind.replace('_', ' ')}"
            texts.append(f"{words} ({details})" if details else words)
        return ", ".join(texts)

    def _place(self) -> str:
        counts = self.summary()
        return f"{self._done} of {self._total}" + (f": {counts}" if counts else "")

    def _line(self) -> str:
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        left = (self._total - self._done) / rate if rate else 0.0
        counts = self.summary()
        line = f"{self._doing}: {self._done} of {self._total}, {rate:.1f}/s, {duration(left)} left"
        return f"{line}: {counts}" if counts else line

    def _bar(self) -> str:
        filled = round(_BAR * self._done / max(self._total, 1))
        return f"[{'#' * filled}{'.' * (_BAR - filled)}]"

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        with suppress(OSError, ValueError):  # nobody reads it
            self._stream.write(text)
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds, such as `1:05:09` or `0:12`.

    >>> duration(3909), duration(12.2)
    ('1:05:09', '0:12')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
