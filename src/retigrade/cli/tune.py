"""`retigrade tune`: a bundle's threshold for a user's own photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from retigrade.cli.command import Command, notice
from retigrade.cli.labelled import checked_jobs, cores
from retigrade.errors import UsageError

if TYPE_CHECKING:
    from retigrade.evaluation.tuning import Tuned


@dataclass(frozen=True, kw_only=True)
class Tune(Command):
    """Choose the threshold for referral on labelled photographs of your own, and write a bundle that uses it.

    The new bundle has the operating point `tuned`, and takes it unless told otherwise.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    sensitivity: Annotated[float, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")]
    """The share of referable photographs to catch, such as 0.96."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
    """The new bundle."""

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the shipped one)")] = (
        None
    )
    """The bundle to start from."""

    prevalence: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.1
    """The share of the people to be screened who are referable."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable."""

    jobs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: every core)")] = None
    """Photographs at work at once."""

    def run(self) -> int:
        """Grade, choose and write."""
        jobs = checked_jobs(self.jobs)
        if not 0 < self.sensitivity <= 1:
            raise UsageError(f"--sensitivity must lie above 0 and at most at 1, got {self.sensitivity:g}")
        from retigrade.bundle import reseal, shipped_bundle
        from retigrade.data.manifest import read_manifest
        from retigrade.evaluation.predictions import LabelledSet, predict_labelled
        from retigrade.evaluation.tuning import tune
        from retigrade.files import write_whole
        from retigrade.grader import load

        path = shipped_bundle() if self.bundle is None else self.bundle
        grader = load(path, threads=max(1, cores() // jobs))
        manifest = read_manifest(self.data, skip_unreadable=self.skip_unreadable)
        verdicts = predict_labelled(grader, LabelledSet.of(manifest), jobs=jobs)
        tuned = tune(verdicts, sensitivity=self.sensitivity, prevalence=self.prevalence)
        write_whole(self.out, reseal(path.read_bytes(), tuned.metadata(grader.bundle.metadata)))
        _tell(tuned)
        notice(f"bundle: {self.out}")
        notice("research use only, not a medical device")
        return 0


def _tell(tuned: Tuned) -> None:
    from rich.console import Console

    from retigrade.evaluation.tuning import PEOPLE

    console = Console(highlight=False, soft_wrap=True, markup=False)
    point = tuned.point
    console.print(
        f"Chosen on {tuned.referable} referable photographs and {tuned.healthy} others "
        f"({tuned.refused:.1%} of all had too poor a quality for a grade)."
    )
    console.print(f"Referable from probability {point.threshold:.4g}:")
    console.print(f"  sensitivity {point.sensitivity}, specificity {point.specificity}")
    console.print(
        f"Of {PEOPLE} people with a gradable photograph, {PEOPLE * tuned.prevalence:.0f} of them referable, it would"
    )
    console.print(f"  miss {tuned.missed:.1f}")
    console.print(f"  refer {tuned.over_referred:.1f} who need not be")
    console.print("95 % intervals in brackets; on the photographs that chose the threshold, so expect a little less.")
