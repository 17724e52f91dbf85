"""The database: opened, brought to today's schema, and asked one transaction at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Executable, create_engine, event, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from retigrade.errors import UsageError
from retigrade.serve import audit
from retigrade.serve.tables import Base
from retigrade.text import shown

_BUSY_SECONDS = 10.0
_READING = "retigrade_reading"
_BACKENDS = ("sqlite", "postgresql")
_KIND = re.compile(r"[A-Za-z0-9_+]{1,40}://")


class Database:
    """A database at today's schema; safe to share between threads."""

    def __init__(self, url: str, *, busy_seconds: float = _BUSY_SECONDS, is_made: bool = True) -> None:
        """url: as SQLAlchemy has it, `sqlite:///retigrade.db` or `postgresql+psycopg://user@host/name`.

        busy_seconds: how long to wait for another program that has the database locked. is_made: whether one that is
        missing or of an older schema is brought to today's; if not, it is an error.
        Raises UsageError where it cannot be opened or written, or was made by a newer version.
        """
        address = _address(url)
        backend = address.get_backend_name()
        try:
            self._engine = create_engine(address, hide_parameters=True, **_options(backend, busy_seconds))
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise _unusable(url, f" ({error})" if isinstance(error, ModuleNotFoundError) else "") from error
        if backend == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_immediately)
        options: dict[str, Any] = {_READING: True}
        if backend == "postgresql":  # SQLite shows one moment in every transaction by itself
            options |= {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}
        self._reading = self._engine.execution_options(**options)
        where = address.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)
        if not is_made and backend == "sqlite" and not Path(address.database or "").is_file():
            raise UsageError(f"there is no database {shown(where)}; name one with --database")
        try:
            _migrate(self._engine, is_made=is_made)
        except SQLAlchemyError as error:
            self.close()
            raise UsageError(f"the database {shown(where)} cannot be opened: {first_line(error)}") from error
        except UsageError:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session; its changes and their audit lines are on the disk once this returns, or not made at all."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session
            audit.write_pending(session)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that changes nothing, waits for none that does, and sees the record of one moment."""
        with Session(self._reading, expire_on_commit=False, autoflush=False) as session:
            yield session

    def check(self) -> None:
        """Raise SQLAlchemyError unless the database answers."""
        with self._reading.connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()


def insert_new(session: Session, table: type[Base], values: dict[str, Any]) -> bool:
    """Insert a row unless one with the same key is there; return whether it was inserted.

    It goes round the session's own account of objects, which costs more than the statement.
    """
    connection = session.connection()
    return connection.execute(_insert_new(connection.dialect.name, table), values).rowcount == 1


@cache
def _insert_new(dialect: str, table: type[Base]) -> Executable:
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return postgresql.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def _address(url: str) -> URL:
    """Return a database's address; UsageError where it cannot be one, or is of no kind that is known here."""
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise _unusable(url) from error
    except ValueError as error:
        raise _unusable(url, " (its port is no number)") from error
    backend = address.get_backend_name()
    if backend not in _BACKENDS:
        raise _unusable(url)
    name = address.database or ":memory:"
    if backend == "sqlite" and (":memory:" in name or address.query.get("mode") == "memory"):
        raise UsageError(
            "the database is one in memory, which the server's threads cannot share and which ends with it; give "
            "sqlite:///FILE"
        )
    return address


def _unusable(url: str, why: str = "") -> UsageError:
    kind = _KIND.match(url)  # and no more: the rest of the address may hold a password
    return UsageError(
        f"the database {f'{kind[0]}...' if kind else 'address'} cannot be used{why}; give sqlite:///FILE or "
        "postgresql+psycopg://USER@HOST:PORT/NAME"
    )


def _options(backend: str, busy_seconds: float) -> dict[str, Any]:
    if backend == "sqlite":
        return {"connect_args": {"timeout": busy_seconds}}
    options = f"-c lock_timeout={round(busy_seconds * 1000)} -c timezone=UTC"  # months are those of UTC everywhere
    return {"pool_size": 10, "pool_pre_ping": True, "connect_args": {"connect_timeout": 10, "options": options}}


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Let SQLite keep what it has answered, check references, wipe what is deleted; SQLAlchemy has the transactions."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediately(connection: Any) -> None:
    """Take SQLite's one place of writing at the start: a transaction that asks for it later can fail halfway."""
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _migrate(engine: Engine, *, is_made: bool) -> None:
    """Bring the database to today's schema; UsageError where it is of a newer one, or may not be changed."""
    folder = Path(str(resources.files("retigrade.serve"))) / "migrations"
    known = sorted(path.name.partition("_")[0] for path in (folder / "versions").glob("[0-9]*.py"))
    with engine.begin() as connection:
        current = _revision(connection)
        if current is not None and current not in known:
            raise UsageError(
                f"the database is of schema {current}, newer than this program: install the version that made it"
            )
        if current == known[-1]:
            if is_made:  # one that cannot be written shows now, not at the first grading
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
            return
        if not is_made:
            raise UsageError("the database has no record of this version: start the server on it once")
        from alembic import command  # it takes a moment, and most starts do not need it
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    """Return the schema that Alembic has brought a database to, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def first_line(error: SQLAlchemyError) -> str:
    """Return what the database said, in one line."""
    return shown(str(getattr(error, "orig", None) or error).splitlines()[0])
