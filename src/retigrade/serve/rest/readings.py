"""REST: what readers make of gradings, and what it all adds up to."""

from __future__ import annotations

import asyncio
import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query

from retigrade.serve import record
from retigrade.serve.intake import check_line
from retigrade.serve.problems import Problem, described
from retigrade.serve.rest.gradings import find_or_refuse
from retigrade.serve.rest.shapes import PREFIX, REASON_CHARACTERS, ReadingIn, ReadingOut, ReadingsOut, reading_out
from retigrade.serve.security import Reads, Writes
from retigrade.serve.service import ServiceDep
from retigrade.serve.statistics import Statistics, statistics_of
from retigrade.serve.tables import PATIENT_CHARACTERS

router = APIRouter(prefix=PREFIX, tags=["readings"])


@router.post(
    "/gradings/{grading}/readings",
    status_code=201,
    response_model=ReadingOut,
    responses=described(400, 401, 403, 404, 413, 422, 429, 503),
)
async def add_reading(grading: str, reading: ReadingIn, service: ServiceDep, caller: Writes) -> Any:
    """Confirm a grade or state another; both stay, side by side."""
    reader = check_line(reading.reader, of="a reader", limit=PATIENT_CHARACTERS)
    reason = check_line(" ".join(reading.reason.split()), of="a reason", limit=REASON_CHARACTERS)
    if reader is None:
        raise Problem(422, seen="a reading of nobody", needed="the reader's name", attempt="with a name")
    known = await asyncio.to_thread(find_or_refuse, service, grading)
    written = service.writer.submit(
        partial(
            record.add_reading,
            grading=known.id,
            reader=reader,
            grade=reading.grade,
            reason=reason or "",
            actor=caller.name,
        )
    )
    kept = await asyncio.wrap_future(written)
    if kept is None:
        raise Problem(404, seen="a grading that was deleted just now", needed="one that is there", attempt="nothing")
    return reading_out(kept, known.grade)


@router.get(
    "/gradings/{grading}/readings",
    response_model=ReadingsOut,
    responses=described(401, 403, 404, 422, 429, 503),
)
def get_readings(grading: str, service: ServiceDep, caller: Reads) -> Any:
    """Return what readers made of a grading, oldest first."""
    known = find_or_refuse(service, grading)
    with service.database.reading() as session:
        readings = record.readings_of(session, known.id)
    return ReadingsOut(readings=[reading_out(reading, known.grade) for reading in readings])


@router.get("/statistics", response_model=Statistics, responses=described(401, 403, 422, 429, 503))
def get_statistics(
    service: ServiceDep,
    caller: Reads,
    since: Annotated[datetime.date | None, Query(description="The first day, in UTC.")] = None,
    until: Annotated[datetime.date | None, Query(description="The day after the last one.")] = None,
) -> Any:
    """Return how many photographs could be graded, which grades, whether readers agree, and the drift of the mix."""
    with service.database.reading() as session:
        return statistics_of(session, service.grader.bundle.metadata.training.grades, since=since, until=until)
