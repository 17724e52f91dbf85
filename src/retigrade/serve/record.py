"""The patient record: gradings, patients and readings, written and found in one transaction each."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, exists, func, or_, select
from sqlalchemy.orm import Session, aliased, undefer

from retigrade.fundus.field import Field
from retigrade.grading import Grading, Subject
from retigrade.heatmap import Heatmap
from retigrade.icdr import Status
from retigrade.output.rows import Row, row_of
from retigrade.serve import audit
from retigrade.serve.database import insert_new
from retigrade.serve.tables import GradingRecord, PatientRecord, ReadingRecord, RequestRecord

_KEYS_KEPT = datetime.timedelta(days=2)
_BY_CONTENT = select(GradingRecord.id).where(GradingRecord.content == bindparam("content"))
SORTS = {
    "created": GradingRecord.created,
    "date": GradingRecord.date,
    "grade": GradingRecord.grade,
    "patient": GradingRecord.patient,
}
"""What gradings can be sorted by; a minus sign in front turns the order round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which gradings: those where all that is not None holds, sorted, `limit` of them from `offset` on.

    current: True for those that count, one of each photograph and subject; None for the earlier ones too.
    """

    patient: str | None = None
    status: Status | None = None
    grade: int | None = None
    referable: bool | None = None
    current: bool | None = None
    sort: str = "-created"
    limit: int = 50
    offset: int = 0


def content_of(sha256: str, *, bundle: str, operating_point: str | None, subject: Subject) -> str:
    """Return what makes a second request for the same grading this one."""
    parts = (
        sha256, bundle, operating_point or "", subject.patient or "", subject.eye or "",
        subject.date.isoformat() if subject.date else "",
    )  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def add_grading(
    session: Session, grading: Grading, *, sha256: str, content: str, operating_point: str | None, actor: str
) -> GradingRecord:
    """Write a grading with its line in the audit log, or return the one that has the same content."""
    audit.lock(session)
    subject = grading.subject
    if subject.patient is not None:
        _enter_patient(session, subject.patient)
    values = {
        "id": str(uuid.uuid4()),
        "content": content,
        "created": now(),
        "patient": subject.patient,
        "eye": None if subject.eye is None else subject.eye.value,
        "date": subject.date,
        "sha256": sha256,
        "bundle": grading.bundle,
        "status": grading.status.value,
        "grade": None if grading.grade is None else int(grading.grade),
        "referable": grading.referable,
        "row": grading.to_dict(),
        "heat": None if grading.heatmap is None else grading.heatmap.values.astype("<f4").tobytes(),
        "geometry": None if grading.heatmap is None else _geometry(grading.heatmap),
    }
    if not insert_new(session, GradingRecord, values):
        known = find_content(session, content)
        assert known is not None  # it is what the new one met
        return known
    details = {
        "grading": values["id"],
        "sha256": sha256,
        "bundle": grading.bundle,
        "operating_point": operating_point,
        "status": grading.status.value,
        "grade": values["grade"],
    }
    audit.append(session, actor=actor, action="grade", details=details)
    return GradingRecord(**values)


def _geometry(heatmap: Heatmap) -> dict[str, Any]:
    return {
        "field": asdict(heatmap.field),
        "width": heatmap.width,
        "height": heatmap.height,
        "receptive_field_offset": list(heatmap.receptive_field_offset),
    }


def heatmap_of(record: GradingRecord) -> Heatmap | None:
    """Return the thermal map of a grading that was found with its heat; None where it has none."""
    if record.heat is None or record.geometry is None:
        return None
    values = np.frombuffer(record.heat, "<f4").astype(np.float32)
    side = round(values.size**0.5)
    geometry = record.geometry
    field = geometry["field"]
    return Heatmap(
        values.reshape(side, side),
        Field(**{**field, "window": tuple(field["window"])}),
        geometry["width"],
        geometry["height"],
        tuple(geometry["receptive_field_offset"]),
    )


def find_content(session: Session, content: str) -> GradingRecord | None:
    """Return the grading that a second request for it asks for."""
    identity = session.connection().execute(_BY_CONTENT, {"content": content}).scalar()
    return None if identity is None else session.get(GradingRecord, identity)  # most often there is none


def find_grading(session: Session, grading: str, *, heat: bool = False) -> GradingRecord | None:
    """Return a grading by its id; heat: with the values of its map."""
    options = [undefer(GradingRecord.heat)] if heat else []
    return session.get(GradingRecord, grading, options=options)


def find_gradings(session: Session, query: Query) -> tuple[list[GradingRecord], int]:
    """Return one page of gradings, and how many there are on all pages."""
    statement = _where(select(GradingRecord), query)
    total = session.scalar(_where(select(func.count()).select_from(GradingRecord), query)) or 0
    column = SORTS[query.sort.removeprefix("-")]
    order = column.desc() if query.sort.startswith("-") else column.asc()
    page = statement.order_by(order.nulls_last(), GradingRecord.id).limit(query.limit).offset(query.offset)
    return list(session.scalars(page)), total


def gradings_after(session: Session, query: Query, last: GradingRecord | None, *, limit: int) -> list[GradingRecord]:
    """Return the next gradings that a query finds, oldest first, after the last one seen; None for the first ones.

    Order, limit and offset of the query do not matter. What is deleted or added meanwhile shifts no other out of sight.
    """
    statement = _where(select(GradingRecord), query)
    if last is not None:
        after = or_(GradingRecord.created > last.created, GradingRecord.id > last.id)
        statement = statement.where(GradingRecord.created >= last.created, after)
    return list(session.scalars(statement.order_by(GradingRecord.created, GradingRecord.id).limit(limit)))


def _where(statement: Select[Any], query: Query) -> Select[Any]:
    for column, value in (
        (GradingRecord.patient, query.patient),
        (GradingRecord.status, None if query.status is None else query.status.value),
        (GradingRecord.grade, query.grade),
        (GradingRecord.referable, query.referable),
    ):
        if value is not None:
            statement = statement.where(column == value)
    return statement.where(is_current()) if query.current else statement


def is_current() -> ColumnElement[bool]:
    """Return, as SQL, whether a grading is the latest of its photograph and subject: the one that counts.

    Another bundle, or another operating point, grades a photograph anew; the earlier grading stays in the record.
    """
    later = aliased(GradingRecord)
    same = (
        later.sha256 == GradingRecord.sha256,
        *(
            getattr(later, name).is_not_distinct_from(getattr(GradingRecord, name))
            for name in ("patient", "eye", "date")
        ),
    )
    after = or_(
        later.created > GradingRecord.created,
        and_(later.created == GradingRecord.created, later.id > GradingRecord.id),
    )
    return ~exists().where(*same, after).correlate(GradingRecord)


def others_of(session: Session, known: GradingRecord) -> list[GradingRecord]:
    """Return the other gradings of a grading's photograph and subject, the latest first."""
    if known.sha256 is None:
        return []
    statement = select(GradingRecord).where(
        GradingRecord.sha256 == known.sha256,
        GradingRecord.patient.is_not_distinct_from(known.patient),
        GradingRecord.eye.is_not_distinct_from(known.eye),
        GradingRecord.date.is_not_distinct_from(known.date),
        GradingRecord.id != known.id,
    )
    return list(session.scalars(statement.order_by(GradingRecord.created.desc(), GradingRecord.id.desc())))


