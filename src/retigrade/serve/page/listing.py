"""The worklist over the database: searched, filtered, sorted and paged by it, so that thousands of rows cost little.

The rule of `retigrade.output.patients.action_of` is here once more, in SQL, to sort and filter by; what is shown comes
from the rule itself.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import ColumnElement, Select, String, and_, case, cast, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from retigrade.grader import LOW_CONFIDENCE
from retigrade.grading import Eye
from retigrade.icdr import Status
from retigrade.output.patients import Action, Visit, visit_of, visits_of
from retigrade.output.progression import timelines_of
from retigrade.output.rows import Row, row_of
from retigrade.output.worklist import Tile, tile_values, timeline_values, visit_values
from retigrade.serve.page.items import Item, items_of
from retigrade.serve.page.render import patient_address
from retigrade.serve.record import is_current
from retigrade.serve.service import Service
from retigrade.serve.tables import PATIENT_CHARACTERS, GradingRecord, ReadingRecord

_URGENCY = {Action.REFER: 0, Action.REPHOTOGRAPH: 1, Action.RESCREEN: 2}
_DISAGREEMENT = 2  # as in output.patients
_WORDS = 8  # of a search; each costs one more look at every row
_CHUNK = 500  # patients or photographs that an export reads at once


class WorklistQuery(BaseModel):
    """What the controls of the worklist say, or one patient alone; an empty text asks for nothing."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    view: Literal["patients", "photographs"] = "patients"
    search: str = Field(default="", max_length=200)
    patient: str = Field(default="", max_length=PATIENT_CHARACTERS)
    action: Literal["", "refer", "rephotograph", "rescreen"] = ""
    status: Literal["", "graded", "ungradable", "not_fundus", "error"] = ""
    stage: Literal["", "0", "1", "2", "3", "4"] = ""
    set: Literal["", "0", "1", "2", "3", "4"] = ""
    eye: Literal["", "right", "left", "unknown"] = ""
    reading: Literal["", "none", "confirmed", "changed"] = ""
    start: datetime.date | None = Field(default=None, alias="from")
    end: datetime.date | None = Field(default=None, alias="to")
    referable: Literal["", "on"] = ""
    second: Literal["", "on"] = ""
    sort: Literal["", "urgency", "severity", "name", "date", "quality"] = ""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @property
    def words(self) -> list[str]:
        """The words that are searched for, each of which must be somewhere."""
        return self.search.split()[:_WORDS]


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a list; found: on all pages; all: without filters."""

    found: int
    all: int
    items: list[dict[str, Any]]


def list_page(session: Session, service: Service, query: WorklistQuery, *, start: int, count: int) -> Listed:
    """Return `count` visits or photographs from `start` on, as the scripts of the worklist draw them."""
    if query.view == "photographs":
        statement = _photographs(query)
        total = session.scalar(select(func.count()).select_from(GradingRecord).where(is_current())) or 0
        records = list(session.scalars(statement.limit(count).offset(start)))
        items = [tile_of(item) for item in items_of(session, service, records)]
    else:
        statement = _visits(query)
        total = _count(session, _visits(WorklistQuery()))
        keys = [(patient, date) for patient, date in session.execute(statement.limit(count).offset(start))]
        items = _visits_of(session, service, keys)
    return Listed(_count(session, statement), total, items)


def tile_of(item: Item) -> dict[str, Any]:
    """Return a photograph as the scripts draw it, with its address and its latest reading."""
    latest = item.readings[-1] if item.readings else None
    return {
        **tile_values(Tile(row=item.row, thumbnail=item.photo or item.heat, heat=item.heat)),
        "address": f"/gradings/{item.id}",
        "reading": None if latest is None else {"reader": latest.reader, "grade": latest.grade},
    }


def _visits_of(session: Session, service: Service, keys: Sequence[tuple[str, datetime.date | None]]) -> list[Any]:
    items = items_of(session, service, _of_patients(session, [patient for patient, _ in keys]))
    visits = list(visits_of(item.row for item in items))
    noise = service.grader.bundle.metadata.retest_noise
    timelines = timeline_values(list(timelines_of(visits, noise=noise)))
    by_key = {(visit.patient, visit.date): visit for visit in visits}
    latest = {visit.patient: visit.date for visit in visits}  # by date, so the last one stays
    found = []
    for patient, day in keys:
        date = None if day is None else day.isoformat()
        rows = [tile_of(item) for item in items if item.row.patient == patient and item.row.date == date]
        found.append(
            {
                **visit_values(by_key[patient, date]),
                "address": patient_address(patient),
                "rows": rows,
                "timelines": timelines.get(patient, []) if date == latest[patient] else [],
            }
        )
    return found


def _of_patients(session: Session, patients: Sequence[str]) -> list[GradingRecord]:
    statement = select(GradingRecord).where(GradingRecord.patient.in_(set(patients)), is_current())
    return list(session.scalars(statement.order_by(GradingRecord.date, GradingRecord.created, GradingRecord.id)))


@dataclass(frozen=True, slots=True)
class FoundVisit:
    """The rows of one visit; has_dated_visits: whether the patient has any visit with a date, found or not."""

    patient: str
    date: str | None
    rows: list[Row]
    has_dated_visits: bool

    def visit(self) -> Visit:
        """Return what the rows come to."""
        return visit_of(self.rows, patient=self.patient, date=self.date, has_dated_visits=self.has_dated_visits)


def visits_found(session: Session, query: WorklistQuery) -> Iterator[FoundVisit]:
    """Yield the visits that a query finds, in its order, read some patients at a time."""
    keys = session.execute(_visits(query)).all()
    for place in range(0, len(keys), _CHUNK):
        chunk = keys[place : place + _CHUNK]
        together: dict[tuple[str | None, str | None], list[Row]] = defaultdict(list)
        for known in _of_patients(session, [patient for patient, _ in chunk]):
            row = row_of(known.row)
            together[row.patient, row.date].append(row)
        dated = {patient for patient, date in together if date is not None}
        for patient, day in chunk:
            date = None if day is None else day.isoformat()
            yield FoundVisit(patient, date, together[patient, date], has_dated_visits=patient in dated)


def photographs_found(session: Session, query: WorklistQuery) -> Iterator[tuple[GradingRecord, ReadingRecord | None]]:
    """Return the gradings that a query finds with their latest readings, in its order, read some at a time."""
    statement = _photographs(query).add_columns(ReadingRecord)
    statement = statement.outerjoin(ReadingRecord, ReadingRecord.id == _latest(ReadingRecord.id))
    found = session.execute(statement.execution_options(yield_per=_CHUNK))
    return ((known, reading) for known, reading in found)


def totals(session: Session) -> tuple[int, int]:
    """Return how many photographs and patients there are."""
    counts = select(func.count(), func.count(_G.patient.distinct())).select_from(_G).where(is_current())
    photographs, patients = session.execute(counts).one()
    return photographs, patients


def action_counts(session: Session) -> dict[Action, int]:
    """Return how many visits come to each action."""
    groups = _grouped(WorklistQuery()).subquery()
    counted = session.execute(select(groups.c.urgency, func.count()).group_by(groups.c.urgency))
    counts: Counter[int] = Counter(dict(counted.all()))
    return {action: counts[urgency] for action, urgency in _URGENCY.items()}


def _count(session: Session, statement: Select[Any]) -> int:
    return session.scalar(select(func.count()).select_from(statement.order_by(None).subquery())) or 0


_G = GradingRecord
_REFERABLE: ColumnElement[bool] = _G.referable.is_(True)
_P_REFERABLE: ColumnElement[float] = _G.row["p_referable"].as_float()
_QUALITY: ColumnElement[float] = _G.row["quality"].as_float()
_REASONS: ColumnElement[str] = cast(_G.row["reasons"].as_string(), String)
_SECOND: ColumnElement[bool] = _REASONS.contains(LOW_CONFIDENCE, autoescape=True)
_GRADED: ColumnElement[bool] = _G.status == Status.GRADED.value


def _latest(column: Any) -> Any:
    """Return, as SQL, a column of a grading's latest reading, for a statement about gradings."""
    reading = aliased(ReadingRecord)
    statement = select(getattr(reading, column.key)).where(reading.grading == _G.id).correlate(_G)
    return statement.order_by(reading.created.desc(), reading.id.desc()).limit(1).scalar_subquery()


