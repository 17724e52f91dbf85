"""`retigrade tune`: a bundle's threshold for a user's own photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from retigrade.cli.command import BundleFile, Command, Jobs, notice

if TYPE_CHECKING:
    from retigrade.evaluation.tuning import Tuned


@dataclass(frozen=True, kw_only=True)
class Tune(Command):
    """Choose the threshold for referral on labelled photographs of your own, and write a bundle that uses it.

    The new bundle has the operating point `tuned`, and uses it unless another is named.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    sensitivity: Annotated[float, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")]
    """The share of referable photographs to catch, such as 0.96."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
    """The new bundle."""

    bundle: BundleFile = None
    """The bundle to start from."""

    prevalence: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.1
    """The share of the people to be screened who are referable."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable."""

    jobs: Jobs = None
    """Photographs at work at once."""

    def run(self) -> int:
        """Grade, choose and write."""
        from retigrade import tune
        from retigrade.progress import RunProgress

        with RunProgress.on_stderr() as progress:
            tuned = tune(
                self.data,
                sensitivity=self.sensitivity,
                out=self.out,
                bundle=self.bundle,
                prevalence=self.prevalence,
                skip_unreadable=self.skip_unreadable,
                jobs=self.jobs,
                progress=progress,
            )
        _print(tuned)
        notice(f"bundle: {self.out}")
        notice("research use only, not a medical device")
        return 0


def _print(tuned: Tuned) -> None:
    from rich.console import Console

    from retigrade.evaluation.tuning import PEOPLE

    console = Console(highlight=False, soft_wrap=True, markup=False)
    point = tuned.point
    for remark in tuned.remarks:
        notice(remark)
    console.print(
        f"Chosen on {tuned.referable} referable photographs and {tuned.others} others "
        f"({tuned.refused:.1%} of all got no grade)."
    )
    console.print(f"Referable from probability {point.threshold:.4g}:")
    console.print(f"  sensitivity {point.sensitivity}, specificity {point.specificity}")
    console.print(
        f"Of {PEOPLE} people with a gradable photograph, {PEOPLE * tuned.prevalence:.0f} of them referable, it would"
    )
    console.print(f"  miss {tuned.missed:.1f}")
    console.print(f"  refer {tuned.over_referred:.1f} who need not be")
    console.print("95 % intervals in brackets; on the photographs that chose the threshold, so expect a little less.")
