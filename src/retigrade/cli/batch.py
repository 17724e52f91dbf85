"""`retigrade batch`: millions of photographs on Ray Data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from retigrade.cli.command import BundleFile, Command, Jobs, OperatingPointName, notice
from retigrade.errors import UsageError
from retigrade.icdr import Status
from retigrade.signals import INTERRUPTED

if TYPE_CHECKING:
    from retigrade.batch.run import BatchOutcome, Planned
    from retigrade.batch.schema import Heat
    from retigrade.batch.worker import PartOutcome

_UNREADABLE_PHOTO = 1


@dataclass(frozen=True, kw_only=True)
class BatchCommand(Command):
    """Grade folders and object stores on Ray, into Parquet parts with one row for each photograph.

    The same command goes on where a run was stopped, whatever stopped it. Exit codes are those of grade.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE", help_behavior_hint="")]
    """A folder; an fsspec URL (s3://, gs://, az://, ...) of a folder, with a wildcard or of a file; a Parquet or CSV
    manifest with a column uri and optionally patient, eye, date, size, etag, sha256; tars in WebDataset layout."""

    out: Annotated[str | None, tyro.conf.arg(metavar="DEST", help_behavior_hint="")] = None
    """The folder or URL that the parts are written into."""

    address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="(default: this machine)")] = (
        None
    )
    """A Ray cluster: auto, HOST:PORT or ray://HOST:PORT."""

    workers: Jobs = None
    """Workers at once, each with one core."""

    bundle: BundleFile = None
    """The network and all that belongs to it."""

    operating_point: OperatingPointName = None
    """From where a photograph is referable; `retigrade info` lists the names."""

    heat: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Also make the thermal pictures, as JPEG."""

    heat_as: Literal["bytes", "files"] = "bytes"
    """With --heat: in the column heat, or as files below heat/ that this column names."""

    device: Literal["cpu", "cuda", "openvino"] = "cpu"
    """What the network runs on; cuda and openvino need a build of ONNX Runtime that has them."""

    limit: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Take the first N photographs of the source."""

    part_size: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: up to 1000)")] = None
    """Photographs in a part, which is what a worker loses when it dies."""

    retry_errors: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Grade those again that an earlier run could not read."""

    price: Annotated[float | None, tyro.conf.arg(metavar="AMOUNT", help_behavior_hint="")] = None
    """Of one worker for an hour, in any currency: the cost is then part of the summary."""

    dry_run: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Count photographs and bytes, grade a few, and say what all of them would take; nothing is written."""

    def run(self) -> int:
        """List, grade and write."""
        from retigrade.errors import needs_extra

        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, got {self.workers}")
        with needs_extra("batch"):
            import fsspec  # noqa: F401 - what is missing is said before anything is listed
            import pyarrow  # noqa: F401
        if self.dry_run:
            return self._forecast()
        if self.out is None:
            raise UsageError("batch writes Parquet files: name a folder or URL with --out DEST")
        from retigrade.batch.engine import RayEngine
        from retigrade.batch.run import run_batch
        from retigrade.progress import RunProgress

        engine = RayEngine(address=self.address, workers=self.workers, gpus=float(self.device == "cuda"))
        progress = RunProgress.on_stderr()

        def begin(planned: Planned) -> None:
            for sentence in planned.notes:
                notice(sentence)
            if planned.kept:
                notice(f"{planned.kept} of {planned.photographs} photographs have a row already")
            progress.begin("grading", total=planned.photographs - planned.kept, kinds=[Status.GRADED.value])

        def watch(part: PartOutcome) -> None:
            counts = dict(part.counts)
            referable = counts.pop("referable", 0)
            progress.add(counts, details={Status.GRADED.value: {"referable": referable}})

        heat: Heat = self.heat_as if self.heat else "none"
        try:
            outcome = run_batch(
                self.source,
                out=self.out,
                bundle=self.bundle,
                operating_point=self.operating_point,
                heat=heat,
                engine=engine,
                device=self.device,
                limit=self.limit,
                part_size=self.part_size,
                retry_errors=self.retry_errors,
                price=self.price,
                plan=begin,
                watch=watch,
            )
        except KeyboardInterrupt:
            notice("interrupted: what is written stays, and the same command goes on")
            return INTERRUPTED
        finally:
            progress.hide()
        _print(outcome)
        return _UNREADABLE_PHOTO if outcome.counts.get("error") else 0

    def _forecast(self) -> int:
        from retigrade.batch.run import forecast
        from retigrade.bundle import cpu_count
        from retigrade.progress import duration

        found = forecast(self.source, bundle=self.bundle, limit=self.limit, exclude=self.out)
        for sentence in found.notes:
            notice(sentence)
        workers = self.workers or cpu_count()
        unsized = f" ({found.unsized} of unknown size)" if found.unsized else ""
        size = f"{found.bytes / 2**30:.2f} GiB" if found.bytes >= 2**30 else f"{found.bytes / 2**20:.1f} MiB"
        print(f"{found.photographs} photographs, {size}{unsized}")
        print(
            f"{found.mean_seconds * 1e3:.0f} ms each on one core (mean of {found.sampled}, median "
            f"{found.median_seconds * 1e3:.0f} ms), {found.errors} of them could not be read"
        )
        print(f"about {duration(found.hours(workers) * 3600)} with {workers} workers")
        if self.price is not None:
            print(f"about {found.cost(self.price):.2f} at {self.price:g} for an hour of a worker")
        return 0


def _print(outcome: BatchOutcome) -> None:
    counts = outcome.counts
    rows = sum(counts.values()) - counts.get("referable", 0)
    verdicts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if name != "referable")
    print(f"{rows} rows: {verdicts} ({counts.get('referable', 0)} referable)")
    if outcome.graded_now:
        cost = "" if outcome.cost is None else f", cost {outcome.cost:.4g}"
        print(
            f"{outcome.graded_now} graded now, {outcome.rate:.1f}/s with {outcome.planned.workers} workers, "
            f"{outcome.bytes / 2**20:.1f} MiB read{cost}"
        )
    notice("research use only, not a medical device")