def _photographs(query: WorklistQuery) -> Select[Any]:
    conditions = [*_of_verdict(query), *_of_whom(query), *(_holds(word) for word in query.words)]
    conditions += [_REFERABLE] if query.referable else []
    conditions += [_SECOND] if query.second else []
    orders: dict[str, tuple[Any, ...]] = {
        "urgency": (_P_REFERABLE.desc().nulls_last(),),
        "severity": (_P_REFERABLE.desc().nulls_last(),),
        "name": (_G.patient.asc().nulls_last(), _G.date.asc().nulls_first(), _G.row["path"].as_string()),
        "date": (_G.date.desc().nulls_last(),),
        "quality": (_QUALITY.asc().nulls_last(),),
    }
    return select(_G).where(*conditions).order_by(*orders.get(query.sort, ()), _G.created.desc(), _G.id)


def _visits(query: WorklistQuery) -> Select[Any]:
    groups = _grouped(query).subquery()
    conditions: list[ColumnElement[bool]] = []
    if query.action:
        conditions.append(groups.c.urgency == _URGENCY[Action(query.action)])
    if query.referable:
        conditions.append(groups.c.urgency == _URGENCY[Action.REFER])
    if query.second:
        conditions.append(groups.c.second == 1)
    severity = groups.c.severity.desc().nulls_last()
    orders: dict[str, tuple[Any, ...]] = {
        "urgency": (groups.c.urgency, severity),
        "severity": (severity,),
        "name": (),
        "date": (groups.c.date.desc().nulls_last(),),
        "quality": (groups.c.quality.asc().nulls_last(),),
        "": (groups.c.created.desc(),),
    }
    found = select(groups.c.patient, groups.c.date).where(*conditions)
    return found.order_by(*orders[query.sort], groups.c.patient, groups.c.date.asc().nulls_first())


