"""Gradings, readings and visits as the page shows them."""

from __future__ import annotations

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from retigrade.output.patients import EyeResult, Visit, visit_of
from retigrade.output.rows import Row, row_of
from retigrade.serve.rest.shapes import grading_out
from retigrade.serve.service import Service
from retigrade.serve.tables import GradingRecord, ReadingRecord


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader made of a grading; grade: None where they gave none."""

    reader: str
    grade: int | None
    reason: str
    created: datetime.datetime


@dataclass(frozen=True, slots=True)
class Item:
    """One grading: its verdict, the addresses of its pictures as far as there are any, its readings, oldest first."""

    id: str
    row: Row
    created: datetime.datetime
    heat: str | None
    photo: str | None
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class ShownVisit:
    """A visit and its photographs by eye; anchor: what it is called in a page."""

    visit: Visit
    anchor: str
    right: tuple[Item, ...]
    left: tuple[Item, ...]
    unknown: tuple[Item, ...]


def items_of(session: Session, service: Service, records: Sequence[GradingRecord]) -> list[Item]:
    """Return gradings with their readings, in the same order."""
    readings = _readings(session, [record.id for record in records])
    return [_item(service, record, readings[record.id]) for record in records]


def _item(service: Service, record: GradingRecord, readings: Iterable[Reading]) -> Item:
    links = grading_out(service, record)["links"]
    return Item(
        id=record.id,
        row=row_of(record.row),
        created=record.created,
        heat=links["heat"],
        photo=links["photo"],
        readings=tuple(readings),
    )


def _readings(session: Session, gradings: Sequence[str]) -> Mapping[str, list[Reading]]:
    statement = select(ReadingRecord).where(ReadingRecord.grading.in_(gradings))
    found: dict[str, list[Reading]] = defaultdict(list)
    for record in session.scalars(statement.order_by(ReadingRecord.created, ReadingRecord.id)):
        found[record.grading].append(Reading(record.reader, record.grade, record.reason, record.created))
    return found


def visits_shown(items: Iterable[Item]) -> Iterator[ShownVisit]:
    """Yield the visits that items come to, the latest first, undated ones last; items of nobody are left out.

    items: all that a patient has, for what a visit without a date comes to rests on whether there are others.
    """
    together: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        if item.row.patient is not None:
            together[item.row.patient, item.row.date or ""].append(item)
    dated = {patient for patient, date in together if date}
    for patient, date in sorted(together, key=lambda key: (key[1], key[0]), reverse=True):
        of_visit = together[patient, date]
        rows = [item.row for item in of_visit]
        visit = visit_of(rows, patient=patient, date=date or None, has_dated_visits=patient in dated)
        digest = hashlib.sha256(f"{patient}\0{date}".encode("utf-8", "surrogateescape")).hexdigest()
        yield ShownVisit(
            visit,
            f"visit-{digest[:12]}",
            _of_eye(of_visit, "right", visit.right),
            _of_eye(of_visit, "left", visit.left),
            _of_eye(of_visit, None, visit.unknown),
        )


def _of_eye(items: Iterable[Item], eye: str | None, result: EyeResult) -> tuple[Item, ...]:
    """Return the photographs of one eye, the one that stands for it first."""
    found = [item for item in items if item.row.eye == eye]
    return tuple(sorted(found, key=lambda item: item.row is not result.best))
