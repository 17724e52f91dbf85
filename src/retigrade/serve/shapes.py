"""What the REST interface sends and takes, as its OpenAPI document describes it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retigrade.output.rows import Row

if TYPE_CHECKING:
    from retigrade.serve.tables import GradingRecord

PREFIX = "/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where the rest of a grading is; heat is null without a grade, photo and overlay where no photograph is kept."""

    self: str
    readings: str
    heat: str | None
    overlay: str | None
    photo: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingOut(Row):
    """A line of gradings.jsonl, with the grading's id and links."""

    id: str
    links: Links


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingsOut:
    """The gradings of one request, in the order of its files."""

    gradings: list[GradingOut]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the server runs."""

    status: str
    version: str


def grading_out(record: GradingRecord, *, kept: bool) -> dict[str, Any]:
    """Return a grading as JSON values; kept: whether its photograph is."""
    here = f"{PREFIX}/gradings/{record.id}"
    has_heat = record.geometry is not None
    links = {
        "self": here,
        "readings": f"{here}/readings",
        "heat": f"{here}/heat.png" if has_heat else None,
        "overlay": f"{here}/overlay.jpg" if has_heat and kept else None,
        "photo": f"{here}/photo.jpg" if kept else None,
    }
    return {**record.row, "id": record.id, "links": links}


def today() -> datetime.date:
    """Return the day."""
    return datetime.datetime.now(datetime.UTC).date()
