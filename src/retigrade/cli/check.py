"""`retigrade check`: what is wrong with a labelled folder before anyone learns from it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from retigrade.cli.command import Command, notice
from retigrade.errors import needs_extra

_LEFT_OUT = 2


@dataclass(frozen=True, kw_only=True)
class Check(Command):
    """Audit labelled photographs: counts, unreadable files, duplicates, conflicting grades, and shortcuts.

    The shortcut audit tells the grade from the black frame alone. Exit code 2 where a photograph is missing,
    unreadable, or without a retinal disc.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    format: Literal["text", "json"] = "text"
    """What is written to standard output."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also look for photographs, duplicates and patients that the parts of this split share."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Accept photographs that cannot be used; they are listed all the same."""

    def run(self) -> int:
        """Read everything, look, and print the findings."""
        from retigrade.data.audit import check
        from retigrade.progress import RunProgress

        with needs_extra("report"), RunProgress.on_stderr() as progress:
            audit = check(self.data, splits=self.splits, progress=progress)
        if self.format == "json":
            sys.stdout.write(json.dumps(audit.as_json(), indent=1, allow_nan=False) + "\n")
        else:
            _print(audit.as_text())
        unreadable, unusable = len(audit.manifest.unreadable), len(audit.manifest.unusable)
        if unreadable + unusable and not self.skip_unreadable:
            notice(
                f"{unreadable} photographs are missing or unreadable, {unusable} show no retinal disc; fix them, or "
                "leave them out with --skip-unreadable"
            )
            return _LEFT_OUT
        return 0


def _print(text: str) -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(text)
