"""`retigrade grade`: photographs to stages and thermal maps."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from retigrade.cli.command import BROKEN_PIPE, BundleFile, Command, Jobs, OperatingPointName, notice
from retigrade.errors import UsageError
from retigrade.signals import INTERRUPTED

if TYPE_CHECKING:
    from retigrade.cli.hospital import HospitalOutputs
    from retigrade.inputs import Inputs
    from retigrade.output.illustrate import HeatPictures
    from retigrade.output.run import Outcome

_UNREADABLE_PHOTO = 1
_KEY_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class GradeCommand(Command):
    """Grade photographs: stage of diabetic retinopathy, probabilities, and a thermal map that shows why.

    Exit code 0: every photograph has a verdict; 1: at least one could not be read; 2: wrong usage or bundle; 130:
    interrupted, what is done is written; 141: whoever read the output left.
    """

    handles_signals: ClassVar[bool] = True

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...", help_behavior_hint="")]
    """Photographs (JPEG, PNG, TIFF, WebP, BMP, DICOM), folders of them, DICOMDIRs, or CSVs with a column named path."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Also write gradings.csv, gradings.jsonl, report.html and heat/ here."""

    bundle: BundleFile = None
    """The network and all that belongs to it."""

    operating_point: OperatingPointName = None
    """From where a photograph is referable; `retigrade info` lists the names."""

    format: Literal["table", "csv", "jsonl"] = "table"
    """What is written to standard output."""

    no_heat: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Leave out the thermal maps."""

    heat: Literal["all", "referable"] = "all"
    """The photographs whose thermal pictures are written into --out."""

    heat_format: Literal["auto", "png", "jpeg"] = "auto"
    """auto: PNG up to 300 photographs, and beyond that JPEG, smaller and quicker."""

    name_pattern: Annotated[str | None, tyro.conf.arg(metavar="PATTERN", help_behavior_hint="")] = None
    """Read patient, eye and date from names: eyepacs, patient-eye, patient-eye-date, patient-date-eye, or a regular
    expression with groups of these names."""

    pseudonym: Annotated[Path | None, tyro.conf.arg(metavar="KEYFILE", help_behavior_hint="")] = None
    """Write pseudonyms in the patients' places, made with the key in this file."""

    dry_run: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """List the photographs and whose eye each is, and grade nothing."""

    jobs: Jobs = None
    """Photographs at work at once."""

    resume: bool = False
    """Go on with what an earlier run into --out has done: the same files are not graded again by the same bundle."""

    dicom: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """With --out: also write a structured report and a secondary capture of each DICOM photograph into dicom/."""

    fhir: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """With --out: also write a FHIR R4 bundle of each patient and visit into fhir/."""

    def run(self) -> int:
        """Grade and write."""
        if self.resume and self.out is None:
            raise UsageError("--resume goes on with an earlier run into a folder: name it with --out DIR")
        if (self.dicom or self.fhir) and self.out is None:
            raise UsageError("--dicom and --fhir write files: name a folder with --out DIR")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs must be 1 or more, got {self.jobs}")
        inputs = self._inputs()
        if self.dry_run:
            _list_subjects(inputs)
            return 0
        if self.out is not None:
            from retigrade.files import make_folder

            make_folder(self.out)

        from concurrent.futures import ThreadPoolExecutor

        from retigrade.bundle import cpu_count
        from retigrade.grader import load

        jobs = min(cpu_count(), len(inputs.items)) if self.jobs is None else self.jobs
        # Beside the imports: ONNX Runtime opens and tries the network without holding up Python.
        with ThreadPoolExecutor(1, thread_name_prefix="retigrade-load") as pool:
            loading = pool.submit(
                load, self.bundle, threads=max(1, cpu_count() // jobs), operating_point=self.operating_point
            )
            from retigrade.output.run import run
            from retigrade.output.stdout import open_output
            from retigrade.progress import RunProgress

            if self.format == "table":
                import retigrade.output.table  # noqa: F401
            grader = loading.result()
        hospital = self._hospital(inputs, grader.bundle.identity)
        with RunProgress.on_stderr() as progress:
            output = open_output(sys.stdout, self.format, paths=[str(item) for item in inputs.items])
            output.before = progress.hide
            outcome = run(
                inputs,
                grader,
                output,
                out=self.out,
                heat=self._pictures(len(inputs.items)),
                jobs=jobs,
                resume=self.resume,
                writers=None if hospital is None else hospital.writers,
                watch=(lambda row: None) if hospital is None else hospital.add,
                progress=progress,
            )
        if hospital is not None:
            for sentence in hospital.finish(interrupted=outcome.interrupted):
                notice(sentence)
        _tell_end(outcome, self.out)
        return _exit_code(outcome)

    def _hospital(self, inputs: Inputs, bundle: str) -> HospitalOutputs | None:
        if self.out is None or not (self.dicom or self.fhir):
            return None
        from retigrade.cli.hospital import HospitalOutputs

        return HospitalOutputs(inputs, self.out, dicom=self.dicom, fhir=self.fhir, bundle=bundle, key=self._key)

    def _inputs(self) -> Inputs:
        """List what is to be graded and whose eyes, and say what was skipped."""
        from retigrade.cli.photographs import expand_all
        from retigrade.identity import identify
        from retigrade.inputs import describe_skipped
        from retigrade.subjects import NamePattern

        pattern = None if self.name_pattern is None else NamePattern.of(self.name_pattern)
        inputs = expand_all(self.paths, exclude=self.out)
        inputs = identify(inputs, pattern=pattern, key=self._key)
        if self.pseudonym is not None:
            from retigrade.cli.hospital import without_traces

            inputs = without_traces(inputs)
        for sentence in (*inputs.notes, *describe_skipped(inputs.skipped)):
            notice(sentence)
        return inputs

    @cached_property  # what the key comes from may be read once only, such as a pipe
    def _key(self) -> bytes | None:
        """The secret that pseudonyms are made with; None where there are none."""
        if self.pseudonym is None:
            return None
        try:
            key = self.pseudonym.read_bytes().strip()
        except OSError as error:
            raise UsageError(f"cannot read the key {self.pseudonym}: {error.strerror}") from error
        if len(key) < _KEY_BYTES:
            raise UsageError(
                f"the key in {self.pseudonym} has {len(key)} bytes and needs {_KEY_BYTES} or more, at random"
            )
        return key

    def _pictures(self, count: int) -> HeatPictures | None:
        from retigrade.output.illustrate import HeatPictures
        from retigrade.output.run import EMBEDDED

        if self.no_heat:
            return None
        form = self.heat_format
        if form == "auto":
            form = "png" if count <= EMBEDDED else "jpeg"
        return HeatPictures(self.heat, form)


def _list_subjects(inputs: Inputs) -> None:
    """Print each input with patient, eye and date as CSV, an empty cell for what is not known."""
    from retigrade.output.rows import csv_cell, csv_record

    sys.stdout.write(csv_record(("path", "patient", "eye", "date")))
    for item in inputs.items:
        subject = item.subject
        sys.stdout.write(
            csv_record([csv_cell(cell) for cell in (str(item), subject.patient, subject.eye, subject.date)])
        )
    patients = {item.subject.patient for item in inputs.items} - {None}
    unknown = sum(item.subject.patient is not None and item.subject.eye is None for item in inputs.items)
    nobody = sum(item.subject.patient is None for item in inputs.items)
    notice(f"{len(patients)} patients; {unknown} of their photographs of an unknown eye; {nobody} of nobody known")


def _tell_end(outcome: Outcome, out: Path | None) -> None:
    if outcome.unread:
        return
    if outcome.kept:
        notice(f"{outcome.kept} verdicts of an earlier run were kept, {outcome.done - outcome.kept} are new")
    if outcome.interrupted:
        notice(f"interrupted: {outcome.done} of {outcome.total} inputs have a verdict: {outcome.summary}")
    elif outcome.total > 1:
        notice(outcome.summary)
    if out is not None:
        notice(f"report: {out / 'report.html'}")
    if outcome.interrupted and out is not None:
        earlier = "" if outcome.published else "the listings there are still the earlier, fuller ones; "
        notice(f"{earlier}the same command with --resume goes on")
    notice("research use only, not a medical device")


def _exit_code(outcome: Outcome) -> int:
    if outcome.unread:
        return BROKEN_PIPE
    if outcome.interrupted:
        return INTERRUPTED
    return _UNREADABLE_PHOTO if outcome.errors else 0
