"""REST: photographs in, gradings out."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from retigrade.icdr import Status
from retigrade.serve import record
from retigrade.serve.intake import KEY_CHARACTERS, KEY_HEADER, grade_request, patient_of
from retigrade.serve.problems import Problem, described
from retigrade.serve.rest.shapes import PREFIX, GradingOut, GradingsOut, GradingsPage, grading_out
from retigrade.serve.security import Administers, Reads, Writes
from retigrade.serve.service import Service, ServiceDep
from retigrade.serve.tables import PATIENT_CHARACTERS, GradingRecord
from retigrade.serve.uploads import FILES

router = APIRouter(prefix=f"{PREFIX}/gradings", tags=["gradings"])

_FORM = {
    "type": "object",
    "required": [FILES],
    "additionalProperties": False,
    "properties": {
        FILES: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
        "patient": {"type": "string", "maxLength": PATIENT_CHARACTERS, "example": "P001"},
        "eye": {"type": "string", "enum": ["right", "left"]},
        "date": {"type": "string", "format": "date", "example": "2026-05-02"},
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}
_Text = Annotated[str | None, Query(max_length=PATIENT_CHARACTERS)]
_EXAMPLE = {
    "path": "eye.jpg", "status": "graded", "grade": 2, "stage": "moderate", "p0": 0.01, "p1": 0.07, "p2": 0.81,
    "p3": 0.09, "p4": 0.02, "p_referable": 0.92, "referable": True, "quality": 0.97, "reasons": [],
    "sha256": "c4832771738c68bb738ff2ba540f4747fada8e5916f4816eefe1fb231fed4084", "bundle": "retigrade@0123456789ab",
    "seconds": 0.03, "prediction_set": [2], "patient": "P001", "eye": "right", "date": "2026-05-02", "device": None,
    "field_of_view": None, "pixel_spacing": None, "schema": "retigrade.grading", "version": 1,
    "id": "57124838-d9df-4fb7-929d-7c608dbee4d4",
    "links": {
        "self": "/v1/gradings/57124838-d9df-4fb7-929d-7c608dbee4d4",
        "readings": "/v1/gradings/57124838-d9df-4fb7-929d-7c608dbee4d4/readings",
        "heat": "/v1/gradings/57124838-d9df-4fb7-929d-7c608dbee4d4/heat.png", "overlay": None, "photo": None,
    },
}  # fmt: skip
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {"content": {"application/json": {"example": {"gradings": [_EXAMPLE]}}}}
}


@router.post(
    "",
    status_code=201,
    response_model=GradingsOut,
    responses={**_CREATED, **described(400, 401, 403, 408, 409, 413, 415, 422, 429, 503)},
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
    idempotency_key: Annotated[str | None, Header(alias=KEY_HEADER, max_length=KEY_CHARACTERS)] = None,
) -> Response:
    """Grade photographs and keep the gradings.

    The body is multipart/form-data, with one or many `files` and the fields `patient`, `eye` and `date` once for all
    files or once for each; or the bytes of one photograph, with the same fields in the address. Every file gets a
    grading, in order, whose `status` may be an error. The same photograph of the same subject gets the grading that it
    has; a request with the Idempotency-Key of an earlier one gets the earlier one's answer.
    """
    given = {"patient": patient, "eye": eye, "date": date}
    records = await grade_request(request, service, actor=caller.name, given=given, name=name)
    body = {"gradings": [grading_out(service, known) for known in records]}
    return JSONResponse(body, 201, headers={"Location": body["gradings"][0]["links"]["self"]})


@router.get("", response_model=GradingsPage, responses=described(401, 403, 422, 429, 503))
def list_gradings(
    request: Request,
    response: Response,
    service: ServiceDep,
    caller: Reads,
    patient: _Text = None,
    status: Status | None = None,
    grade: Annotated[int | None, Query(ge=0, le=4)] = None,
    referable: bool | None = None,
    sort: Literal["created", "-created", "date", "-date", "grade", "-grade", "patient", "-patient"] = "-created",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Any:
    """List gradings, the last ones first; a header `Link` leads to the next page."""
    query = record.Query(
        patient=None if patient is None else patient_of(patient),
        status=status,
        grade=grade,
        referable=referable,
        sort=sort,
        limit=limit,
        offset=offset,
    )
    with service.database.reading() as session:
        records, total = record.find_gradings(session, query)
    if offset + len(records) < total and records:
        following = request.url.include_query_params(offset=offset + limit)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    gradings = [grading_out(service, known) for known in records]
    headers = dict(response.headers)
    headers.pop("content-length", None)
    return JSONResponse({"gradings": gradings, "total": total, "limit": limit, "offset": offset}, headers=headers)


@router.get("/{grading}", response_model=GradingOut, responses=described(401, 403, 404, 422, 429, 503))
def get_grading(grading: str, service: ServiceDep, caller: Reads) -> Any:
    """Return one grading."""
    return JSONResponse(grading_out(service, find_or_refuse(service, grading)))


@router.delete("/{grading}", status_code=204, responses=described(401, 403, 404, 422, 429, 503))
async def delete_grading(grading: str, service: ServiceDep, caller: Administers) -> None:
    """Delete a grading, its readings, and its photograph where one is kept."""
    find = partial(find_or_refuse, service, grading)
    known = await run_in_threadpool(find)
    deleted = service.writer.submit(partial(record.delete_grading, grading=known.id, actor=caller.name))
    sha256 = await asyncio.wrap_future(deleted)
    if sha256 is not None:
        await run_in_threadpool(service.forget_photos, [sha256])


def find_or_refuse(service: Service, grading: str, *, heat: bool = False) -> GradingRecord:
    """Return a grading by its id; Problem 404 where there is none."""
    known = None
    if grading.isascii() and grading.isprintable():
        with service.database.reading() as session:
            known = record.find_grading(session, grading, heat=heat)
    if known is None:
        raise Problem(
            404, seen="an id that no grading has", needed="the id of a grading",
            attempt=f"GET {PREFIX}/gradings lists them",
        )  # fmt: skip
    return known
