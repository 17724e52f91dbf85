"""One run over many photographs: list, plan, grade what has no row yet, and count."""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import mean, median

from retigrade.batch.destination import PLANS, Destination, Earlier, RunHeader, count_rows, sweep, write_summary
from retigrade.batch.engine import RayEngine
from retigrade.batch.photographs import Photograph
from retigrade.batch.plan import Part, write_plan
from retigrade.batch.schema import Heat
from retigrade.batch.sources import Listing, list_source
from retigrade.batch.stores import NamedBytes, normal, read_photograph
from retigrade.batch.worker import PartOutcome, WorkerConfig
from retigrade.bundle import Bundle, Device, bundle_file
from retigrade.errors import UnreadablePhoto, UsageError
from retigrade.grader import Grader
from retigrade.inputs import describe_skipped
from retigrade.text import shown

_SAMPLE = 24
_GPU_THREADS = 4  # that decode for one GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is to be done: photographs of the source, those whose earlier row is kept, earlier rows taken out, parts.

    notes: what a user must know, in sentences.
    """

    photographs: int
    kept: int
    removed: int
    parts: int
    workers: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What a run came to.

    counts: rows of all parts by status, and `referable`. graded_now: photographs graded by this run, bytes: their
    bytes. seconds: from the first part to the last. price: of an hour of one worker, None unknown.
    """

    planned: Planned
    counts: dict[str, int]
    graded_now: int
    bytes: int
    seconds: float
    price: float | None

    @property
    def rate(self) -> float:
        """Photographs a second, of all workers."""
        return self.graded_now / self.seconds if self.seconds else 0.0

    @property
    def cost(self) -> float | None:
        """What the workers' time cost, in the price's currency."""
        return None if self.price is None else self.price * self.planned.workers * self.seconds / 3600

    def as_json(self) -> dict[str, object]:
        """The summary as it is written."""
        return {
            "photographs": self.planned.photographs,
            "counts": self.counts,
            "kept": self.planned.kept,
            "removed": self.planned.removed,
            "graded_now": self.graded_now,
            "bytes": self.bytes,
            "workers": self.planned.workers,
            "seconds": round(self.seconds, 3),
            "photographs_a_second": round(self.rate, 3),
            "cost": self.cost,
        }


def run_batch(
    source: str,
    *,
    out: str,
    bundle: Path | str | None = None,
    operating_point: str | None = None,
    heat: Heat = "none",
    engine: RayEngine | None = None,
    device: Device = "cpu",
    limit: int | None = None,
    part_size: int | None = None,
    retry_errors: bool = False,
    price: float | None = None,
    plan: Callable[[Planned], None] = lambda planned: None,
    watch: Callable[[PartOutcome], None] = lambda outcome: None,
) -> BatchOutcome:
    """Grade all photographs of a source into Parquet parts, exactly one row each; see `list_source` for what it may be.

    out: a folder or fsspec URL. Rows that an earlier run left there are kept where photograph and bundle are the same,
    and taken out where the photograph is gone or has changed. heat: what becomes of the thermal pictures. engine: where
    to run, None on this machine. limit: take the first so many. part_size: photographs in a part, None chooses it.
    retry_errors: grade those again that could not be read. price: of an hour of one worker. plan: called when all is
    listed; watch: called with each part.

    Raises UsageError where there is nothing to grade, something cannot be listed or written, Ray is not there, or the
    folder holds another run; DataError where a manifest, BundleError where the bundle cannot be used.
    """
    _check_counts(limit=limit, part_size=part_size)
    data, identity = _read_bundle(bundle, operating_point)
    engine = engine or RayEngine()
    engine.check(source, out)
    destination = Destination(out)
    header = RunHeader(source=normal(source), bundle=identity, operating_point=operating_point, heat=heat)
    with destination.opened(header):
        earlier = Earlier.read(destination, retry_errors=retry_errors)
        listing = list_source(source, exclude=destination.store.address)
        wanted = _Wanted(listing, earlier, limit)
        fresh = wanted.photographs()
        first = next(fresh, None)
        run = secrets.token_hex(4)
        if first is None:
            parts: list[Part] = []
            planned = _planned(wanted, earlier, parts, workers=0)
            plan(planned)
            return _finish(destination, earlier, planned, [], seconds=0.0, price=price)
        with engine.started() as workers:
            folder = f"{PLANS}/{run}"
            parts = write_plan(chain([first], fresh), destination.store, folder=folder, workers=workers, size=part_size)
            planned = _planned(wanted, earlier, parts, workers=workers)
            plan(planned)
            config = WorkerConfig(
                bundle=data,
                destination=destination.store.address,
                run=run,
                operating_point=operating_point,
                heat=heat,
                device=device,
                threads=_GPU_THREADS if device == "cuda" else 1,
            )
            started = time.perf_counter()
            outcomes: list[PartOutcome] = []
            for outcome in engine.run(parts, config, workers=workers):
                if outcome.failure is not None:
                    raise UsageError(f"{outcome.failure}; what is written stays, and the same command goes on")
                outcomes.append(outcome)
                watch(outcome)
            seconds = time.perf_counter() - started
        return _finish(destination, earlier, planned, outcomes, seconds=seconds, price=price)