def rows_of(records: Sequence[GradingRecord]) -> Iterator[Row]:
    """Yield the verdicts as the command line has them."""
    for record in records:
        yield row_of(record.row)


def gradings_of(session: Session, patient: str) -> list[GradingRecord]:
    """Return the gradings of a patient that count, oldest first."""
    statement = select(GradingRecord).where(GradingRecord.patient == patient, is_current())
    return list(session.scalars(statement.order_by(GradingRecord.date, GradingRecord.created, GradingRecord.id)))


def delete_grading(session: Session, grading: str, *, actor: str) -> str | None:
    """Delete a grading and its readings; return the digest of its file, or None where there is no such grading."""
    audit.lock(session)
    record = session.get(GradingRecord, grading)
    if record is None:
        return None
    session.delete(record)
    audit.append(session, actor=actor, action="delete grading", details={"grading": grading, "sha256": record.sha256})
    return record.sha256


def is_in_use(session: Session, sha256: str) -> bool:
    """Whether a grading of a file with this digest is left."""
    return session.scalar(select(GradingRecord.id).where(GradingRecord.sha256 == sha256).limit(1)) is not None


def find_patient(session: Session, patient: str) -> PatientRecord | None:
    """Return a patient by what the clinic calls them."""
    return session.get(PatientRecord, patient)


