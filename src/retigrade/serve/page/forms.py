"""What the page's forms and scripts send, read with limits."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from retigrade.icdr import GRADES
from retigrade.serve.intake import check_line
from retigrade.serve.problems import Problem
from retigrade.serve.rest.shapes import REASON_CHARACTERS
from retigrade.serve.service import service_of
from retigrade.serve.tables import PATIENT_CHARACTERS
from retigrade.serve.uploads import arriving

_FORM_BYTES = 64 * 1024
_NAMES_BYTES = 2**20


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form as browsers send it; Problem 413 or 415 where it is something else, 408 too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/x-www-form-urlencoded":
        raise Problem(
            415, seen=f"content of the type {kind[:100] or '(none)'}", needed="a form", attempt="use the page"
        )
    return dict(parse_qsl((await _body(request, _FORM_BYTES)).decode("utf-8", "replace"), keep_blank_values=True))


async def read_names(request: Request) -> dict[str, Any]:
    """Return the JSON object that a script of the page sends; Problem as in `read_form`, 422 for other content."""
    try:
        given = json.loads(await _body(request, _NAMES_BYTES))
    except ValueError:
        given = None
    names = given.get("names") if isinstance(given, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Problem(422, seen="no list of names", needed='{"pattern": ..., "names": [...]}', attempt="use the page")
    return {"pattern": str(given.get("pattern")), "names": names}


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in arriving(request, service_of(request).config):
        body += chunk
        if len(body) > limit:
            raise Problem(413, seen=f"more than {limit} bytes in a form", needed="less", attempt="shorten its texts")
    return bytes(body)


FormDep = Annotated[dict[str, str], Depends(read_form)]
NamesDep = Annotated[dict[str, Any], Depends(read_names)]


def reading_of(form: dict[str, str], *, machine: int | None) -> tuple[int | None, str, str]:
    """Return grade, reader and reason of a form; Problem 422 where one is missing or cannot be."""
    answers = {"ungradable": None, **{str(int(grade)): int(grade) for grade in GRADES}}
    given = form.get("grade", "")
    if given not in answers:
        raise Problem(422, seen="a reading without a grade", needed="a stage, or no grade", attempt="choose one")
    reader = _line(form, "reader", limit=PATIENT_CHARACTERS)
    if reader is None:
        raise Problem(422, seen="a reading without a name", needed="the reader's name", attempt="fill it in")
    reason = _line(form, "reason", limit=REASON_CHARACTERS) or ""
    if answers[given] != machine and not reason:
        raise Problem(
            422, seen="a grade that differs from the machine's, without a reason", needed="the reason",
            attempt="write a few words on what you see",
        )  # fmt: skip
    return answers[given], reader, reason


def _line(form: dict[str, str], name: str, *, limit: int) -> str | None:
    """Return a field as one line: a browser lets people write several."""
    return check_line(" ".join(form.get(name, "").split()), of=f"a {name}", limit=limit)
