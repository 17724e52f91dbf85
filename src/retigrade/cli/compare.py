"""`retigrade compare`: training runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from retigrade.cli.command import Command, notice


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare training runs on the photographs that all of them tested, and say which differences are noise.

    Each photograph was predicted by networks that did not learn from it. The differences are to the first run, with
    95 % intervals by a paired bootstrap over patients and duplicate groups.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...", help_behavior_hint="")]
    """The folders of finished runs, the --out of `retigrade train`."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Also write compare.html, compare.md, figures.csv and differences.csv here."""

    rounds: Annotated[int, tyro.conf.arg(metavar="N")] = 2000
    """Resamples."""

    def run(self) -> int:
        """Compare and print."""
        from rich.console import Console
        from rich.table import Table

        from retigrade import compare
        from retigrade.report.document import as_text

        found = compare(self.runs, out=self.out, rounds=self.rounds)
        for remark in found.remarks:
            notice(remark)
        console = Console(highlight=False, markup=False)
        console.print(f"{found.photographs} photographs of {found.groups} independent patients or duplicate groups")
        for table in (found.figures_table(), found.differences_table()):
            shown = Table(*table.headings, title=table.title, title_justify="left")
            for row in table.rows:
                shown.add_row(*map(as_text, row))
            console.print(shown)
        if self.out is not None:
            notice(f"report: {self.out / 'compare.html'}")
        return 0
