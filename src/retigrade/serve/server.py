"""The HTTP server: its socket, its limits and its end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retigrade.errors import UsageError
from retigrade.grader import Grader
from retigrade.serve import audit
from retigrade.serve.app import create_app
from retigrade.serve.config import ServeConfig
from retigrade.serve.database import Database, first_line
from retigrade.serve.middleware import ACCESS

_SHUTDOWN_SECONDS = 60
_KEEP_ALIVE_SECONDS = 20
_HEADER_SECONDS = 15.0
_CONNECTIONS, _BACKLOG = 900, 2048


def verify(url: str) -> tuple[str, bool]:
    """Return one sentence on a database's audit log, and whether the log is whole.

    Raises UsageError where it has none, or it cannot be read.
    """
    database = Database(url, is_made=False)
    try:
        with database.reading() as session:
            broken = audit.find_break(session)
            count, last = audit.ending(session)
    except SQLAlchemyError as error:
        raise UsageError(f"the audit log cannot be read: {first_line(error)}") from error
    finally:
        database.close()
    if broken is not None:
        return f"the audit log is not whole: {broken}", False
    return f"the audit log is whole: {count} lines, the last one {last}", True


def run(config: ServeConfig, *, grader: Grader) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted.

    grader: one with the bundle of `config`. Raises UsageError where the port is taken or the database cannot be used.
    """
    listener = listen(config.host, config.port)
    try:
        app = create_app(config, grader=grader)
        _log_to_stderr()
        host, port = listener.getsockname()[:2]
        sys.stderr.write(f"retigrade serves at http://{f'[{host}]' if ':' in host else host}:{port}\n")
        sys.stderr.flush()
        gc.collect()
        gc.freeze()  # what is there now stays: to look through it again and again would cost every request
        make_server(app).run(sockets=[listener])
    finally:
        listener.close()


def make_server(app: FastAPI) -> uvicorn.Server:
    """Return the server of an application, to be run on a socket that listens."""
    return _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


class _Server(uvicorn.Server):
    """A server whose end on a signal is an end like any other: what was accepted is done, and the exit code is 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # it would raise them once more


class _Protocol(HttpToolsProtocol):
    """HTTP over one connection, closed where the headers of a request do not come in time."""

    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()
        if len(self.connections) > _CONNECTIONS:  # each takes a number of the process's open files
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._slow is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_headers()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._slow = self.loop.call_later(_HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; UsageError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off the waiting for full packets (TCP_NODELAY) only where a socket names its protocol
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop the other program there, or give another --port"
        ) from error
    return listener


class _JsonLines(logging.Formatter):
    """One JSON object a line; what is one already stays as it is."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == ACCESS.name:
            return record.getMessage()
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[2] is not None:
            line["where"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_to_stderr() -> None:
    """Write a line for each request and for what goes wrong; no name of a file or patient is in it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    for name, level in (("retigrade.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
