"""The application: its routes and what surrounds them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.concurrency import run_in_threadpool

from retigrade import __version__
from retigrade.grader import Grader
from retigrade.serve import page, problems
from retigrade.serve.config import LOOPBACK, ServeConfig
from retigrade.serve.intake import KEY_HEADER
from retigrade.serve.middleware import Gate
from retigrade.serve.problems import ProblemOut
from retigrade.serve.rest import gradings, operations, patients, pictures, readings
from retigrade.serve.security import SCHEMES
from retigrade.serve.service import Service

_TIDY_SECONDS = 3600
_logger = logging.getLogger(__name__)
_DESCRIPTION = """Grades diabetic retinopathy in fundus photographs, and keeps the gradings of patients.

Research use only, not a medical device."""


def create_app(config: ServeConfig, *, grader: Grader | None = None) -> FastAPI:
    """Return the application, its bundle and database open; `app.state.service` is its state.

    grader: one that is loaded already. Raises BundleError or UsageError where bundle, database or token file cannot be
    used.
    """
    service = Service.open(config, grader=grader)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(service))
        yield
        tidying.cancel()
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="Retigrade",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    answer = problems.install(app, page=page.problem_page)
    for part in (gradings, pictures, readings, patients, operations):
        app.include_router(part.router, dependencies=None if part is operations else SCHEMES)
    app.include_router(page.router)
    _describe(app)
    hosts = frozenset({*LOOPBACK, config.host}) if config.token_file is None else None
    if config.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", KEY_HEADER],
        )
    app.add_middleware(Gate, config=config, counters=service.counters, hosts=hosts, answer=answer)
    return app


async def _tidy(service: Service) -> None:
    while True:
        try:
            await run_in_threadpool(service.tidy)
        except Exception as error:  # the disk may be full or away for a while: the next hour's is another try
            _logger.error("what is kept for too long could not be deleted: %s", type(error).__name__, exc_info=True)
        await asyncio.sleep(_TIDY_SECONDS)


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI document, which is made when it is first asked for, what problems look like."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        document["components"]["schemas"]["ProblemOut"] = ProblemOut.model_json_schema(by_alias=True)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
