"""`retigrade check`: what is wrong with a labelled folder before anyone learns from it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from retigrade.cli.command import Command, notice

_UNREADABLE = 2


@dataclass(frozen=True, kw_only=True)
class Check(Command):
    """Audit labelled photographs: counts, unreadable files, duplicates, conflicting grades, and shortcuts.

    The shortcut audit tells the grade from the black frame alone. Exit code 2 where a photograph is missing or
    unreadable.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    format: Literal["text", "json"] = "text"
    """What is written to standard output."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also look for photographs, duplicates and patients that the parts of this split share."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Accept missing and unreadable photographs; they are listed all the same."""

    def run(self) -> int:
        """Read everything, look, and print the findings."""
        from retigrade.data.audit import audit
        from retigrade.data.manifest import read_manifest
        from retigrade.data.splits import read_splits

        manifest = read_manifest(self.data, skip_unreadable=True)
        splits = None if self.splits is None else read_splits(self.splits, manifest, allow_leaks=True)
        found = audit(manifest, splits=splits)
        if self.format == "json":
            sys.stdout.write(json.dumps(found.as_json(), indent=1, allow_nan=False) + "\n")
        else:
            _print(found.as_text())
        if manifest.unreadable and not self.skip_unreadable:
            notice(
                f"{len(manifest.unreadable)} photographs are missing or unreadable; mend them, or accept that with "
                "--skip-unreadable"
            )
            return _UNREADABLE
        return 0


def _print(text: str) -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(text)
