"""How the page is drawn: its templates and what every one of them knows, and the files that a browser loads for it."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from retigrade import __version__
from retigrade.icdr import Status
from retigrade.metrics.estimate import Estimate
from retigrade.output.worklist import TILES_SCRIPT, WORKLIST_SCRIPT, json_text, script_text
from retigrade.report.style import environment
from retigrade.serve.page.words import words
from retigrade.serve.security import Caller, Role, guard_of
from retigrade.serve.service import service_of

if TYPE_CHECKING:
    import jinja2

_PACKAGE = "retigrade.serve.page"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ALWAYS = ("page.js",)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that a browser loads; version: changes with its content."""

    content: bytes
    media_type: str
    version: str


@cache
def asset(name: str) -> Asset | None:
    """Return the style sheet, a script or a picture of the page by its name; None where there is none such."""
    suffix = f".{name.rpartition('.')[2]}"
    if name == "page.css":
        content = _templates().get_template("page.css.j2").render().encode()
    elif name in (TILES_SCRIPT, WORKLIST_SCRIPT):
        content = script_text(name).encode()
    else:
        folder = resources.files(_PACKAGE).joinpath("static")
        file = next((entry for entry in folder.iterdir() if entry.name == name and suffix in _TYPES), None)
        if file is None:
            return None
        content = file.read_bytes()
    return Asset(content, _TYPES[suffix], hashlib.sha256(content).hexdigest()[:12])


def page(
    request: Request,
    name: str,
    *,
    caller: Caller | None,
    place: str = "",
    scripts: tuple[str, ...] = (),
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """Return a page, or a piece of one.

    name: its template. caller: None where nobody is signed in. place: which entry of the navigation it is. scripts: of
    this page, beside those of every page. values: what its template asks for.
    """
    guard, service = guard_of(request), service_of(request)
    content = (
        _templates()
        .get_template(name)
        .render(
            user=caller,  # `caller` means something else to Jinja
            csrf="" if caller is None else guard.csrf_token(caller),
            signed_in=guard.tokens is not None,
            may_write=caller is not None and caller.role >= Role.WRITE,
            place=place,
            scripts=(*_ALWAYS, *scripts),
            bundle=service.grader.bundle.identity if caller is not None else None,
            **values,
        )
    )
    return HTMLResponse(content, status)


def patient_address(patient: str) -> str:
    """Return where a patient's page is; identifiers may hold any character."""
    return f"/patient?{urlencode({'id': patient})}"


def add_address(patient: str, *, eye: str | None = None, date: str | None = None) -> str:
    """Return where photographs of a patient, an eye and a visit are added."""
    known = {"patient": patient, "eye": eye, "date": date}
    return f"/?{urlencode({name: value for name, value in known.items() if value})}"


@cache
def _templates() -> jinja2.Environment:
    made = environment(_PACKAGE, "retigrade.output")
    made.filters.update(moment=_moment, percent=_percent, interval=_interval)
    made.globals.update(
        t=words(),
        version=__version__,
        asset=_address,
        pictured=lambda item: item.row.status != Status.ERROR,  # what cannot be read has nothing to look at
        patient_address=patient_address,
        add_address=add_address,
        script_words=Markup(json_text(_script_words())),
    )
    return made


def _script_words() -> dict[str, object]:
    statuses = {f"status_{status}": text for status, text in words().below("status").items()}
    return {**words().below("script"), **statuses, "stages": list(words().below("stage").values())}


def _address(name: str) -> str:
    found = asset(name)
    if found is None:
        raise LookupError(name)
    return f"/static/{name}?v={found.version}"


def _moment(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _percent(share: float | Estimate | None) -> str:
    value = share.value if isinstance(share, Estimate) else share
    if value is None:
        return "–"
    return f"{100 * value:.0f} %" if value in (0, 1) or value >= 0.1 else f"{100 * value:.1f} %"


def _interval(share: Estimate) -> str:
    if share.low is None or share.high is None:
        return ""
    return f"({100 * share.low:.0f}–{100 * share.high:.0f})"
