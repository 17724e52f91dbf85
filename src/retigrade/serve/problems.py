"""Errors as a client reads them: problem+json (RFC 9457) that says what was seen, what is needed and what to try."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from retigrade.text import shown

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
_logger = logging.getLogger(__name__)


class Problem(Exception):
    """A request that is not served, and why.

    seen: what the request held or the server met. needed: what would be served. attempt: what to do next.
    """

    def __init__(
        self, status: int, *, seen: str, needed: str, attempt: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Texts are one clause each, without a full stop."""
        super().__init__(f"{seen}; {needed}; {attempt}")
        self.status, self.seen, self.needed, self.attempt = status, shown(seen), needed, attempt
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> Response:
        """Return the problem as an answer."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": f"{self.seen}; {self.needed}; {self.attempt}.",
            "instance": f"urn:retigrade:request:{request_id}",
            "seen": self.seen,
            "needed": self.needed,
            "try": self.attempt,
        }
        return JSONResponse(body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


class ProblemOut(BaseModel):
    """A problem as JSON (RFC 9457), with three members of its own."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    seen: str
    needed: str
    attempt: str = Field(alias="try")


def busy(seen: str, *, needed: str = "fewer at once") -> Problem:
    """Return the problem of a server that has too much to do."""
    return Problem(
        503,
        seen=seen,
        needed=needed,
        attempt=f"again in {RETRY_SECONDS} s",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def fault() -> Problem:
    """Return the problem of a server that has a fault of its own."""
    return Problem(500, seen="an internal error", needed="a fix", attempt="report the number of the request")


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems that a route may answer with, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/ProblemOut"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def request_id(request: Request) -> str:
    """Return the number that the log has for a request."""
    return str(request.scope.get("request_id", ""))


Answer = Callable[[Request, Problem], Response]
"""Makes what a client sees of a problem."""


def install(app: FastAPI, *, page: Answer) -> Answer:
    """Let every error of the application leave as a problem, and return what makes an answer of one.

    page: makes what a person with a browser sees of it.
    """

    def answer(request: Request, problem: Problem) -> Response:
        return page(request, problem) if wants_page(request) else problem.response(request_id(request))

    def from_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return answer(request, error)

    def from_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        seen, needed, attempt = f"{request.method} {request.url.path}", "another request", "see /docs"
        if error.status_code == 404:
            needed, attempt = "an address that this server has", "see /docs for the addresses that there are"
        if error.status_code == 405:
            needed = f"one of {(error.headers or {}).get('Allow', 'another method')}"
        problem = Problem(error.status_code, seen=seen, needed=needed, attempt=attempt, headers=error.headers)
        return answer(request, problem)

    def from_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        problem = Problem(
            422, seen=f"{where} that cannot be used", needed=str(first["msg"])[:300], attempt="see /docs for the form"
        )
        return answer(request, problem)

    def from_database(request: Request, error: Exception) -> Response:
        _logger.warning("request %s: the database failed: %s", request_id(request), type(error).__name__)
        return answer(request, database_problem(error))

    app.add_exception_handler(Problem, from_problem)
    app.add_exception_handler(HTTPException, from_http)
    app.add_exception_handler(RequestValidationError, from_validation)
    app.add_exception_handler(SQLAlchemyError, from_database)
    return answer


def database_problem(error: Exception) -> Problem:
    """Return the answer to a client where the database did not take or give something; it holds no data."""
    words = str(getattr(error, "orig", None) or error).casefold()
    for sign, seen in (
        ("readonly", "the database is read-only"),
        ("read-only", "the database is read-only"),
        ("full", "the disk or the database is full"),
        ("no space", "the disk or the database is full"),
        ("locked", "the database is locked by another program"),
        ("lock timeout", "the database is locked by another program"),
    ):
        if sign in words:
            return busy(seen, needed="a database that can be written; nothing of this request was kept")
    return busy("the database does not answer", needed="a database that answers; nothing of this request was kept")


def wants_page(request: Request) -> bool:
    """Whether a person with a browser waits for the answer."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")
