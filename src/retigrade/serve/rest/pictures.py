"""REST: the thermal map of a grading, and its photograph where one is kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import Photo, decode
from retigrade.output.overlay import as_jpeg, fitted, thermal
from retigrade.serve.problems import Problem, described
from retigrade.serve.record import heatmap_of
from retigrade.serve.rest.gradings import find_or_refuse
from retigrade.serve.rest.shapes import PREFIX
from retigrade.serve.security import Reads
from retigrade.serve.service import Service, ServiceDep
from retigrade.serve.tables import GradingRecord

router = APIRouter(prefix=f"{PREFIX}/gradings", tags=["pictures"])

_Side = Annotated[int, Query(ge=32, le=4096, description="Pixels of the longer side, at most.")]
_PROBLEMS = described(401, 403, 404, 422, 429, 503)
_PRIVATE = {"Cache-Control": "private, max-age=3600"}  # it never changes


@router.get(
    "/{grading}/heat.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **_PROBLEMS},
)
def get_heat(grading: str, service: ServiceDep, caller: Reads, side: _Side = 1024) -> Response:
    """Return the thermal map, transparent where it is cool, to lay over the photograph."""
    known = find_or_refuse(service, grading, heat=True)
    heatmap = heatmap_of(known)
    if heatmap is None:
        raise _no_map()
    scale = min(1.0, side / max(heatmap.width, heatmap.height))
    size = max(1, round(heatmap.width * scale)), max(1, round(heatmap.height * scale))
    return Response(heatmap.as_png(*size), media_type="image/png", headers=_PRIVATE)


@router.get(
    "/{grading}/overlay.jpg",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **_PROBLEMS},
)
def get_overlay(grading: str, service: ServiceDep, caller: Reads, side: _Side = 1024) -> Response:
    """Return the photograph in grey with the thermal map over it, where the photograph is kept."""
    known = find_or_refuse(service, grading, heat=True)
    heatmap = heatmap_of(known)
    if heatmap is None:
        raise _no_map()
    small = fitted(_photo(service, known, side=side).pixels, side)
    height, width = small.shape[:2]
    return Response(as_jpeg(thermal(small, heatmap.in_frame(width, height))), media_type="image/jpeg", headers=_PRIVATE)


@router.get(
    "/{grading}/photo.jpg",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **_PROBLEMS},
)
def get_photo(grading: str, service: ServiceDep, caller: Reads, side: _Side = 1024) -> Response:
    """Return the photograph upright, without what its file says beside the pixels, where it is kept."""
    known = find_or_refuse(service, grading)
    return Response(
        as_jpeg(fitted(_photo(service, known, side=side).pixels, side)), media_type="image/jpeg", headers=_PRIVATE
    )


def _photo(service: Service, known: GradingRecord, *, side: int) -> Photo:
    path = None if service.photos is None else service.photos.find(known.sha256)
    if path is None:
        seen = "a photograph that is not kept" if service.photos is None else "a photograph that is not kept any more"
        raise Problem(
            404, seen=seen, needed="a server that keeps photographs (--keep-photos DIR), within their time",
            attempt="lay heat.png over your own copy of the photograph",
        )  # fmt: skip
    try:
        return decode(path, min_side=side)
    except UnreadablePhoto:
        raise Problem(
            404, seen="a photograph that cannot be read any more", needed="the file as it was",
            attempt="lay heat.png over your own copy of the photograph",
        ) from None  # fmt: skip


def _no_map() -> Problem:
    return Problem(
        404, seen="a grading without a grade", needed="a photograph that could be graded",
        attempt="see its status and reasons",
    )  # fmt: skip