def _grouped(query: WorklistQuery) -> Select[Any]:
    """Return one row for each patient and day whose photographs fit the query."""

    def ever(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.max(case((condition, 1), else_=0))

    def disagrees(side: ColumnElement[bool]) -> ColumnElement[bool]:
        of_eye = case((and_(_GRADED, side), _G.grade))
        return func.coalesce(func.max(of_eye) - func.min(of_eye), 0) >= _DISAGREEMENT

    right, left = (ever(and_(_GRADED, _G.eye == eye.value)) for eye in (Eye.RIGHT, Eye.LEFT))
    sides: tuple[ColumnElement[bool], ...] = (_G.eye == Eye.RIGHT.value, _G.eye == Eye.LEFT.value, _G.eye.is_(None))
    urgency = case(
        (ever(_REFERABLE) == 1, _URGENCY[Action.REFER]),
        (and_(right == 1, left == 1), _URGENCY[Action.RESCREEN]),
        else_=_URGENCY[Action.REPHOTOGRAPH],
    )
    second = case((or_(ever(and_(_GRADED, _SECOND)) == 1, *map(disagrees, sides)), 1), else_=0)
    statement = select(
        _G.patient,
        _G.date,
        urgency.label("urgency"),
        second.label("second"),
        func.max(_P_REFERABLE).label("severity"),
        func.min(_QUALITY).label("quality"),
        func.max(_G.created).label("created"),
    )
    statement = statement.where(_G.patient.is_not(None), *_of_whom(query)).group_by(_G.patient, _G.date)
    if of_one := _of_verdict(query):
        statement = statement.having(ever(and_(*of_one)) == 1)
    return statement.having(*(ever(_holds(word)) == 1 for word in query.words))


def _of_verdict(query: WorklistQuery) -> list[ColumnElement[bool]]:
    """Return what one photograph must fit."""
    conditions: list[ColumnElement[bool]] = []
    if query.status:
        conditions.append(_G.status == query.status)
    if query.stage:
        conditions.append(_G.grade == int(query.stage))
    if query.set:  # grades have one digit, so the list as text will do on every database
        conditions.append(cast(_G.row["prediction_set"].as_string(), String).contains(query.set))
    if query.eye:
        conditions.append(_G.eye.is_(None) if query.eye == "unknown" else _G.eye == query.eye)
    if query.reading:
        is_read = exists().where(ReadingRecord.grading == _G.id).correlate(_G)
        conditions += {
            "none": [~is_read],
            "confirmed": [is_read, _latest(ReadingRecord.grade).is_not_distinct_from(_G.grade)],
            "changed": [is_read, _latest(ReadingRecord.grade).is_distinct_from(_G.grade)],
        }[query.reading]
    return conditions


def _of_whom(query: WorklistQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [is_current()]
    if query.patient:
        conditions.append(_G.patient == query.patient)
    if query.start is not None:
        conditions.append(_G.date >= query.start)
    if query.end is not None:
        conditions.append(_G.date <= query.end)
    return conditions


def _holds(word: str) -> ColumnElement[bool]:
    """Return whether a photograph's name, patient, eye, date or reasons hold a word, in either case."""
    places = (
        _G.row["path"].as_string(),
        _G.patient,
        _G.row["eye"].as_string(),
        _G.row["date"].as_string(),
        _REASONS,
    )
    return or_(*(func.coalesce(place, "").icontains(word, autoescape=True) for place in places))
