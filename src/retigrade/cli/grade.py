"""`retigrade grade`: photographs to stages and thermal maps."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from retigrade.cli.command import Command, notice
from retigrade.errors import UsageError

if TYPE_CHECKING:
    from retigrade.output.run import Outcome

_UNREADABLE_PHOTO, _INTERRUPTED, _BROKEN_PIPE = 1, 130, 141


@dataclass(frozen=True, kw_only=True)
class Grade(Command):
    """Grade photographs: stage of diabetic retinopathy, probabilities, and a thermal map that shows why.

    Exit code 0: every photograph has a verdict; 1: at least one could not be read; 2: wrong usage or bundle.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...", help_behavior_hint="")]
    """Photographs (JPEG, PNG, TIFF, WebP, BMP, DICOM), folders of them, DICOMDIRs, or CSVs with a column named path."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Also write gradings.csv, gradings.jsonl, report.html and heat/ here."""

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the shipped one)")] = (
        None
    )
    """The network and all that belongs to it."""

    operating_point: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the bundle's own)")
    ] = None
    """From where a photograph is referable; `retigrade info` lists the names."""

    format: Literal["table", "csv", "jsonl"] = "table"
    """What is written to standard output."""

    no_heat: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out the thermal maps."""

    jobs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: every core)")] = None
    """Photographs at work at once."""

    def run(self) -> int:
        """Grade and write."""
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs must be 1 or more, got {self.jobs}")
        from retigrade.cli.photographs import expand_all
        from retigrade.inputs import describe_skipped

        inputs = expand_all(self.paths, exclude=self.out)
        for sentence in (*inputs.notes, *describe_skipped(inputs.skipped)):
            notice(sentence)
        if self.out is not None:
            from retigrade.files import make_folder

            make_folder(self.out)

        from retigrade.grader import load
        from retigrade.output.run import run
        from retigrade.output.stdout import open_output

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = min(cores, len(inputs.items)) if self.jobs is None else self.jobs
        grader = load(self.bundle, threads=max(1, cores // jobs), operating_point=self.operating_point)
        output = open_output(sys.stdout, self.format, paths=[str(item.path) for item in inputs.items])
        outcome = run(inputs, grader, output, out=self.out, heat=not self.no_heat, jobs=jobs)
        _tell_end(outcome, self.out)
        return _exit_code(outcome)


def _tell_end(outcome: Outcome, out: Path | None) -> None:
    if outcome.unread:
        return
    if outcome.interrupted:
        notice(f"interrupted: {outcome.done} of {outcome.total} inputs have a verdict")
    if out is not None:
        notice(f"report: {out / 'report.html'}")
    notice("research use only, not a medical device")


def _exit_code(outcome: Outcome) -> int:
    if outcome.unread:
        return _BROKEN_PIPE
    if outcome.interrupted:
        return _INTERRUPTED
    return _UNREADABLE_PHOTO if outcome.errors else 0
