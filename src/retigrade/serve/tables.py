"""The tables of the patient record, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PATIENT_CHARACTERS = 200
_DIGEST = 64


class Moment(TypeDecorator[datetime.datetime]):
    """A moment, always in UTC and with its zone; SQLite keeps none, and PostgreSQL answers in that of the session."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Return what the database is given."""
        return None if value is None else value.astimezone(datetime.UTC)

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Return what the program gets of the database's answer."""
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


class Base(DeclarativeBase):
    """All tables."""


class PatientRecord(Base):
    """One patient; id: as the clinic calls them. alias: what the audit log calls them; it means nothing elsewhere."""

    __tablename__ = "patients"

    id: Mapped[str] = mapped_column(String(PATIENT_CHARACTERS), primary_key=True)
    created: Mapped[datetime.datetime] = mapped_column(Moment)
    alias: Mapped[str] = mapped_column(String(36), default=lambda: str(uuid.uuid4()))
    name: Mapped[str | None] = mapped_column(String(PATIENT_CHARACTERS))
    birth_date: Mapped[datetime.date | None] = mapped_column(Date)


class GradingRecord(Base):
    """One grading, never altered; row: the verdict as a JSON line holds it.

    content: what makes a second request for the same grading this one: photograph, bundle, operating point and subject.
    date: of the visit. sha256: of the file, also of one that could not be read. heat: the map's values, little-endian
    float32 (s, s); geometry: where they lie on the photograph; both None without a grade. The photograph is not here.
    """

    __tablename__ = "gradings"
    __table_args__ = (
        UniqueConstraint("content", name="gradings_content"),
        Index("gradings_patient_date", "patient", "date"),
        Index("gradings_created", "created"),
        Index("gradings_sha256", "sha256"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    content: Mapped[str] = mapped_column(String(_DIGEST))
    created: Mapped[datetime.datetime] = mapped_column(Moment)
    patient: Mapped[str | None] = mapped_column(ForeignKey("patients.id", ondelete="CASCADE"))
    eye: Mapped[str | None] = mapped_column(String(5))
    date: Mapped[datetime.date | None] = mapped_column(Date)
    sha256: Mapped[str | None] = mapped_column(String(_DIGEST))
    bundle: Mapped[str] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(20))
    grade: Mapped[int | None] = mapped_column(Integer)
    referable: Mapped[bool | None] = mapped_column(Boolean)
    row: Mapped[dict[str, Any]] = mapped_column(JSON)
    heat: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    geometry: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class ReadingRecord(Base):
    """What a reader made of a grading: kept beside the machine's answer, never over it."""

    __tablename__ = "readings"
    __table_args__ = (Index("readings_grading", "grading"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    grading: Mapped[str] = mapped_column(ForeignKey("gradings.id", ondelete="CASCADE"))
    created: Mapped[datetime.datetime] = mapped_column(Moment)
    reader: Mapped[str] = mapped_column(String(PATIENT_CHARACTERS))
    grade: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(String(2000))


class RequestRecord(Base):
    """An answered request with an Idempotency-Key; key: with the caller's name. gradings: the answer's, in order."""

    __tablename__ = "requests"
    __table_args__ = (Index("requests_created", "created"),)

    key: Mapped[str] = mapped_column(String(_DIGEST), primary_key=True)
    created: Mapped[datetime.datetime] = mapped_column(Moment)
    content: Mapped[str] = mapped_column(String(_DIGEST))
    gradings: Mapped[list[str]] = mapped_column(JSON)


class AuditRecord(Base):
    """One line of the audit log; digest: SHA-256 of the line and of the digest before it."""

    __tablename__ = "audit"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    created: Mapped[str] = mapped_column(String(40))
    actor: Mapped[str] = mapped_column(String(PATIENT_CHARACTERS))
    action: Mapped[str] = mapped_column(String(40))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous: Mapped[str] = mapped_column(String(_DIGEST))
    digest: Mapped[str] = mapped_column(String(_DIGEST))
