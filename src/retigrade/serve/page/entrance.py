"""The way in: signing in and out, what a browser loads, and the page that says what went wrong."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from retigrade.serve.page.forms import FormDep
from retigrade.serve.page.render import asset, page
from retigrade.serve.page.words import words
from retigrade.serve.problems import Problem, request_id
from retigrade.serve.security import CSRF_FIELD, Caller, Role, guard_of, needs

router = APIRouter()

_FOREVER = "public, max-age=31536000, immutable"
_TITLES = {401: "not_signed_in", 403: "not_allowed", 404: "not_found", 413: "too_large", 503: "busy", 500: "internal"}


@router.get("/login")
def sign_in_page(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """Ask for a token; a server that needs none goes on at once."""
    if guard_of(request).tokens is None:
        return RedirectResponse(_within(next), 303)
    return page(request, "login.html.j2", caller=None, next=_within(next), problem=None)


@router.post("/login")
def sign_in(request: Request, form: FormDep) -> Response:
    """Start a session, and go on where the caller was about to."""
    answer = RedirectResponse(_within(form.get("next", "/")), 303)
    try:
        guard_of(request).sign_in(request, answer, form.get("token", "").strip())
    except Problem as problem:
        if problem.status not in (401, 429):
            raise
        shown = page(
            request, "login.html.j2", caller=None, status=problem.status, next=_within(form.get("next", "/")),
            problem=problem,
        )  # fmt: skip
        shown.headers.update(problem.headers)
        return shown
    return answer


@router.post("/logout")
def sign_out(
    request: Request, caller: Annotated[Caller, Depends(needs(Role.READ, form=True))], form: FormDep
) -> Response:
    """End the session."""
    guard = guard_of(request)
    guard.check_csrf(caller, form.get(CSRF_FIELD))
    answer = RedirectResponse("/login", 303)
    guard.sign_out(caller, answer)
    return answer


@router.get("/static/{name}")
def static(name: str, v: str = "") -> Response:
    """Return a file that the page needs; one that is asked for by its version may be kept for ever."""
    known = asset(name)
    if known is None:
        raise Problem(
            404, seen="a file that the page does not have", needed="one that it names", attempt="load the page"
        )
    keep = _FOREVER if v == known.version else "no-cache"
    return Response(known.content, media_type=known.media_type, headers={"Cache-Control": keep})


def problem_page(request: Request, problem: Problem) -> Response:
    """Return what a person sees of a problem: the page that says it, or the one to sign in at."""
    if problem.status == 401:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?{urlencode({'next': here})}", 303)
    try:
        caller = guard_of(request).identify(request)
    except Problem:
        caller = None
    shown = page(
        request, "error.html.j2", caller=caller, status=problem.status, problem=problem,
        title=words()(f"error.{_TITLES.get(problem.status, 'bad_request')}"), request_id=request_id(request),
    )  # fmt: skip
    shown.headers.update(problem.headers)
    return shown


def _within(address: str) -> str:
    """Return an address on this server; any other becomes the start."""
    is_here = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_here else "/"
