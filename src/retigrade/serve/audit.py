"""The audit log: who did what to which record, each line chained to the one before, so that a change shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from retigrade.serve.tables import AuditRecord, GradingRecord

FIRST = "0" * 64
"""What the first line is chained to."""
_LOCK = 7_304_192_011  # of PostgreSQL's advisory locks: one number, the same in every process


def lock(session: Session) -> None:
    """Let no other transaction that changes the record run beside this one, until it ends."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time by itself
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def append(session: Session, *, actor: str, action: str, details: Mapping[str, Any]) -> None:
    """Add one line within the transaction under way; details hold no name of a file and no pixel."""
    lock(session)
    count, previous = ending(session)
    number = count + 1
    created = datetime.now(UTC).isoformat()
    record = AuditRecord(
        number=number, created=created, actor=actor, action=action, details=dict(details), previous=previous, digest=""
    )
    record.digest = _digest(record)
    session.add(record)
    session.flush()


def ending(session: Session) -> tuple[int, str]:
    """Return how many lines there are, and the last one's digest: noted elsewhere, it shows a log cut off later."""
    columns = select(AuditRecord.number, AuditRecord.digest).order_by(AuditRecord.number.desc()).limit(1)
    last = session.execute(columns).first()
    return (0, FIRST) if last is None else (last.number, last.digest)


def find_break(session: Session) -> str | None:
    """Return one sentence on the first line that was changed or is missing; None where the chain is whole.

    A log cut off at its end is whole by itself; it shows where gradings are left whose lines are gone, else compare the
    last digest with one that was noted elsewhere.
    """
    expected, previous = 1, FIRST
    graded: set[str] = set()
    for record in session.scalars(select(AuditRecord).order_by(AuditRecord.number)).yield_per(1000):
        if record.number != expected:
            return f"line {expected} is missing"
        if record.previous != previous:
            return f"line {expected} does not follow the line before it"
        if record.digest != _digest(record):
            return f"line {expected} was changed"
        expected, previous = expected + 1, record.digest
        if record.action == "grade":
            graded.add(record.details["grading"])
    for identity in session.scalars(select(GradingRecord.id)).yield_per(1000):
        if identity not in graded:
            return f"the line of grading {identity} is missing"
    return None


def _digest(record: AuditRecord) -> str:
    line = [record.number, record.created, record.actor, record.action, record.details, record.previous]
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
