"""What those who run the server ask it: is it there, can it work, what has it done, and what does it do?"""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from retigrade import __version__
from retigrade.icdr import Status
from retigrade.serve import record
from retigrade.serve.counters import CONTENT_TYPE
from retigrade.serve.exports import ExportFormat, export
from retigrade.serve.intake import patient_of
from retigrade.serve.problems import Problem, busy, database_problem, described
from retigrade.serve.rest.shapes import PREFIX, Health
from retigrade.serve.security import Reads
from retigrade.serve.service import Service, ServiceDep
from retigrade.serve.tables import PATIENT_CHARACTERS

router = APIRouter(tags=["operations"])
_FILES = {
    "swagger-ui-bundle.js": ("fastapi_offline", "static/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": ("fastapi_offline", "static/swagger-ui.css", "text/css"),
    "start.js": ("retigrade.serve.rest", "docs/start.js", "text/javascript"),
}
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@router.get("/health", response_model=Health)
async def health(service: ServiceDep) -> Any:
    """Say that the server runs."""
    return _health(service, "ok")


@router.get("/ready", response_model=Health, responses=described(503))
def ready(service: ServiceDep) -> Any:
    """Say that the server can grade: the database answers, and it is not about to end."""
    if service.is_closing:
        raise busy("a server that is about to end", needed="one that goes on")
    try:
        service.database.check()
    except SQLAlchemyError as error:
        raise database_problem(error) from error
    notes = [note] if (note := service.bundle_note()) else []
    return _health(service, "ready", notes)


def _health(service: Service, status: str, notes: list[str] | None = None) -> Health:
    return Health(status=status, version=__version__, bundle=service.grader.bundle.identity, notes=notes or [])


@router.get("/metrics", response_class=Response, responses=described(401, 403, 429))
async def metrics(service: ServiceDep, caller: Reads) -> Response:
    """Return figures for Prometheus."""
    return Response(service.counters.text(), media_type=CONTENT_TYPE)


@router.get(f"{PREFIX}/bundle", responses=described(401, 403, 429))
async def get_bundle(service: ServiceDep, caller: Reads) -> JSONResponse:
    """Return what the bundle says of itself: what it learned from, its measured figures, and what it may be used for.

    The digests of the photographs that it learned from and the numbers of its detector and quality head are left out.
    """
    metadata = service.grader.bundle.metadata
    hidden = {
        "training": {"photo_hashes", "annotated"},
        "out_of_distribution": {"mean", "scale", "components"},
        "quality_head": {"weights"},
    }
    values = metadata.model_dump(mode="json", exclude=hidden)
    point = service.grader.operating_point
    return JSONResponse(
        {
            "identity": service.grader.bundle.identity,
            "operating_point": point,
            "threshold": metadata.threshold(point),
            "metadata": values,
        }
    )


@router.get(
    f"{PREFIX}/export",
    response_class=Response,
    responses={
        200: {"content": {kind.media_type.partition(";")[0]: {} for kind in ExportFormat}},
        **described(401, 403, 422, 429, 503),
    },
)
async def get_export(
    service: ServiceDep,
    caller: Reads,
    format: ExportFormat = ExportFormat.CSV,
    patient: Annotated[str | None, Query(max_length=PATIENT_CHARACTERS)] = None,
    status: Status | None = None,
    grade: Annotated[int | None, Query(ge=0, le=4)] = None,
    referable: bool | None = None,
) -> Response:
    """Return the record as a file: gradings with their last readings as CSV or JSON lines, visits as CSV or FHIR.

    The advice on a visit rests on all of its photographs: `status`, `grade` and `referable`, which choose some of them,
    go with csv and jsonl alone.
    """
    if format.is_of_visits and any(value is not None for value in (status, grade, referable)):
        raise Problem(
            422, seen=f"an export as {format.value} of some photographs alone",
            needed="whole visits: advice rests on all of their photographs",
            attempt="leave out status, grade and referable, or export csv or jsonl",
        )  # fmt: skip
    query = record.Query(
        patient=None if patient is None else patient_of(patient), status=status, grade=grade, referable=referable
    )
    await run_in_threadpool(service.database.check)
    await asyncio.wrap_future(service.note(caller.name, "export", {"format": format.value}))
    return StreamingResponse(
        export(service.database, format, query),
        media_type=format.media_type,
        headers={"Content-Disposition": f'attachment; filename="{format.file_name}"'},
    )


@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """Return the page that explains this interface."""
    page = resources.files("retigrade.serve.rest").joinpath("docs", "index.html").read_text("utf-8")
    return HTMLResponse(page, headers={"Content-Security-Policy": _DOCS_POLICY})


@router.get("/docs/{name}", include_in_schema=False)
async def docs_file(name: str) -> Response:
    """Return one of the files that the page is made of; they are installed with the package."""
    if name not in _FILES:
        raise Problem(404, seen="another file", needed=f"one of {', '.join(_FILES)}", attempt="open /docs")
    package, path, media_type = _FILES[name]
    data = resources.files(package).joinpath(*path.split("/")).read_bytes()
    return Response(data, media_type=media_type, headers={"Cache-Control": "public, max-age=86400"})
