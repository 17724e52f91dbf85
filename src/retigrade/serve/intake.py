"""Photographs from a request's body to gradings in the record, and the rules for what a client writes beside them."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections.abc import Mapping, Sequence

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from retigrade.grading import Subject
from retigrade.serve import record
from retigrade.serve.problems import Problem
from retigrade.serve.service import Service
from retigrade.serve.tables import PATIENT_CHARACTERS, GradingRecord
from retigrade.serve.uploads import FIELDS, Upload, read_upload
from retigrade.serve.workers import sha256_of
from retigrade.subjects import parse_date, parse_eye

KEY_HEADER, KEY_CHARACTERS = "Idempotency-Key", 255


async def grade_request(
    request: Request,
    service: Service,
    *,
    actor: str,
    given: Mapping[str, str | None] | None = None,
    name: str | None = None,
) -> list[GradingRecord]:
    """Grade the photographs of a request's body, and return their gradings, which are durable, in order.

    given: fields stated in the request's address; name: what a photograph of raw bytes goes by. A photograph that was
    graded before for the same subject has the grading that it had; with an Idempotency-Key the whole request has.
    Raises Problem where the request cannot be served.
    """
    with service.admission.request() as share:
        upload = await read_upload(request, service.config, share, name=name)
        for field, value in (given or {}).items():
            if value is not None:
                upload.fields.setdefault(field, []).append(value)
        subjects = subjects_of(upload)
        if (stated := request.headers.get(KEY_HEADER)) is None:
            return await service.grade(upload.files, subjects, actor=actor)
        return await _grade_once(service, stated, upload, subjects, actor=actor)


async def _grade_once(
    service: Service, stated: str, upload: Upload, subjects: Sequence[Subject], *, actor: str
) -> list[GradingRecord]:
    """Grade, or give the answer that the same key had (draft-ietf-httpapi-idempotency-key-header)."""
    if not 0 < len(stated) <= KEY_CHARACTERS or not stated.isprintable():
        raise Problem(
            422, seen=f"an {KEY_HEADER} of {len(stated)} characters",
            needed=f"1 to {KEY_CHARACTERS} printable characters", attempt="a random UUID",
        )  # fmt: skip
    key = hashlib.sha256(f"{actor}\0{stated}".encode("utf-8", "surrogateescape")).hexdigest()
    if key in service.keys_under_way:
        raise Problem(
            409, seen=f"an {KEY_HEADER} whose first request is not answered yet", needed="its answer",
            attempt="again in 2 s", headers={"Retry-After": "2"},
        )  # fmt: skip
    service.keys_under_way.add(key)
    try:
        content = await run_in_threadpool(_content, service, upload, subjects)
        answered = await run_in_threadpool(_answered, service, key, content)
        if answered is not None:
            return answered
        records = await service.grade(upload.files, subjects, actor=actor)
        identities = [known.id for known in records]
        await asyncio.wrap_future(
            service.writer.submit(lambda session: record.add_request(session, key, content, identities))
        )
        return records
    finally:
        service.keys_under_way.discard(key)


def _content(service: Service, upload: Upload, subjects: Sequence[Subject]) -> str:
    """Return what makes a request the same as another."""
    point, bundle = service.grader.operating_point, service.grader.bundle.identity
    contents = [
        record.content_of(sha256_of(file.data), bundle=bundle, operating_point=point, subject=subject)
        for file, subject in zip(upload.files, subjects, strict=True)
    ]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()


def _answered(service: Service, key: str, content: str) -> list[GradingRecord] | None:
    with service.database.reading() as session:
        known = record.find_request(session, key)
        if known is None:
            return None
        if known.content != content:
            raise Problem(
                422, seen=f"an {KEY_HEADER} that another request had", needed="one key for one request",
                attempt="with a new key",
            )  # fmt: skip
        gradings = [record.find_grading(session, identity) for identity in known.gradings]
    present = [grading for grading in gradings if grading is not None]
    return present if len(present) == len(gradings) else None  # some were deleted since


def subjects_of(upload: Upload) -> list[Subject]:
    """Return whose eye each file shows; a field is given once for all files, or once for each.

    Raises Problem 422 where a field is given another number of times, or cannot be read.
    """
    count = len(upload.files)
    columns = []
    for field in FIELDS:
        values = upload.fields.get(field) or [""]
        if len(values) not in (1, count):
            raise Problem(
                422, seen=f"{len(values)} values of the field {field} for {count} files",
                needed="one for all files, or one for each", attempt=f"give {field} once",
            )  # fmt: skip
        columns.append(values * count if len(values) == 1 else values)
    return [subject_of(*values) for values in zip(*columns, strict=True)]


def subject_of(patient: str, eye: str, date: str) -> Subject:
    """Return whose eye it is, from what a client wrote; Problem 422 where that cannot be."""
    try:
        subject = Subject(patient_of(patient), parse_eye(eye), parse_date(date))
    except ValueError as error:
        raise Problem(
            422, seen=str(error)[:200], needed="an eye of right or left, a date as YYYY-MM-DD",
            attempt="leave out what is not known",
        ) from None  # fmt: skip
    check_past(subject.date, needed="the day of the visit")
    return subject


def check_past(date: datetime.date | None, *, needed: str) -> None:
    """Raise Problem 422 for a day that has begun nowhere on earth."""
    if date is not None and date > record.now().date() + datetime.timedelta(days=1):
        raise Problem(422, seen=f"the date {date}, which is in the future", needed=needed, attempt="correct the year")


def patient_of(text: str) -> str | None:
    """Return a patient's identifier, None for an empty one; Problem 422 where it cannot be one."""
    return check_line(text, of="a patient", limit=PATIENT_CHARACTERS)


def check_line(text: str, *, of: str, limit: int) -> str | None:
    """Return a text of one line without the space around it, None for an empty one; Problem 422 where it is none."""
    text = text.strip()
    if len(text) > limit:
        raise Problem(
            422, seen=f"{of} of {len(text)} characters", needed=f"{limit} at most", attempt="with fewer characters"
        )
    if not text.isprintable():
        raise Problem(
            422, seen=f"{of} with control characters", needed="printable characters alone",
            attempt="without line breaks and the like",
        )  # fmt: skip
    return text or None
