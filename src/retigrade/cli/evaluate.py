"""`retigrade evaluate`: how well a bundle does on labelled photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from retigrade.cli.command import BundleFile, Command, Jobs, OperatingPointName, notice

if TYPE_CHECKING:
    from retigrade.evaluation.result import EvaluationResult


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Grade labelled photographs and report how well: figures with 95 % intervals, curves, mistakes and their maps.

    Writes report.html, report.md, report.json and predictions.csv.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
    """Where the report goes."""

    bundle: BundleFile = None
    """The bundle to evaluate."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A split of these photographs, of which one part is evaluated."""

    part: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The part of the split, such as test."""

    operating_point: OperatingPointName = None
    """From where a photograph is referable."""

    corruptions: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Also measure what survives blur, noise, shadow and nine more, on up to 200 of the photographs."""

    retest: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Also measure how much the answer changes when an eye is photographed again, on up to 400 of the photographs."""

    lesions: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Also measure the heatmap against lesions: a folder with photos/ and masks/."""

    model_card: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the bundle's model card."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable, and say so."""

    jobs: Jobs = None
    """Photographs at work at once."""

    def run(self) -> int:
        """Grade, measure and write."""
        from retigrade import evaluate
        from retigrade.progress import RunProgress

        with RunProgress.on_stderr() as progress:
            result = evaluate(
                self.data,
                out=self.out,
                bundle=self.bundle,
                splits=self.splits,
                part=self.part,
                operating_point=self.operating_point,
                corruptions=self.corruptions,
                retest=self.retest,
                lesions=self.lesions,
                model_card=self.model_card,
                skip_unreadable=self.skip_unreadable,
                jobs=self.jobs,
                progress=progress,
            )
        _print(result)
        notice(f"report: {self.out / 'report.html'}")
        return 0


def _print(result: EvaluationResult) -> None:
    from rich.console import Console

    from retigrade.metrics.registry import METRICS

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for remark in result.remarks:
        notice(remark)
    console.print(f"{'gradable rate':<48} {result.gradable}")
    for key, estimate in result.headline.items():
        console.print(f"{METRICS[key].title:<48} {estimate}")
    if (retest := result.retest) is not None:
        console.print(f"{'photographed again, claimed to have changed':<48} {retest.beyond}")
        if retest.claimed is not None:
            console.print(f"{f'... by the noise of the bundle, {retest.claimed:.3f}':<48} {retest.beyond_claimed}")
        if retest.real_pairs:
            words = f"... of {retest.real_pairs} real pairs of one eye"
            console.print(f"{words:<48} {retest.real_beyond}")
