"""The application: its routes and what surrounds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from retigrade import __version__
from retigrade.grader import Grader
from retigrade.serve import gradings, operations, page, problems
from retigrade.serve.config import LOOPBACK, ServeConfig
from retigrade.serve.middleware import Gate
from retigrade.serve.security import SCHEMES
from retigrade.serve.service import Service

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
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="Retigrade",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    problems.install(app, page=page.problem_page)
    app.include_router(gradings.router, dependencies=SCHEMES)
    app.include_router(operations.router)
    app.include_router(page.router)
    hosts = frozenset({*LOOPBACK, config.host}) if config.token_file is None else None
    app.add_middleware(Gate, hosts=hosts)
    return app
