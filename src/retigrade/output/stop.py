"""Ctrl-C as a request: what is under way is finished and written, and nothing new is begun."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Stop:
    """Whether the user has asked to stop."""

    asked: bool = False

    def until(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items that are taken before the request."""
        for item in items:
            if self.asked:
                return
            yield item


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Let the first Ctrl-C ask to stop; the second interrupts at once, as without this.

    Only the main thread hears signals; elsewhere nobody asks.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
