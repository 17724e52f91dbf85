"""What an interrupt does: Ctrl-C, SIGTERM and SIGHUP alike.

It imports nothing that takes time, for it has to be there before everything else. A signal that is ignored from
outside, as `nohup` and a shell's background do, stays ignored; only the main thread hears any.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager

TYPE_CHECKING = False  # as typing has it, which takes its time
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any, TypeVar

    T = TypeVar("T")
    Handler = Callable[[int, FrameType | None], Any] | int | None

INTERRUPTED = 130
"""The exit code of a command that was interrupted, by whichever signal."""

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def leave_on_interrupt() -> None:
    """Let an interrupt end the process at once and without a word: for the start, when there is nothing to lose."""
    _handle(lambda _signal, _frame: os._exit(INTERRUPTED))


def ignore_interrupts() -> None:
    """Hear no interrupt any more: for the end, when the work is done."""
    _handle(signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt raise KeyboardInterrupt."""
    before = _handle(signal.default_int_handler)
    try:
        yield
    finally:
        _restore(before)


class Stop:
    """Whether the user has asked to stop."""

    asked = False

    def until(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items that are taken before the request."""
        for item in items:
            if self.asked:
                return
            yield item


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Let the first interrupt ask to stop: what is under way is finished. The second raises KeyboardInterrupt."""
    stop = Stop()

    def ask(_signal: int, _frame: object) -> None:
        stop.asked = True
        _handle(signal.default_int_handler)

    before = _handle(ask)
    try:
        yield stop
    finally:
        _restore(before)


def _handle(handler: Handler) -> dict[int, Handler]:
    """Set the handler of every signal that is not ignored, and return those before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before: dict[int, Handler] = {}
    for number in _SIGNALS:
        if (old := signal.getsignal(number)) not in (signal.SIG_IGN, None):  # None: not set by Python
            before[number] = old
            signal.signal(number, handler)
    return before


def _restore(before: dict[int, Handler]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
