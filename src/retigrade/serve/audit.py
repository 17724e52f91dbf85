"""The audit log: who did what to which record, each line chained to the one before, so that a change shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Text, cast, insert, select, text
from sqlalchemy.orm import Session

from retigrade.serve.tables import AuditRecord, GradingRecord

FIRST = "0" * 64
"""What the first line is chained to."""
_LAST = select(AuditRecord.number, AuditRecord.digest).order_by(AuditRecord.number.desc()).limit(1)
_INSERT = insert(AuditRecord)
_LINES = select(
    AuditRecord.number, AuditRecord.created, AuditRecord.actor, AuditRecord.action,
    cast(AuditRecord.details, Text).label("details"),  # as it stands there: somebody may have written no JSON over it
    AuditRecord.previous, AuditRecord.digest,
).order_by(AuditRecord.number)  # fmt: skip
_LOCKED, _PENDING = "audit_locked", "audit_pending"  # kept with a session
_LOCK = 7_304_192_011  # of PostgreSQL's advisory locks: one number, the same in every process


def lock(session: Session) -> None:
    """Let no other transaction that changes the record run beside this one, until it ends."""
    if session.get_bind().dialect.name == "postgresql" and not session.info.get(_LOCKED):
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        session.info[_LOCKED] = True  # SQLite has one writer at a time by itself


def append(session: Session, *, actor: str, action: str, details: Mapping[str, Any]) -> None:
    """Have one line added when the transaction under way ends; details hold no name of a file and no pixel."""
    created = datetime.now(UTC).isoformat()
    session.info.setdefault(_PENDING, []).append((created, actor, action, dict(details)))


def write_pending(session: Session) -> None:
    """Add the lines of a transaction that is about to end, each chained to the one before: all at once."""
    lines = session.info.pop(_PENDING, [])
    if not lines:
        return
    lock(session)
    number, previous = ending(session)
    values = []
    for created, actor, action, details in lines:
        number += 1
        digest = _digest_of(number, created, actor, action, details, previous)
        values.append(
            {"number": number, "created": created, "actor": actor, "action": action, "details": details,
             "previous": previous, "digest": digest}
        )  # fmt: skip
        previous = digest
    session.connection().execute(_INSERT, values)


def ending(session: Session) -> tuple[int, str]:
    """Return how many lines there are, and the last one's digest: noted elsewhere, it shows a log cut off later."""
    last = session.connection().execute(_LAST).first()
    return (0, FIRST) if last is None else (last.number, last.digest)


def find_break(session: Session) -> str | None:
    """Return one sentence on the first line that was changed or is missing; None where the chain is whole.

    A log cut off at its end is whole by itself; it shows where gradings are left whose lines are gone, else compare the
    last digest with one that was noted elsewhere.
    """
    expected, previous = 1, FIRST
    graded: set[str] = set()
    for line in session.execute(_LINES.execution_options(yield_per=1000)):
        if line.number != expected:
            return f"line {expected} is missing"
        if line.previous != previous:
            return f"line {expected} does not follow the line before it"
        try:
            details = json.loads(line.details)
            digest = _digest_of(line.number, line.created, line.actor, line.action, details, line.previous)
        except (TypeError, ValueError, RecursionError):  # no JSON any more, or no text
            return f"line {expected} was changed"
        if line.digest != digest:
            return f"line {expected} was changed"
        expected, previous = expected + 1, line.digest
        if line.action == "grade" and isinstance(details, dict):
            graded.add(str(details.get("grading")))
    for identity in session.scalars(select(GradingRecord.id)).yield_per(1000):
        if identity not in graded:
            return f"the line of grading {identity} is missing"
    return None


def _digest_of(*line: object) -> str:
    return hashlib.sha256(json.dumps(list(line), sort_keys=True).encode()).hexdigest()
