"""A server with a record of drawn verdicts, for tests of its page."""

from __future__ import annotations

import datetime
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from sqlalchemy.orm import Session

import retigrade
from gradings import graded, heat, refused
from retigrade.grading import Eye, Grading, Subject
from retigrade.icdr import Grade, Status
from retigrade.serve import record
from retigrade.serve.app import create_app
from retigrade.serve.config import ServeConfig
from retigrade.serve.tables import GradingRecord
from tiny_bundle import write_tiny_bundle

HOSTILE = "\"><img src=x onerror=alert(1)>'{{7*7}}"


def make_app(folder: Path, **options: Any) -> FastAPI:
    """An application with a network of a few kilobytes and an empty record below `folder`."""
    bundle = write_tiny_bundle(folder / "tiny.onnx", retest_noise=0.5)
    values = {"database": f"sqlite:///{folder / 'record.db'}", "jobs": 1, **options}
    return create_app(ServeConfig(**values), grader=retigrade.load(bundle, threads=1))


def verdict(grade: int | None, path: str, *, patient: str | None, eye: str | None, date: str | None) -> Grading:
    """A grading of this grade, None for a photograph without one."""
    subject = Subject(patient, Eye(eye) if eye else None, datetime.date.fromisoformat(date) if date else None)
    if grade is None:
        return Grading(**{**vars(refused(path, Status.UNGRADABLE, "too dark (0.02)")), "subject": subject})
    probabilities = np.full(5, 0.05)
    probabilities[grade] = 0.8
    return graded(
        path,
        grade=Grade(grade),
        probabilities=probabilities,
        p_referable=float(probabilities[2:].sum()),
        referable=grade >= 2,
        reasons=(),
        prediction_set=tuple(Grade(near) for near in range(max(grade - 1, 0), grade + 1)),
        heatmap=heat(width=90, height=60),
        subject=subject,
    )


def add(app: FastAPI, *verdicts: Grading, sha256: str | None = None) -> list[str]:
    """Write verdicts into the record; returns their ids in order.

    sha256: of the one photograph that all are of; None for a photograph each.
    """

    def write(session: Session, made: Grading) -> str:
        digest, content = sha256 or uuid.uuid4().hex * 2, uuid.uuid4().hex * 2
        return record.add_grading(session, made, sha256=digest, content=content, operating_point=None, actor="test").id

    with app.state.service.database.transaction() as session:
        return [write(session, made) for made in verdicts]


def record_of(made: Grading, *, content: str) -> GradingRecord:
    """A verdict as a line of the table, without its map."""
    subject = made.subject
    return GradingRecord(
        id=str(uuid.uuid4()),
        content=content,
        created=record.now(),
        patient=subject.patient,
        eye=subject.eye,
        date=subject.date,
        sha256=made.sha256,
        bundle=made.bundle,
        status=made.status.value,
        grade=made.grade,
        referable=made.referable,
        row=made.to_dict(),
    )


def programme() -> list[Grading]:
    """Four patients: healthy, worse since the last year, with an eye that has no grade, of a hostile name."""
    rows = [
        (0, "p1_r.jpg", "P1", "right", "2024-05-02"), (0, "p1_l.jpg", "P1", "left", "2024-05-02"),
        (0, "p2_r.jpg", "P2", "right", "2023-05-02"), (0, "p2_l.jpg", "P2", "left", "2023-05-02"),
        (3, "p2_r2.jpg", "P2", "right", "2024-05-02"), (0, "p2_l2.jpg", "P2", "left", "2024-05-02"),
        (1, "p3_r.jpg", "P3", "right", "2024-05-03"), (None, "p3_l.jpg", "P3", "left", "2024-05-03"),
        (2, HOSTILE, HOSTILE, "left", None), (4, "nobody.jpg", None, None, None),
    ]  # fmt: skip
    return [verdict(grade, path, patient=patient, eye=eye, date=date) for grade, path, patient, eye, date in rows]


def csrf_in(page: str) -> str:
    """The token that a page gives its forms."""
    found = re.search(r'<meta name="csrf" content="([^"]*)">', page)
    assert found is not None
    return found[1]
