from __future__ import annotations

import datetime
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `serve` is not installed")

from sqlalchemy import inspect, select, text, update

from retigrade.errors import UsageError
from retigrade.serve import audit
from retigrade.serve.database import Database
from retigrade.serve.tables import AuditRecord, Base, PatientRecord


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'record.db'}")


def test_the_migrations_make_the_tables_of_the_program(database: Database) -> None:
    with database.transaction() as session:
        found = inspect(session.connection())
        for name, table in Base.metadata.tables.items():
            assert {column["name"] for column in found.get_columns(name)} == set(table.columns.keys())


def test_what_fails_is_not_half_written(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as session:
            session.add(PatientRecord(id="P1", created=datetime.datetime.now(datetime.UTC)))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.transaction() as session:
        assert session.scalars(select(PatientRecord)).all() == []


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with Database(url).transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UsageError, match="schema 9999, newer than this program"):
        Database(url)


@pytest.mark.parametrize("url", ["nothing", "sqlite:////no/such/folder/record.db", "oracle://x"])
def test_a_database_that_cannot_be_opened_is_one_sentence(url: str) -> None:
    with pytest.raises(UsageError, match="the database"):
        Database(url)


def write_lines(database: Database, count: int) -> None:
    for number in range(count):
        with database.transaction() as session:
            audit.append(session, actor="nurse", action="grade", details={"number": number})


def test_a_log_that_nobody_touched_is_whole(database: Database) -> None:
    write_lines(database, 3)
    with database.transaction() as session:
        assert audit.find_break(session) is None


def test_a_changed_line_shows(database: Database) -> None:
    write_lines(database, 3)
    with database.transaction() as session:
        session.execute(update(AuditRecord).where(AuditRecord.number == 2).values(actor="nobody"))
    with database.transaction() as session:
        assert audit.find_break(session) == "line 2 was changed"


def test_a_missing_line_shows(database: Database) -> None:
    write_lines(database, 3)
    with database.transaction() as session:
        session.execute(text("DELETE FROM audit WHERE number = 2"))
    with database.transaction() as session:
        assert audit.find_break(session) == "line 2 is missing"
