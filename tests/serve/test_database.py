from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `serve` is not installed")

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, undefer

from retigrade import serve
from retigrade.errors import UsageError
from retigrade.serve import audit, record
from retigrade.serve.database import Database
from retigrade.serve.tables import AuditRecord, Base, GradingRecord, PatientRecord
from retigrade.serve.workers import Writer
from served import verdict

NOW = "2026-01-01 00:00:00+00:00"


def enter_patient(session: Session, patient: str) -> bool:
    return record.put_patient(session, patient, name=None, birth_date=None, actor="nurse")


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


def test_a_database_of_the_first_schema_keeps_what_it_holds(url: str) -> None:
    address, folder = make_url(url), Path(serve.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    engine = create_engine(address)
    row = {"path": "a.png", "referable": True}
    values = {"id": "G1", "content": "c" * 64, "created": NOW, "patient": "P1", "bundle": "b", "status": "graded",
              "row": json.dumps(row), "heat": b"a picture"}  # fmt: skip
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO patients (id, created) VALUES ('P1', :now)"), {"now": NOW})
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO gradings ({names}) VALUES ({places})"), values)
    engine.dispose()
    database = Database(url)
    with database.reading() as session:
        (kept,) = session.scalars(select(GradingRecord).options(undefer(GradingRecord.heat)))
        (patient,) = session.scalars(select(PatientRecord))
        assert (kept.row, kept.referable, kept.heat, kept.geometry) == (row, True, None, None)
        assert len(patient.alias) == 36
    database.close()


def test_a_change_that_fails_takes_no_other_along(database: Database) -> None:
    gate, writer = threading.Event(), Writer(database)

    def enter(patient: str) -> Any:
        return lambda session: enter_patient(session, patient)

    def fail(_session: Any) -> None:
        raise RuntimeError("this one alone")

    writer.submit(lambda _session: gate.wait())  # the others wait together meanwhile
    waiting = [writer.submit(change) for change in (enter("P1"), fail, enter("P2"), enter("P1"))]
    gate.set()
    assert waiting[0].result() is True
    with pytest.raises(RuntimeError, match="this one alone"):
        waiting[1].result()
    assert [future.result() for future in waiting[2:]] == [True, False]
    writer.close()
    with database.transaction() as session:
        assert set(session.scalars(select(PatientRecord.id))) == {"P1", "P2"}
        assert audit.ending(session)[0] == 3
        assert audit.find_break(session) is None


def test_who_gives_up_stops_no_change(database: Database) -> None:
    gate, writer = threading.Event(), Writer(database)
    writer.submit(lambda _session: gate.wait())
    given_up = writer.submit(lambda session: enter_patient(session, "P1"))
    assert not given_up.cancel()
    gate.set()
    assert writer.submit(lambda session: enter_patient(session, "P2")).result(timeout=10) is True
    assert given_up.result(timeout=10) is True
    writer.close()


def test_reading_sees_one_moment(url: str) -> None:
    database = Database(url)
    with database.reading() as session:
        assert record.find_patients(session) == []
        with database.transaction() as other:
            enter_patient(other, "P1")
        assert record.find_patients(session) == []
    with database.reading() as session:
        assert [known.id for known in record.find_patients(session)] == ["P1"]
    database.close()


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


@pytest.mark.parametrize(
    "url",
    ["postgres://u:secret@h/x", "mysql://u:secret@h/x", "postgresql+none://u:secret@h/x", "u:secret@h/x",
     "postgresql+psycopg://u:secret@h:abc/x", "postgresql+psycopg://u:secret@127.0.0.1:1/x",
     "postgresql+psycopg://u@127.0.0.1:1/x?password=secret", "sqlite://u:secret@h/x"],
)  # fmt: skip
def test_an_error_holds_no_password(url: str) -> None:
    with pytest.raises(UsageError, match="the database") as met:
        Database(url)
    assert "secret" not in str(met.value)


def test_a_port_that_is_no_number() -> None:
    with pytest.raises(UsageError, match="its port is no number"):
        Database("postgresql+psycopg://u@h:abc/x")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"threads cannot share .* give sqlite:///FILE"):
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


@pytest.mark.parametrize("details", ["no JSON", "", "null", "[" * 100_000])
def test_a_line_of_no_json_shows(database: Database, details: str) -> None:
    write_lines(database, 3)
    with database.transaction() as session:
        session.execute(text("UPDATE audit SET details = :details WHERE number = 2"), {"details": details})
    with database.reading() as session:
        assert audit.find_break(session) == "line 2 was changed"


def test_a_grading_written_meanwhile_is_not_taken_for_one_without_its_line(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(url)
    write_lines(database, 1)
    lines = audit._digest_of

    def grade_meanwhile(*line: object) -> str:
        monkeypatch.setattr(audit, "_digest_of", lines)  # once: it is called again below
        with database.transaction() as session:
            made = verdict(0, "a.jpg", patient=None, eye=None, date=None)
            record.add_grading(session, made, sha256="ab" * 32, content="cd" * 32, operating_point=None, actor="nurse")
        return lines(*line)

    monkeypatch.setattr(audit, "_digest_of", grade_meanwhile)
    with database.reading() as session:
        assert audit.find_break(session) is None
    with database.reading() as session:
        assert audit.ending(session)[0] == 2
    database.close()


def test_a_missing_line_shows(database: Database) -> None:
    write_lines(database, 3)
    with database.transaction() as session:
        session.execute(text("DELETE FROM audit WHERE number = 2"))
    with database.transaction() as session:
        assert audit.find_break(session) == "line 2 is missing"
