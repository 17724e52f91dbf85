"""One run of grading: every verdict to standard output and to the output folder, and what the run came to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

from retigrade.grader import Grader
from retigrade.icdr import Status
from retigrade.inputs import Input, Inputs
from retigrade.output.folder import OutputFolder
from retigrade.output.illustrate import Illustrated, illustrate
from retigrade.output.rows import as_row
from retigrade.output.stdout import Output
from retigrade.signals import stop_on_interrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    total: the inputs; done: those with a row; errors: those of them that could not be read. unread: whoever read
    standard output left before the end, and there was no other place to write to.
    """

    total: int
    done: int
    errors: int
    unread: bool

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped the run before its end."""
        return self.done < self.total and not self.unread


Writer = Callable[[Input, Illustrated], None]
"""Writes one verdict in one more form."""


def run(
    inputs: Inputs,
    grader: Grader,
    output: Output,
    *,
    out: Path | None,
    heat: bool,
    jobs: int,
    writers: Sequence[Writer] = (),
) -> Outcome:
    """Grade all inputs in order, each written as soon as it is known; memory does not grow with their number.

    out: the folder for listings, report and thermal pictures, or None. heat: whether to make the pictures. jobs:
    photos at work at once. writers: given each verdict too, in order. Raises UsageError where something cannot be
    written; then `out` holds no new listing.
    """
    done = errors = 0
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = OutputFolder(
                out,
                metadata=grader.bundle.metadata,
                bundle=grader.bundle.identity,
                operating_point=grader.operating_point,
            )
            stack.enter_context(closing(folder))
        output.write(output.head)
        stop = stack.enter_context(stop_on_interrupt())
        items = stop.until(iter(inputs.items))
        verdicts = stack.enter_context(
            closing(_verdicts(grader, items, pictures=folder is not None, heat=heat, jobs=jobs))
        )
        for item, verdict in zip(inputs.items, verdicts, strict=False):  # fewer verdicts where the user asked to stop
            if folder is not None:
                folder.add(verdict, name=item.name)
            for write in writers:
                write(item, verdict)
            output.write(output.line(verdict.row))
            done += 1
            errors += verdict.row.status == Status.ERROR
            if output.closed and folder is None:
                break
        if folder is not None:
            skipped = [f"{skipped.path}: {skipped.reason}" for skipped in inputs.skipped]
            folder.publish(total=len(inputs.items), skipped=skipped)
    return Outcome(total=len(inputs.items), done=done, errors=errors, unread=output.closed and folder is None)


def _verdicts(
    grader: Grader, items: Iterator[Input], *, pictures: bool, heat: bool, jobs: int
) -> Generator[Illustrated, None, None]:
    """Yield the verdicts in order, with pictures where they are wanted."""
    items, again = tee(items)
    gradings = grader.grade_many(items, jobs=jobs, heat=heat and pictures)
    if pictures:
        yield from illustrate(gradings, jobs=jobs, inputs=again)
    else:
        yield from (Illustrated(row=as_row(grading)) for grading in gradings)
