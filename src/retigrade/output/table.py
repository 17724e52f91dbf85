"""The table for people: one line for each input, as soon as it is known."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retigrade.icdr import GRADES, Status
from retigrade.output.rows import Row
from retigrade.report.style import STAGE_COLOURS
from retigrade.text import shown

_STAGE, _PROBABILITY, _REFERABLE, _QUALITY = 13, 4, 9, 7  # widths in characters, as are the next four
_FIXED = _STAGE + len(GRADES) * (_PROBABILITY + 1) + _REFERABLE + _QUALITY + 4
_SHORTEST_PATH, _LONGEST_PATH = 10, 60
_SHORTEST_REASONS = 12
_UNBOUND_REASONS = 1000  # where no terminal sets a limit: each input keeps to one line


class GradingTable:
    """Renders rows to text; the widths are settled beforehand, so that no row waits for the last."""

    def __init__(self, stream: TextIO, paths: Iterable[str]) -> None:
        """Fit the columns to the paths and, if `stream` is a terminal, to its width; only there is colour."""
        terminal = Console(file=stream)
        longest = max((cell_len(shown(path)) for path in paths), default=0)
        if terminal.is_terminal:
            room = terminal.width - _FIXED - 1
            self._path = max(min(longest, _LONGEST_PATH, room - _SHORTEST_REASONS), _SHORTEST_PATH)
            self._reasons = max(room - self._path, _SHORTEST_REASONS)
        else:
            self._path, self._reasons = max(longest, _SHORTEST_PATH), _UNBOUND_REASONS
        width = self._path + _FIXED + 1 + self._reasons
        self._text = io.StringIO()
        self._console = Console(file=self._text, force_terminal=terminal.is_terminal, width=width)

    def head(self) -> str:
        """Return the headings."""
        names = ("path", "stage", *(f"p{grade.value}" for grade in GRADES), "referable", "quality", "reasons")
        return self._line([Text(name, style="bold") for name in names])

    def line(self, row: Row) -> str:
        """Return one row, folded over several lines where the terminal is narrow."""
        return self._line(
            [
                Text(shown(row.path)),
                _verdict(row),
                *_probabilities(row),
                Text("" if row.referable is None else "yes" if row.referable else "no"),
                Text("" if row.quality is None else f"{row.quality:.2f}"),
                Text("; ".join(shown(reason) for reason in row.reasons)),
            ]
        )

    def _line(self, cells: list[Text]) -> str:
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=self._path, overflow="fold")
        for width in (_STAGE, *[_PROBABILITY] * len(GRADES), _REFERABLE, _QUALITY):
            grid.add_column(width=width, no_wrap=True)
        grid.add_column(width=self._reasons, overflow="fold")
        grid.add_row(*cells)
        self._console.print(grid)
        lines = self._text.getvalue().splitlines()
        self._text.seek(0)
        self._text.truncate()
        return "".join(line.rstrip() + "\n" for line in lines)


def _verdict(row: Row) -> Text:
    if row.grade is None:
        return Text(row.status.replace("_", " "), style="bold red" if row.status == Status.ERROR else "magenta")
    red, green, blue = STAGE_COLOURS[row.grade]
    return Text(f"{row.stage}", style=f"rgb({red},{green},{blue})")


def _probabilities(row: Row) -> list[Text]:
    if row.grade is None:
        return [Text()] * len(GRADES)
    return [
        Text(f"{p:.2f}", style="bold" if grade == row.grade else "dim") for grade, p in enumerate(row.probabilities)
    ]
