"""REST: photographs in, gradings out."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from retigrade.grading import Subject
from retigrade.serve import record
from retigrade.serve.problems import Problem, described
from retigrade.serve.security import Reads, Writes
from retigrade.serve.service import Service, ServiceDep
from retigrade.serve.shapes import PREFIX, GradingOut, GradingsOut, grading_out, today
from retigrade.serve.tables import PATIENT_CHARACTERS, GradingRecord
from retigrade.serve.uploads import FIELDS, FILES, Upload, read_upload
from retigrade.subjects import parse_date, parse_eye

router = APIRouter(prefix=f"{PREFIX}/gradings", tags=["gradings"])

_TEXTS = {name: {"type": "array", "items": {"type": "string"}} for name in FIELDS}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILES],
                    "properties": {
                        FILES: {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "patient": {"type": "string", "maxLength": PATIENT_CHARACTERS},
                        "eye": {"type": "string", "enum": ["right", "left"]},
                        "date": {"type": "string", "format": "date"},
                    },
                }
            },
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_Text = Annotated[str | None, Query(max_length=PATIENT_CHARACTERS)]


@router.post(
    "",
    status_code=201,
    response_model=GradingsOut,
    responses=described(400, 401, 403, 408, 413, 415, 422, 429, 503),
    openapi_extra=_BODY,
)
async def grade(
    request: Request,
    service: ServiceDep,
    caller: Writes,
    patient: _Text = None,
    eye: _Text = None,
    date: _Text = None,
    name: _Text = None,
) -> Response:
    """Grade photographs, and keep the gradings; one that was graded before gets the grading that it has."""
    records = await grade_request(
        request, service, actor=caller.name, given={"patient": patient, "eye": eye, "date": date}, name=name
    )
    return JSONResponse({"gradings": [show(service, found) for found in records]}, 201)


async def grade_request(
    request: Request,
    service: Service,
    *,
    actor: str,
    given: dict[str, str | None] | None = None,
    name: str | None = None,
) -> list[GradingRecord]:
    """Grade the photographs of a request's body; given: the fields in the request's address."""
    with service.admission.request() as share:
        upload = await read_upload(request, service.config, share, name=name)
        for field, value in (given or {}).items():
            if value is not None:
                upload.fields.setdefault(field, []).append(value)
        return await service.grade(upload.files, subjects_of(upload), actor=actor)


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
    if subject.date is not None and subject.date > today() + datetime.timedelta(days=1):
        raise Problem(
            422, seen=f"the date {subject.date}, which is in the future", needed="the day of the visit",
            attempt="correct the year",
        )  # fmt: skip
    return subject


def patient_of(text: str) -> str | None:
    """Return a patient's identifier, None for an empty one; Problem 422 where it cannot be one."""
    text = text.strip()
    if len(text) > PATIENT_CHARACTERS:
        raise Problem(
            422, seen=f"a patient of {len(text)} characters", needed=f"{PATIENT_CHARACTERS} at most",
            attempt="with the identifier alone",
        )  # fmt: skip
    if not text.isprintable():
        raise Problem(
            422, seen="a patient with control characters", needed="an identifier of printable characters",
            attempt="without line breaks and the like",
        )  # fmt: skip
    return text or None


@router.get("/{grading}", response_model=GradingOut, responses=described(401, 403, 404, 429, 503))
def get(grading: str, service: ServiceDep, caller: Reads) -> dict[str, Any]:
    """Return one grading."""
    return show(service, found(service, grading))


def found(service: Service, grading: str, *, heat: bool = False) -> GradingRecord:
    """Return a grading by its id; Problem 404 where there is none."""
    with service.database.reading() as session:
        known = record.find_grading(session, grading, heat=heat)
    if known is None:
        raise Problem(
            404, seen="an id that no grading has", needed="the id of a grading",
            attempt=f"GET {PREFIX}/gradings lists them",
        )  # fmt: skip
    return known


def show(service: Service, known: GradingRecord) -> dict[str, Any]:
    """Return a grading as JSON values."""
    return grading_out(known, kept=False)
