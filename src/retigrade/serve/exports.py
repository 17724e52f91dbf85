"""The record as files: CSV and JSON lines with the readings beside the machine's grades, patients, and FHIR."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from retigrade.output.patients import patients_csv, visits_of
from retigrade.output.rows import COLUMNS, csv_cell, csv_record, row_of
from retigrade.serve import record
from retigrade.serve.database import Database
from retigrade.serve.fhir import FHIR_TYPE, transaction_of
from retigrade.serve.tables import GradingRecord, ReadingRecord

_PAGE = 500
_SUBJECT = ("patient", "eye", "date")
_READING = ("reader", "reader_grade", "reader_reason", "read_at")
EXPORT_COLUMNS = (*COLUMNS, *_SUBJECT, "id", "created", *_READING)
"""The columns of gradings.csv, then whose eye it is, the grading's id and time, and its last reading."""


class ExportFormat(StrEnum):
    """What an export is written as; `patients` has one line for each patient and visit, as patients.csv."""

    CSV = "csv"
    JSONL = "jsonl"
    PATIENTS = "patients"
    FHIR = "fhir"

    @property
    def is_of_visits(self) -> bool:
        """Whether it tells what visits come to, which rests on all of their photographs."""
        return self in (ExportFormat.PATIENTS, ExportFormat.FHIR)

    @property
    def media_type(self) -> str:
        """As HTTP calls it."""
        types = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson", "fhir": FHIR_TYPE}
        return types.get(self.value, "text/csv; charset=utf-8")

    @property
    def file_name(self) -> str:
        """What a browser saves it as."""
        names = {"csv": "gradings.csv", "jsonl": "gradings.jsonl", "patients": "patients.csv", "fhir": "fhir.json"}
        return names[self.value]


def export(database: Database, kind: ExportFormat, query: record.Query) -> Iterator[str]:
    """Yield the gradings that a query asks for, all of them, oldest first, in pieces.

    Visits and FHIR rest on the gradings that count; CSV and JSON lines hold the earlier ones of a photograph too.
    """
    if not kind.is_of_visits:
        yield from write(kind, _with_readings(database, query))
        return
    with database.reading() as session:  # of one moment: else a photograph graded anew meanwhile would count twice
        found = _all(session, replace(query, current=True))
        pieces = list(write(kind, ((known, None) for known in found)))
    yield from pieces


def write(kind: ExportFormat, found: Iterable[tuple[GradingRecord, ReadingRecord | None]]) -> Iterator[str]:
    """Yield gradings with their last readings as a file, in pieces."""
    match kind:
        case ExportFormat.CSV:
            yield csv_record(EXPORT_COLUMNS)
            for known, reading in found:
                values = {**_values(known), **_reading(reading)}
                yield csv_record([csv_cell(values[name]) for name in EXPORT_COLUMNS])
        case ExportFormat.JSONL:
            for known, reading in found:
                extra = {"id": known.id, "created": known.created.isoformat(), **_reading(reading)}
                yield json.dumps({**known.row, **extra}, allow_nan=False) + "\n"
        case ExportFormat.PATIENTS:
            yield patients_csv(visits_of(row_of(known.row) for known, _ in found))
        case ExportFormat.FHIR:
            yield json.dumps(transaction_of(row_of(known.row) for known, _ in found), allow_nan=False) + "\n"


def _with_readings(database: Database, query: record.Query) -> Iterator[tuple[GradingRecord, ReadingRecord | None]]:
    """Yield gradings with their last readings; each page has a transaction of its own, so that nothing waits for it.

    A page begins after the last one's end, not at a number: none is left out where others are deleted meanwhile.
    """
    last: GradingRecord | None = None
    while True:
        with database.reading() as session:
            records = record.gradings_after(session, query, last, limit=_PAGE)
            identities = [known.id for known in records]
            statement = select(ReadingRecord).where(ReadingRecord.grading.in_(identities))
            readings = {
                reading.grading: reading
                for reading in session.scalars(statement.order_by(ReadingRecord.created, ReadingRecord.id))
            }
        for known in records:
            yield known, readings.get(known.id)
        if len(records) < _PAGE:
            return
        last = records[-1]


def _all(session: Session, query: record.Query) -> Iterator[GradingRecord]:
    """Yield gradings within one transaction; few of them are in memory at once."""
    last: GradingRecord | None = None
    while records := record.gradings_after(session, query, last, limit=_PAGE):
        yield from records
        last = records[-1]


def _values(known: GradingRecord) -> dict[str, Any]:
    row = row_of(known.row)
    values = {name: getattr(row, name) for name in (*COLUMNS, *_SUBJECT)}
    return {**values, "id": known.id, "created": known.created.isoformat()}


def _reading(reading: ReadingRecord | None) -> dict[str, Any]:
    if reading is None:
        return dict.fromkeys(_READING)
    values = (reading.reader, reading.grade, reading.reason, reading.created.isoformat())
    return dict(zip(_READING, values, strict=True))
