from __future__ import annotations

import io

import pytest

from retigrade.progress import RunProgress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test moves."""
    now = [100.0]
    monkeypatch.setattr("retigrade.progress.time.monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_plain_line_each_half_minute(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = RunProgress(stream)
    progress.begin("grading", total=40)
    for kind, details in (("graded", ["referable"]), ("graded", []), ("ungradable", [])):
        clock[0] += 11
        progress.count(kind, *details)
    assert stream.getvalue() == "grading: 3 of 40, 0.1/s, 6:47 left: 2 graded (1 referable), 1 ungradable\n"


def test_a_terminal_gets_one_line_drawn_anew_and_taken_away(clock: list[float]) -> None:
    stream = Terminal()
    with RunProgress(stream) as progress:
        progress.begin("reading", total=4)
        for _ in range(2):
            clock[0] += 2
            progress.count()
        assert stream.getvalue().count("\r") == 2
        assert stream.getvalue().endswith(f"[{'#' * 12}{'.' * 12}] reading: 2 of 4, 0.5/s, 0:04 left")
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_short_stage_says_nothing(clock: list[float]) -> None:
    for stream in (io.StringIO(), Terminal()):
        with RunProgress(stream) as progress:
            assert list(progress.track("abc", "reading", total=3)) == ["a", "b", "c"]
        assert stream.getvalue() == ""


def test_an_interrupt_says_what_is_done(clock: list[float]) -> None:
    stream = io.StringIO()

    def interrupted() -> None:
        with RunProgress(stream) as progress:
            progress.begin("grading", total=40, kinds=["graded"])
            progress.count("graded")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue() == "interrupted while grading: 1 of 40: 1 graded\n"


def test_a_stream_that_nobody_reads_stops_nothing(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = RunProgress(stream)
    progress.begin("grading", total=2)
    stream.close()
    clock[0] += 60
    progress.count("graded")
    assert progress.summary() == "1 graded"


@pytest.mark.parametrize(("seconds", "text"), [(12.2, "0:12"), (61, "1:01"), (3909, "1:05:09")])
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text
