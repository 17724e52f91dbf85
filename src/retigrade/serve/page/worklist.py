"""The worklist's page, the rows that its script asks for, and what is exported from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from retigrade.output.patients import patients_csv, patients_jsonl
from retigrade.output.worklist import TILES_SCRIPT, WORKLIST_SCRIPT, filters
from retigrade.serve.exports import ExportFormat, write
from retigrade.serve.fhir import transaction_of
from retigrade.serve.page import listing
from retigrade.serve.page.listing import WorklistQuery
from retigrade.serve.page.render import page
from retigrade.serve.page.words import words
from retigrade.serve.security import Reads
from retigrade.serve.service import Service, ServiceDep

router = APIRouter()

_ROWS = 60  # in one answer, at most
_TOGETHER = 500  # pieces of an export that are sent at once
_Format = Literal["csv", "json", "fhir"]
_KINDS = {"csv": ExportFormat.CSV, "json": ExportFormat.JSONL, "fhir": ExportFormat.FHIR}


@router.get("/worklist")
def worklist(request: Request, service: ServiceDep, caller: Reads) -> HTMLResponse:
    """Show the list of patients and photographs; its rows are asked for by its script."""
    with service.database.reading() as session:
        photographs, patients = listing.totals(session)
        actions = listing.action_counts(session)
    return page(
        request, "worklist.html.j2", caller=caller, place="worklist",
        scripts=(TILES_SCRIPT, "worklist_server.js", WORKLIST_SCRIPT),
        photographs=photographs, patients=patients, actions=list(actions.items()),
        filtered=filters(patients=True, readings=True, unsorted=words()("worklist.unsorted")),
    )  # fmt: skip


@router.get("/worklist/rows")
def rows(
    service: ServiceDep,
    _caller: Reads,
    query: Annotated[WorklistQuery, Query()],
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_ROWS)] = 24,
) -> JSONResponse:
    """Return one screenful of the worklist."""
    with service.database.reading() as session:
        listed = listing.list_page(session, service, query, start=offset, count=limit)
    return JSONResponse({"found": listed.found, "all": listed.all, "items": listed.items})


@router.get("/worklist/export")
def export(
    service: ServiceDep, caller: Reads, query: Annotated[WorklistQuery, Query()], format: _Format = "csv"
) -> Response:
    """Return what the worklist shows as a file: visits, or photographs with their readings; or visits as FHIR."""
    kind = ExportFormat.PATIENTS if query.view == "patients" and format == "csv" else _KINDS[format]
    name = "patients.jsonl" if query.view == "patients" and format == "json" else kind.file_name
    service.note(caller.name, "export", {"format": format, "view": query.view}).result()
    return StreamingResponse(
        _pieces(service, query, kind),
        media_type=kind.media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def export_address(format: str, *, patient: str) -> str:
    """Return where one patient's gradings are exported from."""
    return f"/worklist/export?{urlencode({'format': format, 'view': 'photographs', 'patient': patient})}"


def _pieces(service: Service, query: WorklistQuery, kind: ExportFormat) -> Iterator[str]:
    """Yield the file some lines at a time."""
    with service.database.reading() as session:
        if kind is ExportFormat.FHIR:
            found = list(listing.visits_found(session, query))
            dated = {visit.patient for visit in found if visit.has_dated_visits}
            rows = chain.from_iterable(visit.rows for visit in found)
            yield json.dumps(transaction_of(rows, dated=dated), allow_nan=False) + "\n"
        elif query.view == "patients":
            visits = (found.visit() for found in listing.visits_found(session, query))
            yield patients_csv(visits) if kind is ExportFormat.PATIENTS else patients_jsonl(visits)
        else:
            lines = write(kind, listing.photographs_found(session, query))
            while together := "".join(islice(lines, _TOGETHER)):
                yield together
