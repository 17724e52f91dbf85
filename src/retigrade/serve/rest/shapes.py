"""What the REST interface sends and takes, as its OpenAPI document describes it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from retigrade.output.rows import Row
from retigrade.serve.tables import PATIENT_CHARACTERS

if TYPE_CHECKING:
    from retigrade.serve.service import Service
    from retigrade.serve.tables import GradingRecord, PatientRecord, ReadingRecord

PREFIX = "/v1"
REASON_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where the rest of a grading is; heat is null without a grade, overlay and photo where no photograph is kept."""

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
class GradingsPage:
    """Some of the gradings that were asked for; total: how many there are."""

    gradings: list[GradingOut]
    total: int
    limit: int
    offset: int


class PatientIn(BaseModel):
    """What is known of a patient beside the identifier."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "Ada Example", "birth_date": "1961-04-30"}]}
    )

    name: Annotated[str | None, Field(max_length=PATIENT_CHARACTERS)] = None
    birth_date: datetime.date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientOut:
    """A patient."""

    id: str
    name: str | None
    birth_date: datetime.date | None
    created: datetime.datetime
    links: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientsPage:
    """Some of the patients."""

    patients: list[PatientOut]
    limit: int
    offset: int


class ReadingIn(BaseModel):
    """What a reader makes of a grading; grade: null where the reader finds the photograph ungradable."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reader": "Dr. Example", "grade": 3, "reason": "venous beading"}]},
    )

    reader: Annotated[str, Field(min_length=1, max_length=PATIENT_CHARACTERS)]
    grade: Annotated[int, Field(ge=0, le=4, strict=True)] | None
    reason: Annotated[str, Field(max_length=REASON_CHARACTERS)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOut:
    """What a reader made of a grading, beside the machine's answer."""

    id: str
    grading: str
    created: datetime.datetime
    reader: str
    grade: int | None
    reason: str
    machine_grade: int | None
    agrees: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsOut:
    """All readings of one grading, oldest first."""

    readings: list[ReadingOut]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the server runs and can work."""

    status: str
    version: str
    bundle: str
    notes: list[str]


def grading_out(service: Service, record: GradingRecord) -> dict[str, Any]:
    """Return a grading as JSON values."""
    here = f"{PREFIX}/gradings/{record.id}"
    has_heat = record.geometry is not None
    is_kept = service.photos is not None and service.photos.find(record.sha256) is not None
    links = {
        "self": here,
        "readings": f"{here}/readings",
        "heat": f"{here}/heat.png" if has_heat else None,
        "overlay": f"{here}/overlay.jpg" if has_heat and is_kept else None,
        "photo": f"{here}/photo.jpg" if is_kept else None,
    }
    return {**record.row, "id": record.id, "links": links}


def reading_out(reading: ReadingRecord, machine_grade: int | None) -> ReadingOut:
    """Return a reading as it is sent."""
    return ReadingOut(
        id=reading.id,
        grading=reading.grading,
        created=reading.created,
        reader=reading.reader,
        grade=reading.grade,
        reason=reading.reason,
        machine_grade=machine_grade,
        agrees=reading.grade == machine_grade,
    )


def patient_out(record: PatientRecord, *, address: str) -> PatientOut:
    """Return a patient as it is sent; address: of the patient."""
    links = {name: f"{address}/{name}" for name in ("timeline", "fhir")}
    return PatientOut(
        id=record.id,
        name=record.name,
        birth_date=record.birth_date,
        created=record.created,
        links={"self": address, **links},
    )
