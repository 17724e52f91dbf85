"""One run of grading: every verdict to standard output and to the output folder, and what the run came to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

from retigrade.grader import Grader
from retigrade.icdr import Status
from retigrade.inputs import Input, Inputs
from retigrade.output.illustrate import EVERY_PNG, HeatPictures, Illustrated, illustrate
from retigrade.output.journal import Stamp
from retigrade.output.patients import visits_of
from retigrade.output.progression import timelines_of
from retigrade.output.rows import Row, as_row
from retigrade.output.stdout import Output
from retigrade.progress import RunProgress
from retigrade.signals import stop_on_interrupt

if TYPE_CHECKING:
    from retigrade.output.folder import Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    total: the inputs; done: those with a row; errors: those of them that could not be read; kept: those whose earlier
    verdict was taken. published: whether the listings in the output folder are of this run. unread: whoever read
    standard output left before the end, and there was no other place to write to. summary: the counts by verdict, such
    as `40 graded (12 referable), 2 ungradable`.
    """

    total: int
    done: int
    errors: int
    kept: int
    published: bool
    unread: bool
    summary: str

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped the run before its end."""
        return self.done < self.total and not self.unread


EMBEDDED = 300
"""Inputs up to which the report holds its small pictures itself."""
Writer = Callable[[Input, Illustrated], Iterable[tuple[str, bytes]]]
"""Makes further files of one verdict: their paths below the output folder, POSIX, and bytes."""


def run(
    inputs: Inputs,
    grader: Grader,
    output: Output,
    *,
    out: Path | None,
    heat: HeatPictures | None = EVERY_PNG,
    jobs: int,
    resume: bool = False,
    writers: Mapping[str, Writer] | None = None,
    listings: Mapping[str, Listing] | None = None,
    watch: Callable[[Row], None] = lambda row: None,
    progress: RunProgress | None = None,
) -> Outcome:
    """Grade all inputs in order, each written as soon as it is known; memory hardly grows with their number.

    out: the folder for listings, report and thermal pictures, or None. heat: the pictures to make, or None. jobs:
    photos at work at once. resume: take what an earlier run into `out` has done. writers, by the kind of files they
    make, and listings: what else is written into `out`, of each verdict and of all rows. watch: called with each row.
    progress: hears of each step.

    Raises UsageError where something cannot be written, BundleError where the network fails; the listings in `out` are
    then those that were there, and what was done can be taken up with `resume`.
    """
    done = errors = 0
    writers, published, progress = writers or {}, False, progress or RunProgress()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_interrupt())
        folder = None
        if out is not None:
            from retigrade.output.folder import OutputFolder  # and all that it writes, which takes time to import

            folder = OutputFolder(
                out,
                metadata=grader.bundle.metadata,
                bundle=grader.bundle.identity,
                operating_point=grader.operating_point,
                kinds=(*((f"heat {heat.only} {heat.format}",) if heat else ()), *writers),
                resume=resume,
                listings=listings,
                heat=heat or EVERY_PNG,
                embed=len(inputs.items) <= EMBEDDED,
                noise=grader.bundle.metadata.retest_noise,
            )
            stack.enter_context(closing(folder))
        kept = {item.name for item in inputs.items if resume and folder is not None and folder.holds(item)}
        output.write(output.head)
        stamps: dict[str, Stamp] = {}
        items = stop.until(_stamped((item for item in inputs.items if item.name not in kept), stamps))
        verdicts = stack.enter_context(
            closing(_verdicts(grader, items, pictures=folder is not None, heat=heat, jobs=jobs))
        )
        progress.begin("grading", total=len(inputs.items), kinds=[Status.GRADED.value])
        for item in inputs.items:
            if folder is not None and item.name in kept:
                row = folder.keep(item)
            elif (verdict := next(verdicts, None)) is None:
                continue  # the user asked to stop; what an earlier run did still counts
            elif folder is None:
                row = verdict.row
            else:
                more = (file for write in writers.values() for file in write(item, verdict))
                row = folder.add(item, verdict, stamp=stamps.pop(item.name), more=more)
            output.write(output.line(row))
            watch(row)
            progress.count(row.status, *(("referable",) if row.referable else ()))
            done += 1
            errors += row.status == Status.ERROR
            if output.closed and folder is None:
                break
        summary = progress.summary()
        if folder is not None:
            skipped = [f"{skipped.path}: {skipped.reason}" for skipped in inputs.skipped]
            from retigrade.output.comparisons import compare

            timelines = timelines_of(visits_of(folder.rows()), noise=grader.bundle.metadata.retest_noise)
            comparisons = compare(
                timelines,
                sources={str(item): item for item in inputs.items},
                grader=grader,
                heat=heat is not None,
                jobs=jobs,
                stop=stop,
                progress=progress,
            )
            published = folder.publish(total=len(inputs.items), skipped=skipped, comparisons=comparisons)
    return Outcome(
        total=len(inputs.items),
        done=done,
        errors=errors,
        kept=len(kept),
        published=published,
        unread=output.closed and folder is None,
        summary=summary,
    )


def _stamped(items: Iterable[Input], stamps: dict[str, Stamp]) -> Iterator[Input]:
    """Yield the items, each looked at before it is read."""
    for item in items:
        stamps[item.name] = Stamp.of(item.path)
        yield item


def _verdicts(
    grader: Grader, items: Iterator[Input], *, pictures: bool, heat: HeatPictures | None, jobs: int
) -> Generator[Illustrated, None, None]:
    """Yield the verdicts in order, with pictures where they are wanted."""
    items, again = tee(items)
    gradings = grader.grade_many(items, jobs=jobs, heat=heat is not None and pictures)
    if pictures:
        yield from illustrate(gradings, jobs=jobs, heat=heat or EVERY_PNG, inputs=again)
    else:
        yield from (Illustrated(row=as_row(grading)) for grading in gradings)
