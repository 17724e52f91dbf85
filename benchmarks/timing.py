"""Time two or more things in turn, so that a drifting machine drifts for all of them."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping


def processor_seconds() -> float:
    """What this process and those that it waited for have taken of processors: other work hardly prolongs it."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def samples(
    things: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each in every round, run A B C A B C ...; the first `warm` rounds are not counted.

    What returns a float has measured itself, in another process.
    """
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for number in range(warm + rounds):
        for name, thing in things.items():
            started = clock()
            told = thing()
            if number >= warm:
                seconds[name].append(told if isinstance(told, float) else clock() - started)
    return seconds


def in_turn(things: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 2) -> dict[str, float]:
    """Median seconds of each; see `samples`."""
    return {name: statistics.median(values) for name, values in samples(things, rounds=rounds, warm=warm).items()}


def show(seconds: Mapping[str, float]) -> None:
    width = max(map(len, seconds))
    for name, value in seconds.items():
        print(f"{name:{width}}  {value * 1e3:9.1f} ms")


def machine() -> str:
    import platform

    model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"
