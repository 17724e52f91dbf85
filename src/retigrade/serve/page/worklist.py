"""The worklist's page, the rows that its script asks for, and what is exported from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from retigrade.output.fhir import visit_bundle
from retigrade.output.patients import patients_csv, patients_jsonl
from retigrade.output.rows import csv_header, csv_line, json_line, row_of
from retigrade.output.worklist import TILES_SCRIPT, WORKLIST_SCRIPT, filters
from retigrade.serve.page import listing
from retigrade.serve.page.listing import WorklistQuery
from retigrade.serve.page.render import page
from retigrade.serve.page.words import words
from retigrade.serve.problems import Problem
from retigrade.serve.security import Reads
from retigrade.serve.service import Service, ServiceDep

router = APIRouter()

_ROWS = 60  # in one answer, at most
_TOGETHER = 500  # lines of an export that are sent at once
_FHIR_VISITS = 2000
_Format = Literal["csv", "json", "fhir"]
_TYPES: dict[_Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/x-ndjson",
    "fhir": "application/fhir+json",
}


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
    service: ServiceDep, _caller: Reads, query: Annotated[WorklistQuery, Query()], format: _Format = "csv"
) -> Response:
    """Return what the worklist shows as the command line writes it: its CSV, its JSON lines, or one FHIR bundle."""
    stem = "visits" if format == "fhir" else "patients" if query.view == "patients" else "gradings"
    suffix = {"csv": "csv", "json": "jsonl", "fhir": "fhir.json"}[format]
    content = iter([_fhir(service, query)]) if format == "fhir" else _lines(service, query, format)
    return StreamingResponse(
        content,
        media_type=_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{stem}.{suffix}"'},
    )


def export_address(format: str, *, patient: str) -> str:
    """Return where one patient's gradings are exported from."""
    return f"/worklist/export?{urlencode({'format': format, 'view': 'photographs', 'patient': patient})}"


def _lines(service: Service, query: WorklistQuery, format: _Format) -> Iterator[str]:
    """Yield the file some lines at a time."""
    with service.database.reading() as session:
        if query.view == "patients":
            visits = listing.visits_found(session, query)
            yield patients_csv(visits) if format == "csv" else patients_jsonl(visits)
            return
        if format == "csv":
            yield csv_header()
        line = csv_line if format == "csv" else json_line
        lines = (line(row_of(known.row)) for known in listing.photographs_found(session, query))
        while together := "".join(islice(lines, _TOGETHER)):
            yield together


def _fhir(service: Service, query: WorklistQuery) -> str:
    """Return one transaction for all visits; what several of them share is in it once."""
    entries: dict[str, object] = {}
    with service.database.reading() as session:
        for count, visit in enumerate(listing.visits_found(session, query), 1):
            if count > _FHIR_VISITS:
                raise Problem(
                    422, seen=f"more than {_FHIR_VISITS} visits", needed="fewer in one FHIR bundle",
                    attempt="filter the worklist, by dates for instance",
                )  # fmt: skip
            best = [eye.best.bundle for eye in visit.eyes if eye.best is not None]
            bundle = visit_bundle(visit, bundle=best[0] if best else service.grader.bundle.identity)
            entries.update((entry["fullUrl"], entry) for entry in bundle["entry"])
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": list(entries.values())}, indent=1)
