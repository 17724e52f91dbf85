"""`retigrade ensemble`: several bundles as one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from retigrade.cli.command import Command, notice
from retigrade.errors import UsageError, needs_extra


@dataclass(frozen=True, kw_only=True)
class Ensemble(Command):
    """Combine bundles into one, calibrate it on some labelled photographs and measure it on others.

    Photographs that a bundle learned from are left out; the rest is halved at random by patient and duplicate, or
    divided as --splits says.
    """

    inputs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE.onnx... DATA...", help_behavior_hint="")
    ]
    """Two or more bundles, by their ending .onnx, and labelled folders or CSV files."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="(required)")]
    """The new bundle."""

    report: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Also write its evaluation and the split here."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A split of the photographs: its part validation calibrates and its part test measures."""

    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: from the members)")] = None
    """The new bundle's name."""

    seed: int = 1
    """Of the halving."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable."""

    def run(self) -> int:
        """Combine, calibrate, measure and write."""
        from rich.console import Console
        from rich.table import Table

        from retigrade.metrics.registry import METRICS

        with needs_extra("train"):
            from retigrade.experiments.ensemble import ensemble
        bundles = [path for path in self.inputs if path.suffix == ".onnx"]
        data = [path for path in self.inputs if path.suffix != ".onnx"]
        if not data:
            raise UsageError("name the photographs to calibrate and measure on: retigrade ensemble A.onnx B.onnx DATA")
        made = ensemble(
            bundles,
            data,
            out=self.out,
            report=self.report,
            splits=self.splits,
            name=self.name,
            seed=self.seed,
            skip_unreadable=self.skip_unreadable,
        )
        for remark in made.result.remarks:
            notice(remark)
        results = {made.result.bundle: made.result, **made.members}
        table = Table("figure", *results, title=f"on {made.result.photographs.count} photographs", title_justify="left")
        for key in made.result.headline:
            table.add_row(
                METRICS[key].title, *(str(result.headline.get(key, "none graded")) for result in results.values())
            )
        Console(highlight=False, markup=False).print(table)
        notice(f"bundle: {self.out}")
        return 0
