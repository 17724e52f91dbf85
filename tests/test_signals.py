from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from retigrade.signals import interruptible, stop_on_interrupt


@pytest.fixture(autouse=True)
def _usual_handler() -> Iterator[None]:
    """Python's own, which a shell that runs the tests in the background takes away."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_ends_the_flow_and_the_second_raises() -> None:
    with stop_on_interrupt() as stop:
        taken = stop.until(iter(range(5)))
        assert next(taken) == 0
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        assert list(taken) == []
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as stop:
        assert list(stop.until("ab")) == ["a", "b"]
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nobody_asks() -> None:
    found: list[bool] = []

    def work() -> None:
        with stop_on_interrupt() as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_asks_to_end_is_an_interrupt(number: signal.Signals) -> None:
    with interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    with stop_on_interrupt() as stop:
        signal.raise_signal(number)
        assert stop.asked
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_ignored_from_outside_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_interrupt() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)