def find_patients(session: Session, *, search: str = "", limit: int = 50, offset: int = 0) -> list[PatientRecord]:
    """Return patients whose id or name holds a text, by id."""
    statement = select(PatientRecord).order_by(PatientRecord.id).limit(limit).offset(offset)
    if search:
        statement = statement.where(
            PatientRecord.id.icontains(search, autoescape=True) | PatientRecord.name.icontains(search, autoescape=True)
        )
    return list(session.scalars(statement))


def _enter_patient(session: Session, patient: str) -> bool:
    """Enter a patient who is not known; return whether that was so."""
    return insert_new(session, PatientRecord, {"id": patient, "created": now(), "alias": str(uuid.uuid4())})


def put_patient(
    session: Session, patient: str, *, name: str | None, birth_date: datetime.date | None, actor: str
) -> bool:
    """Enter a patient or change what is known of them; return whether they are new."""
    audit.lock(session)
    is_new = _enter_patient(session, patient)
    record = session.get_one(PatientRecord, patient)
    record.name, record.birth_date = name, birth_date
    audit.append(session, actor=actor, action="put patient", details={"patient": record.alias, "new": is_new})
    return is_new


def delete_patient(session: Session, patient: str, *, actor: str) -> list[str] | None:
    """Delete a patient with gradings and readings; return the digests of the files, or None where nobody is known.

    The audit log keeps the lines of what was done, with the patient's alias, which leads to nobody any more.
    """
    audit.lock(session)
    record = find_patient(session, patient)
    if record is None:
        return None
    found = session.execute(
        select(GradingRecord.id, GradingRecord.sha256).where(GradingRecord.patient == patient)
    ).all()
    session.delete(record)
    details = {"patient": record.alias, "gradings": [identity for identity, _ in found]}
    audit.append(session, actor=actor, action="delete patient", details=details)
    return [digest for _, digest in found if digest is not None]


def add_reading(
    session: Session, grading: str, *, reader: str, grade: int | None, reason: str, actor: str
) -> ReadingRecord | None:
    """Write what a reader made of a grading, beside the machine's answer; None where there is no such grading."""
    audit.lock(session)
    if session.get(GradingRecord, grading) is None:
        return None
    reading = ReadingRecord(
        id=str(uuid.uuid4()), grading=grading, created=now(), reader=reader, grade=grade, reason=reason
    )
    session.add(reading)
    details = {"grading": grading, "reading": reading.id, "grade": grade}
    audit.append(session, actor=actor, action="read", details=details)
    return reading


def readings_of(session: Session, grading: str) -> list[ReadingRecord]:
    """Return what readers made of a grading, oldest first."""
    statement = select(ReadingRecord).where(ReadingRecord.grading == grading)
    return list(session.scalars(statement.order_by(ReadingRecord.created, ReadingRecord.id)))


def find_request(session: Session, key: str) -> RequestRecord | None:
    """Return the answered request with this key."""
    return session.get(RequestRecord, key)


def add_request(session: Session, key: str, content: str, gradings: Sequence[str]) -> None:
    """Note what a request with a key was answered."""
    session.merge(RequestRecord(key=key, created=now(), content=content, gradings=list(gradings)))


def forget_requests(session: Session) -> None:
    """Delete answered requests whose keys nobody will send again."""
    session.execute(delete(RequestRecord).where(RequestRecord.created < now() - _KEYS_KEPT))


def now() -> datetime.datetime:
    """Return the time, with its zone."""
    return datetime.datetime.now(datetime.UTC)
