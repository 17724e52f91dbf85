"""Standard output: the gradings in one of three formats and nothing else, so that programs can read it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TextIO

from retigrade.errors import UsageError
from retigrade.output.rows import Row, csv_header, csv_line, json_line

Format = Literal["table", "csv", "jsonl"]


@dataclass(slots=True)
class Output:
    """A stream for rows; `closed` turns True when whoever reads it has left, as `head` does.

    head: what goes before the first row; line: makes the text of a row. before: called before anything is written.
    """

    stream: TextIO
    head: str
    line: Callable[[Row], str]
    closed: bool = False
    before: Callable[[], None] = lambda: None

    def write(self, text: str) -> None:
        """Write and flush `text`, unless nobody reads; UsageError where it cannot be written, as on a full disk."""
        if self.closed:
            return
        self.before()
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            self.closed = True
            abandon(self.stream)
        except OSError as error:
            abandon(self.stream)
            raise UsageError(f"cannot write to standard output: {error.strerror}") from error


def abandon(stream: TextIO) -> None:
    """Lead what is still in a stream's memory nowhere, or Python would complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def open_output(stream: TextIO, form: Format, *, paths: list[str]) -> Output:
    """Return the output for rows of the inputs `paths` in this format; nothing is written yet."""
    match form:
        case "table":
            from retigrade.output.table import GradingTable

            table = GradingTable(stream, paths)
            head, line = table.head(), table.line
        case "csv":
            head, line = csv_header(), csv_line
        case "jsonl":
            head, line = "", json_line
    if isinstance(stream, io.TextIOWrapper):  # a name that the stream's encoding lacks must not stop the run
        stream.reconfigure(encoding="utf-8" if form == "csv" else None, errors="backslashreplace")
    return Output(stream, head, line)
