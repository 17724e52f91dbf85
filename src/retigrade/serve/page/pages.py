"""The pages of gradings and patients, of statistics, and of the bundle."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from markupsafe import Markup

from retigrade.errors import UsageError
from retigrade.output.progression import timeline_svg, timelines_of
from retigrade.serve import record
from retigrade.serve.intake import subject_of
from retigrade.serve.page import statistics
from retigrade.serve.page.forms import FormDep, NamesDep, reading_of
from retigrade.serve.page.items import Item, ShownVisit, items_of, visits_shown
from retigrade.serve.page.render import page
from retigrade.serve.page.worklist import export_address
from retigrade.serve.problems import Problem
from retigrade.serve.rest.gradings import find_or_refuse
from retigrade.serve.security import CSRF_FIELD, Caller, Reads, Role, guard_of, needs
from retigrade.serve.service import Service, ServiceDep
from retigrade.serve.tables import PATIENT_CHARACTERS
from retigrade.subjects import PATTERNS, NamePattern

router = APIRouter()

_Text = Annotated[str, Query(max_length=PATIENT_CHARACTERS)]


@router.get("/")
def start(
    request: Request, service: ServiceDep, caller: Reads, patient: _Text = "", eye: _Text = "", date: _Text = ""
) -> HTMLResponse:
    """Show where photographs are graded, with the visit that more are added to."""
    subject = subject_of(patient, eye, date)
    visits: list[ShownVisit] = []
    if subject.patient is not None:
        day = None if subject.date is None else subject.date.isoformat()
        visits = [shown for shown in _visits(service, subject.patient) if shown.visit.date == day]
    return page(
        request, "grade.html.j2", caller=caller, place="grade", scripts=("viewer.js", "grade.js"),
        subject=subject, patterns=list(PATTERNS),
        max_bytes=service.config.max_bytes, keeps=service.config.keep_photos is not None,
        visits=visits, **_card_values(service),
    )  # fmt: skip


@router.get("/gradings/{grading}")
def grading(request: Request, service: ServiceDep, caller: Reads, grading: str) -> HTMLResponse:
    """Show one grading, and the others of its photograph."""
    known = find_or_refuse(service, grading)
    with service.database.reading() as session:
        (item,) = items_of(session, service, [known])
        others = items_of(session, service, record.others_of(session, known))
    return page(
        request, "grading.html.j2", caller=caller, place="worklist", scripts=("viewer.js",), item=item,
        later=others[0] if others and others[0].created > item.created else None, others=others,
        **_card_values(service),
    )  # fmt: skip


@router.get("/gradings/{grading}/card")
def card(
    request: Request, service: ServiceDep, caller: Reads, grading: str, level: Annotated[int, Query(ge=1, le=6)] = 2
) -> HTMLResponse:
    """Return the piece of a page that shows one grading; level: of its heading."""
    item = _item(service, grading)
    return page(request, "card.html.j2", caller=caller, item=item, level=level, **_card_values(service))


@router.post("/gradings/{grading}/readings")
def read(
    service: ServiceDep,
    request: Request,
    caller: Annotated[Caller, Depends(needs(Role.WRITE, form=True))],
    form: FormDep,
    grading: str,
) -> Response:
    """Keep what a reader made of a grading beside the machine's answer."""
    guard_of(request).check_csrf(caller, form.get(CSRF_FIELD))
    known = find_or_refuse(service, grading)
    grade, reader, reason = reading_of(form, machine=known.grade)
    service.writer.submit(
        lambda session: record.add_reading(
            session, grading, reader=reader, grade=grade, reason=reason, actor=caller.name
        )
    ).result()
    return RedirectResponse(f"/gradings/{grading}", 303)


@router.get("/visit")
def visit(request: Request, service: ServiceDep, caller: Reads, patient: _Text, date: _Text = "") -> HTMLResponse:
    """Return the piece of a page that shows one visit."""
    shown = next((shown for shown in _visits(service, patient) if (shown.visit.date or "") == date), None)
    if shown is None:
        raise _no_patient()
    return page(request, "visit.html.j2", caller=caller, shown_visit=shown, **_card_values(service))


