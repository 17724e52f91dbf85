"""`retigrade evaluate`: how well a bundle does on labelled photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from retigrade.cli.command import Command, notice
from retigrade.cli.labelled import checked_jobs, cores, needs_train
from retigrade.errors import UsageError

if TYPE_CHECKING:
    from retigrade.data.manifest import Manifest
    from retigrade.evaluation.predictions import LabelledSet
    from retigrade.evaluation.result import EvaluationResult
    from retigrade.grader import Grader
    from retigrade.grading import Grading

_CORRUPTED = 200  # photographs for the corruption suite, each graded 61 times


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Grade labelled photographs and report how well: figures with 95 % intervals, curves, errors and their maps.

    Writes report.html, report.md, report.json and predictions.csv.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...", help_behavior_hint="")]
    """Labelled folders or CSV files."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
    """Where the report goes."""

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the shipped one)")] = (
        None
    )
    """The bundle to evaluate."""

    splits: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A split of these photographs, of which one part is evaluated."""

    part: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The part of the split, such as test."""

    operating_point: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the bundle's own)")
    ] = None
    """From where a photograph is referable."""

    corruptions: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Also measure what survives blur, noise, shadow and nine more, on up to 200 of the photographs."""

    lesions: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Also measure the thermal map against lesions: a folder with photos/ and masks/."""

    model_card: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the bundle's model card."""

    skip_unreadable: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out photographs that are missing or unreadable, and say so."""

    jobs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: every core)")] = None
    """Photographs at work at once."""

    def run(self) -> int:
        """Grade, measure and write."""
        jobs = checked_jobs(self.jobs)
        if (self.splits is None) != (self.part is None):
            raise UsageError("--splits and --part go together: a split, and which part of it to evaluate")
        with needs_train():
            from retigrade.evaluation.plots import draw
        from retigrade.data.annotations import find_annotated
        from retigrade.data.manifest import read_manifest
        from retigrade.evaluation.measure import measure
        from retigrade.evaluation.model_card import model_card
        from retigrade.evaluation.predictions import predict_labelled
        from retigrade.evaluation.report import compose
        from retigrade.evaluation.write import illustrate_worst, write_report
        from retigrade.files import make_folder, write_whole
        from retigrade.grader import load

        grader = load(self.bundle, threads=max(1, cores() // jobs), operating_point=self.operating_point)
        make_folder(self.out)
        if self.lesions is not None:
            find_annotated(self.lesions)  # a wrong folder must not wait for the gradings
        manifest = read_manifest(self.data, skip_unreadable=self.skip_unreadable)
        labelled = self._labelled(manifest)
        verdicts = predict_labelled(grader, labelled, jobs=jobs)
        found = measure(verdicts, grader, manifest=manifest, part=self.part)
        found = self._tried(found, grader, labelled, jobs=jobs)
        errors = illustrate_worst(verdicts, grader, _thumbnails)
        write_report(self.out, compose(found, draw(verdicts.graded, found), errors=errors), found, verdicts)
        if self.model_card is not None:
            write_whole(self.model_card, model_card(grader.bundle, found).encode())
        _tell(found, self.out)
        return 0

    def _labelled(self, manifest: Manifest) -> LabelledSet:
        from retigrade.data.splits import read_splits
        from retigrade.evaluation.predictions import LabelledSet

        if self.splits is None or self.part is None:
            return LabelledSet.of(manifest)
        splits = read_splits(self.splits, manifest)
        if self.part not in splits.names:
            raise UsageError(f"there is no part {self.part!r} in {self.splits}; there are: {', '.join(splits.names)}")
        return LabelledSet.of(manifest, splits, part=self.part)

    def _tried(self, found: EvaluationResult, grader: Grader, labelled: LabelledSet, *, jobs: int) -> EvaluationResult:
        """Add what was asked for beyond the plain figures."""
        import numpy as np

        from retigrade.data.annotations import read_annotated
        from retigrade.evaluation.faithfulness import at_random, evidence, measure_faithfulness
        from retigrade.evaluation.robustness import sample, suite

        if self.corruptions:
            entries = sample(labelled.entries, _CORRUPTED, np.random.default_rng(0))
            found = found.model_copy(update={"robustness": suite(grader, entries, jobs=jobs)})
        if self.lesions is not None:
            maps = {"thermal map": evidence(grader), "random map": at_random(np.random.default_rng(0))}
            learned = set(grader.bundle.metadata.training.annotated)
            annotated = (one for one in read_annotated(self.lesions) if one.photo.sha256 not in learned)
            found = found.model_copy(update={"faithfulness": measure_faithfulness(grader, annotated, maps)})
        return found


def _thumbnails(gradings: Sequence[Grading]) -> list[bytes | None]:
    from retigrade.output.illustrate import illustrate

    return [one.thumbnail for one in illustrate(gradings, jobs=1)]


def _tell(found: EvaluationResult, out: Path) -> None:
    from rich.console import Console

    from retigrade.evaluation.measure import HEADLINE

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for remark in found.remarks:
        notice(remark)
    console.print(f"{'gradable rate':<48} {found.gradable}")
    for key, figure in found.headline.items():
        console.print(f"{HEADLINE[key]:<48} {figure}")
    notice(f"report: {out / 'report.html'}")
