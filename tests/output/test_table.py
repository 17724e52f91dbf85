from __future__ import annotations

import io

import pytest

from gradings import graded, refused
from retigrade.icdr import Status
from retigrade.output.rows import as_row
from retigrade.output.table import GradingTable


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_pipe_gets_one_plain_line_for_each_input() -> None:
    table = GradingTable(io.StringIO(), ["eye.jpg", "cat.jpg"])
    assert table.head().split() == ["path", "stage", "p0", "p1", "p2", "p3", "p4", "referable", "quality", "reasons"]
    line = table.line(as_row(graded()))
    assert line.split()[:9] == ["eye.jpg", "moderate", "0.05", "0.10", "0.60", "0.20", "0.05", "yes", "0.91"]
    assert line.endswith("dark rim; low confidence: a second reader is advised\n")
    assert table.line(as_row(refused())).split() == ["cat.jpg", "not", "fundus", "no", "retinal", "disc"]
    assert "\x1b" not in table.head() + line


def test_columns_stand_below_their_headings_whatever_the_row_says() -> None:
    table = GradingTable(io.StringIO(), ["eye.jpg", "a much longer name of a photograph.jpg"])
    lines = [table.head(), table.line(as_row(graded())), table.line(as_row(refused()))]
    assert lines[0].index("stage") == lines[1].index("moderate") == lines[2].index("not fundus")
    assert lines[0].index("reasons") == lines[1].index("dark rim") == lines[2].index("no retinal disc")


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_a_terminal_gets_colour_and_keeps_its_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    path = "a/folder/with/a/rather/long/name/and/more/of/it/eye.jpg"
    line = GradingTable(Terminal(), [path]).line(as_row(graded(path)))
    assert "\x1b[" in line
    plain = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    lines = GradingTable(plain, [path]).line(as_row(graded(path))).splitlines()
    assert max(map(len, lines)) <= columns
    assert "".join(line[: 10 if columns == 80 else 60].split(" ")[0] for line in lines).startswith("a/folder")


def test_a_name_cannot_speak_to_the_terminal() -> None:
    evil = "\x1b[31mred\n[bold]markup\u202e.jpg"
    table = GradingTable(io.StringIO(), [evil])
    line = table.line(as_row(refused(evil, status=Status.ERROR)))
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert line.startswith("\\x1b[31mred\\n[bold]markup\\u202e.jpg")
