"""REST: patients, their timelines, and their visits as FHIR."""

from __future__ import annotations

import asyncio
import datetime
import json
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse

from retigrade.output.patients import patients_jsonl, visits_of
from retigrade.output.progression import Timeline, timelines_of
from retigrade.output.rows import Row
from retigrade.serve import record
from retigrade.serve.fhir import FHIR_TYPE, transaction_of
from retigrade.serve.intake import check_line, check_past, patient_of
from retigrade.serve.problems import Problem, described
from retigrade.serve.rest.shapes import PREFIX, PatientIn, PatientOut, PatientsPage, patient_out
from retigrade.serve.security import Administers, Reads, Writes
from retigrade.serve.service import Service, ServiceDep
from retigrade.serve.tables import PATIENT_CHARACTERS, PatientRecord

router = APIRouter(prefix=f"{PREFIX}/patients", tags=["patients"])

_PROBLEMS = described(401, 403, 404, 422, 429, 503)
_Id = Annotated[str, Path(min_length=1, max_length=PATIENT_CHARACTERS, examples=["P001"])]
_TIMELINE = {
    "type": "object",
    "required": ["patient", "eyes", "visits"],
    "properties": {
        "patient": {"type": "string"},
        "eyes": {"type": "array", "items": {"type": "object"}},
        "visits": {"type": "array", "items": {"type": "object"}},
    },
}


@router.get("", response_model=PatientsPage, responses=described(401, 403, 422, 429, 503))
def list_patients(
    service: ServiceDep,
    caller: Reads,
    search: Annotated[str, Query(max_length=PATIENT_CHARACTERS, description="A part of the id or the name.")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Any:
    """List patients by id."""
    text = check_line(search, of="a search", limit=PATIENT_CHARACTERS) or ""
    with service.database.reading() as session:
        found = record.find_patients(session, search=text, limit=limit, offset=offset)
    return PatientsPage(
        patients=[patient_out(known, address=_address(known.id)) for known in found], limit=limit, offset=offset
    )


@router.get(
    "/{patient:path}/timeline",
    responses={200: {"content": {"application/json": {"schema": _TIMELINE}}}, **_PROBLEMS},
)
def get_timeline(patient: _Id, service: ServiceDep, caller: Reads) -> Response:
    """Return each eye over its visits, and what is advised after each visit."""
    rows = _rows(service, patient)
    visits = list(visits_of(rows))
    timelines = timelines_of(visits, noise=service.grader.bundle.metadata.retest_noise)
    return JSONResponse(
        {
            "patient": patient,
            "eyes": [_timeline(timeline) for timeline in timelines],
            "visits": [json.loads(line) for line in patients_jsonl(visits).splitlines()],
        }
    )


def _timeline(timeline: Timeline) -> dict[str, Any]:
    return {
        "eye": timeline.eye.value,
        "direction": None if timeline.direction is None else timeline.direction.value,
        "since": None if timeline.since is None else timeline.since.isoformat(),
        "words": str(timeline),
        "points": [
            {
                "date": point.date.isoformat(),
                "grade": point.grade,
                "p_referable": point.p_referable,
                "expected_grade": round(point.expected_grade, 4),
            }
            for point in timeline.points
        ],
    }


@router.get(
    "/{patient:path}/fhir",
    responses={200: {"content": {FHIR_TYPE: {"schema": {"type": "object"}}}}, **_PROBLEMS},
)
async def get_fhir(
    patient: _Id,
    service: ServiceDep,
    caller: Reads,
    date: Annotated[datetime.date | None, Query(description="Of one visit alone.")] = None,
) -> Response:
    """Return the visits as a FHIR R4 transaction bundle, to post to any server; a second time makes no doubles."""
    rows = await asyncio.to_thread(_rows, service, patient)
    if date is not None:
        rows = [row for row in rows if row.date == date.isoformat()]
    if not rows:
        raise Problem(
            404, seen="a patient without gradings then", needed="a visit with a photograph", attempt="another date"
        )
    await asyncio.wrap_future(service.note(caller.name, "export fhir", {"gradings": len(rows)}))
    return JSONResponse(transaction_of(rows), media_type=FHIR_TYPE)


@router.get("/{patient:path}", response_model=PatientOut, responses=_PROBLEMS)
def get_patient(patient: _Id, service: ServiceDep, caller: Reads) -> Any:
    """Return what is known of a patient."""
    known = _find(service, patient)
    return patient_out(known, address=_address(known.id))


@router.put(
    "/{patient:path}",
    response_model=PatientOut,
    responses={201: {"model": PatientOut}, **described(400, 401, 403, 404, 413, 422, 429, 503)},
)
async def put_patient(patient: _Id, known: PatientIn, response: Response, service: ServiceDep, caller: Writes) -> Any:
    """Enter a patient, or change what is known of them."""
    name = None if known.name is None else check_line(known.name, of="a name", limit=PATIENT_CHARACTERS)
    check_past(known.birth_date, needed="a day of birth")
    identity = _identity(patient)
    written = service.writer.submit(
        partial(record.put_patient, patient=identity, name=name, birth_date=known.birth_date, actor=caller.name)
    )
    is_new = await asyncio.wrap_future(written)
    response.status_code = 201 if is_new else 200
    return patient_out(await asyncio.to_thread(_find, service, identity), address=_address(identity))


@router.delete("/{patient:path}", status_code=204, responses=_PROBLEMS)
async def delete_patient(patient: _Id, service: ServiceDep, caller: Administers) -> None:
    """Delete a patient with all gradings, readings and photographs; the audit log keeps that it was done."""
    identity = _identity(patient)
    deleted = service.writer.submit(partial(record.delete_patient, patient=identity, actor=caller.name))
    digests = await asyncio.wrap_future(deleted)
    if digests is None:
        raise _unknown()
    await asyncio.to_thread(service.forget_photos, digests)


def _rows(service: Service, patient: str) -> list[Row]:
    known = _find(service, patient)
    with service.database.reading() as session:
        return list(record.rows_of(record.gradings_of(session, known.id)))


def _find(service: Service, patient: str) -> PatientRecord:
    identity = _identity(patient)
    with service.database.reading() as session:
        known = record.find_patient(session, identity)
    if known is None:
        raise _unknown()
    return known


def _identity(patient: str) -> str:
    identity = patient_of(patient)
    if identity is None:
        raise Problem(422, seen="an empty patient", needed="an identifier", attempt="with the patient's own")
    return identity


def _address(patient: str) -> str:
    return f"{PREFIX}/patients/{quote(patient, safe='')}"


def _unknown() -> Problem:
    return Problem(
        404, seen="a patient whom nobody entered", needed="one with a grading, or one who was entered",
        attempt=f"GET {PREFIX}/patients lists them",
    )  # fmt: skip
