"""What those who run the server ask it: is it there, and can it work?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from retigrade import __version__
from retigrade.serve.problems import database_problem, described
from retigrade.serve.service import ServiceDep
from retigrade.serve.shapes import Health

router = APIRouter(tags=["operations"])


@router.get("/health", response_model=Health)
async def health() -> dict[str, Any]:
    """Say that the server runs."""
    return {"status": "ok", "version": __version__}


@router.get("/ready", response_model=Health, responses=described(503))
def ready(service: ServiceDep) -> dict[str, Any]:
    """Say that the server can grade: the database answers, and it is not about to end."""
    try:
        service.database.check()
    except SQLAlchemyError as error:
        raise database_problem(error) from error
    return {"status": "ready", "version": __version__}
