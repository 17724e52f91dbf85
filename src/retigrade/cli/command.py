"""What all subcommands share."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from retigrade.text import shown

BundleFile = Annotated[
    Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: as shipped; thorough is slower)")
]
OperatingPointName = Annotated[
    str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the bundle's own)")
]
Jobs = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: every core)")]
"""Options that several subcommands have."""


BROKEN_PIPE = 141
"""The exit code where whoever read the output left, as a shell gives it."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """One subcommand: its fields are its arguments, its docstring and theirs are the help."""

    handles_signals: ClassVar[bool] = False
    """Whether `run` itself decides what an interrupt does; if not, it raises KeyboardInterrupt."""

    debug: bool = False
    """Show the traceback of an error, and what the program logs."""

    @abstractmethod
    def run(self) -> int:
        """Do the work and return the exit code; what only the work needs is imported here, to keep the start cheap."""


def notice(sentence: str) -> None:
    """Tell the user something on standard error, which leaves standard output to the results.

    Whatever a name or a bundle holds, it cannot speak to the terminal; only line breaks stay as they are.
    """
    lines = "\n".join(map(shown, sentence.split("\n")))
    with suppress(ValueError):  # it is closed
        try:
            sys.stderr.write(f"{lines}\n")
            sys.stderr.flush()
        except OSError:  # nobody reads it; that changes no verdict (rich would end the program here)
            from retigrade.output.stdout import abandon

            abandon(sys.stderr)