@router.get("/patient")
def patient(
    request: Request, service: ServiceDep, caller: Reads, id: Annotated[str, Query(max_length=PATIENT_CHARACTERS)]
) -> HTMLResponse:
    """Show a patient: the timeline and every visit."""
    visits = _visits(service, id)
    if not visits:
        raise _no_patient()
    noise = service.grader.bundle.metadata.retest_noise
    lines = timelines_of((shown.visit for shown in visits), noise=noise)
    export = {kind: export_address(kind, patient=id) for kind in ("csv", "json", "fhir")}
    return page(
        request, "patient.html.j2", caller=caller, place="worklist", scripts=("viewer.js",), patient=id, visits=visits,
        timelines=[{"eye": line.eye.value, "words": str(line), "svg": Markup(timeline_svg(line))} for line in lines],
        noise=noise, export=export, **_card_values(service),
    )  # fmt: skip


@router.get("/statistics")
def show_statistics(
    request: Request,
    service: ServiceDep,
    caller: Reads,
    days: Annotated[str, Query(pattern=r"^\d{0,5}$")] = "",
    bundle: Annotated[str, Query(max_length=100)] = "",
) -> HTMLResponse:
    """Show what the record comes to."""
    training = service.grader.bundle.metadata.training
    with service.database.reading() as session:
        counted = statistics.shown(session, training, days=int(days or 0), bundle=bundle)
        names = statistics.bundles(session)
    return page(
        request, "statistics.html.j2", caller=caller, place="statistics", found=counted,
        months_svg=Markup(statistics.months_svg(counted.months)), periods=statistics.PERIODS, bundles=names,
        chosen={"days": int(days or 0), "bundle": bundle},
    )  # fmt: skip


@router.get("/about")
def about(request: Request, service: ServiceDep, caller: Reads) -> HTMLResponse:
    """Show what the bundle is, learned from, measured at, and may be used for."""
    metadata, point = service.grader.bundle.metadata, service.grader.operating_point
    return page(
        request, "about.html.j2", caller=caller, place="about", metadata=metadata, operating_point=point,
        threshold=metadata.threshold(point),
    )  # fmt: skip


@router.post("/subjects")
def subjects(_caller: Reads, given: NamesDep) -> JSONResponse:
    """Return whom the names of files speak of, by a pattern, in their order; null where it does not fit."""
    try:
        pattern = NamePattern.of(given["pattern"] if given["pattern"] in PATTERNS else "")
    except UsageError:
        raise Problem(
            422, seen="an unknown pattern", needed=f"one of {', '.join(PATTERNS)}", attempt="use the page"
        ) from None
    return JSONResponse([_subject(pattern, name) for name in given["names"]])


def _subject(pattern: NamePattern, name: str) -> dict[str, str | None] | None:
    found = pattern.subject(PurePosixPath(name))
    if found is None or found[1]:  # what cannot be read is for a person to type
        return None
    subject, _ = found
    return {
        "patient": subject.patient,
        "eye": None if subject.eye is None else subject.eye.value,
        "date": None if subject.date is None else subject.date.isoformat(),
    }


def _item(service: Service, grading: str) -> Item:
    known = find_or_refuse(service, grading)
    with service.database.reading() as session:
        (item,) = items_of(session, service, [known])
    return item


def _visits(service: Service, patient: str) -> list[ShownVisit]:
    with service.database.reading() as session:
        return list(visits_shown(items_of(session, service, record.gradings_of(session, patient))))


def _card_values(service: Service) -> dict[str, Any]:
    """Return what the pieces that show a grading ask for."""
    metadata = service.grader.bundle.metadata
    return {
        "threshold": metadata.threshold(service.grader.operating_point),
        "coverage": None if metadata.conformal is None else metadata.conformal.coverage,
    }


def _no_patient() -> Problem:
    return Problem(
        404, seen="a patient or a visit without gradings", needed="one whose photographs were graded here",
        attempt="search for it in the worklist",
    )  # fmt: skip
