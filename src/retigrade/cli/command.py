"""What all subcommands share."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """One subcommand: its fields are its arguments, its docstring and theirs are the help."""

    debug: bool = False
    """Show the traceback of an error, and what the program logs."""

    @abstractmethod
    def run(self) -> int:
        """Do the work and return the exit code; what only the work needs is imported here, to keep the start cheap."""


def notice(sentence: str) -> None:
    """Tell the user something on standard error, which leaves standard output to the results."""
    with suppress(OSError):  # nobody reads it; that changes no verdict (rich would end the program here)
        sys.stderr.write(f"{sentence}\n")
