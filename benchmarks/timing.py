"""Time two or more things in turn, so that a drifting machine drifts for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def samples(things: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each in every round, run A B C A B C ...; the first `warm` rounds are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for number in range(warm + rounds):
        for name, thing in things.items():
            started = time.perf_counter()
            thing()
            if number >= warm:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def in_turn(things: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 2) -> dict[str, float]:
    """Median seconds of each; see `samples`."""
    return {name: statistics.median(values) for name, values in samples(things, rounds=rounds, warm=warm).items()}


def show(seconds: Mapping[str, float]) -> None:
    width = max(map(len, seconds))
    for name, value in seconds.items():
        print(f"{name:{width}}  {value * 1e3:9.1f} ms")


def machine() -> str:
    import os
    import platform

    model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"