def _check_counts(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be 1 or more, got {value}")


@dataclass(slots=True)
class _Wanted:
    """What is left to grade of a listing, with the counts of what was listed."""

    listing: Listing
    earlier: Earlier
    limit: int | None
    listed: int = 0
    kept: int = 0
    all_listed: bool = False

    def photographs(self) -> Iterator[Photograph]:
        for photograph in islice(self.listing.photographs, self.limit):
            self.listed += 1
            if self.earlier.holds(photograph):
                self.kept += 1
            else:
                yield photograph
        self.all_listed = self.limit is None


def _planned(wanted: _Wanted, earlier: Earlier, parts: list[Part], *, workers: int) -> Planned:
    notes = [*wanted.listing.notes, *describe_skipped(wanted.listing.skipped)]
    notes += [f"{shown(name)} was cut short and is made again" for name in earlier.damaged]
    removed = earlier.remove_unused(all_listed=wanted.all_listed)
    if removed:
        notes.append(f"{removed} rows of photographs that are gone or have changed were taken out")
    return Planned(
        photographs=wanted.listed,
        kept=wanted.kept,
        removed=removed,
        parts=len(parts),
        workers=workers,
        notes=tuple(notes),
    )


def _finish(
    destination: Destination,
    earlier: Earlier,
    planned: Planned,
    outcomes: list[PartOutcome],
    *,
    seconds: float,
    price: float | None,
) -> BatchOutcome:
    """Count what is there, which must be one row a photograph, and write the summary."""
    sweep(destination, [*earlier.names, *(outcome.name for outcome in outcomes)])
    counts = count_rows(destination)
    fresh = planned.photographs - planned.kept
    expected, found = len(earlier) - planned.removed + fresh, sum(counts.values()) - counts.get("referable", 0)
    if found != expected:
        raise RuntimeError(f"{destination.store.address} has {found} rows and should have {expected}")
    outcome = BatchOutcome(
        planned=planned,
        counts=counts,
        graded_now=fresh,
        bytes=sum(outcome.bytes for outcome in outcomes),
        seconds=seconds,
        price=price,
    )
    write_summary(destination, outcome.as_json())
    destination.store.remove(PLANS)
    return outcome


def _read_bundle(bundle: Path | str | None, operating_point: str | None) -> tuple[bytes, str]:
    """The bytes of a bundle that was checked, and its identity."""
    path = bundle_file(bundle)
    loaded = Bundle.load(path, threads=1)
    loaded.metadata.threshold(operating_point)
    return path.read_bytes(), loaded.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run would take: photographs and their bytes; seconds of one core for a photograph, from a sample.

    unsized: photographs whose bytes the listing does not say. sampled: photographs that were graded for it; errors:
    those that could not be read.
    """

    photographs: int
    bytes: int
    unsized: int
    sampled: int
    errors: int
    mean_seconds: float
    median_seconds: float
    notes: tuple[str, ...]

    def hours(self, workers: int) -> float:
        """How long so many workers would take."""
        return self.photographs * self.mean_seconds / workers / 3600

    def cost(self, price: float) -> float:
        """What that costs at so much for an hour of one worker."""
        return self.hours(1) * price


def forecast(
    source: str,
    *,
    bundle: Path | str | None = None,
    limit: int | None = None,
    exclude: str | None = None,
    seed: int = 0,
) -> Forecast:
    """List a source, grade a few of its photographs here, and say what all of them would take; writes nothing.

    Raises as `run_batch` does.
    """
    _check_counts(limit=limit)
    data, _ = _read_bundle(bundle, None)
    grader = Grader(Bundle.from_bytes(data, threads=1))
    listing = list_source(source, exclude=exclude)
    rng = random.Random(seed)
    sample: list[Photograph] = []
    photographs = size = unsized = 0
    for photograph in islice(listing.photographs, limit):
        photographs += 1
        size += photograph.size or 0
        unsized += photograph.size is None
        if len(sample) < _SAMPLE:
            sample.append(photograph)
        elif (place := rng.randrange(photographs)) < _SAMPLE:  # each stays with the same probability (Vitter, 1985)
            sample[place] = photograph
    statuses: Counter[str] = Counter()
    seconds = [_timed(grader, photograph, statuses) for photograph in sample]
    return Forecast(
        photographs=photographs,
        bytes=size,
        unsized=unsized,
        sampled=len(sample),
        errors=statuses["error"],
        mean_seconds=mean(seconds),
        median_seconds=median(seconds),
        notes=(*listing.notes, *describe_skipped(listing.skipped)),
    )


def _timed(grader: Grader, photograph: Photograph, statuses: Counter[str]) -> float:
    started = time.perf_counter()
    try:
        photograph.check()
        data = read_photograph(photograph.uri, size=photograph.size, offset=photograph.offset)
        statuses[grader.grade(NamedBytes(data, photograph.uri), heat=False).status.value] += 1
    except UnreadablePhoto:
        statuses["error"] += 1
    return time.perf_counter() - started
