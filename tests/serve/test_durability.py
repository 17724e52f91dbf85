"""Nothing that was answered is lost: a server that ends, and one that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from sqlalchemy import select

from retigrade.cli import main
from retigrade.serve import server
from retigrade.serve.database import Database
from retigrade.serve.server import listen, verify
from retigrade.serve.tables import AuditRecord, GradingRecord
from servers import talk


def request(photograph: bytes, number: int) -> bytes:
    start = f"POST /v1/gradings?patient=P{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    return f"{start}Content-Type: image/png\r\nContent-Length: {len(photograph)}\r\n\r\n".encode() + photograph


@contextmanager
def process(folder: Path, bundle: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server of its own on a free port."""
    with listen("127.0.0.1", 0) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "retigrade", "serve", "--port", str(port), "--bundle", str(bundle),
               "--database", f"sqlite:///{folder / 'record.db'}", "--jobs", "1"]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert running.stderr is not None
    for line in running.stderr:
        if b"serves at" in line:
            break
    try:
        yield running, port
    finally:
        running.kill()
        running.communicate()


def load_until_closed(port: int, photograph: bytes, answered: list[str], threads: int) -> list[threading.Thread]:
    def work(start: int) -> None:
        for number in range(start, 100_000, threads):
            try:
                answer = talk(port, request(photograph, number), seconds=60)
            except OSError:
                return
            if not answer.startswith(b"HTTP/1.1 201"):
                return
            answered.append(json.loads(answer.partition(b"\r\n\r\n")[2])["gradings"][0]["id"])

    started = [threading.Thread(target=work, args=(start,)) for start in range(threads)]
    for thread in started:
        thread.start()
    return started


def ids(folder: Path) -> set[str]:
    database = Database(f"sqlite:///{folder / 'record.db'}")
    with database.reading() as session:
        found = set(session.scalars(select(GradingRecord.id)))
    database.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_answered_is_in_the_database(
    tmp_path: Path, bundle: Path, photograph: bytes, number: signal.Signals
) -> None:
    answered: list[str] = []
    with process(tmp_path, bundle) as (running, port):
        threads = load_until_closed(port, photograph, answered, 4)
        while len(answered) < 12:
            time.sleep(0.01)
        running.send_signal(number)
        code = running.wait(60)
        for thread in threads:
            thread.join()
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    assert set(answered) <= ids(tmp_path)
    sentence, is_whole = verify(f"sqlite:///{tmp_path / 'record.db'}")
    assert is_whole, sentence
    if number is signal.SIGTERM:  # it finished what it accepted, and said so
        assert len(ids(tmp_path)) == len(answered)


def make_log(folder: Path, count: int) -> Database:
    database = Database(f"sqlite:///{folder / 'record.db'}")
    from retigrade.serve import audit

    with database.transaction() as session:
        for number in range(count):
            audit.append(session, actor="nurse", action="test", details={"number": number})
    return database


def test_the_log_is_verified_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = make_log(tmp_path, 3)
    arguments = ["serve", "--verify-log", "--database", f"sqlite:///{tmp_path / 'record.db'}"]
    assert main(arguments) == 0
    assert "the audit log is whole: 3 lines" in capsys.readouterr().out
    with database.transaction() as session:
        line = session.get(AuditRecord, 2)
        assert line is not None
        line.details = {"number": 7}
    database.close()
    assert main(arguments) == 1
    assert "the audit log is not whole: line 2 was changed" in capsys.readouterr().out


def test_a_token_is_made_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens"
    assert main(["serve", "--new-token", "nurse:write", "--token-file", str(path)]) == 0
    token = capsys.readouterr().out.strip()
    assert len(token) >= 43
    assert token not in path.read_text()
    assert main(["serve", "--new-token", "nurse:write", "--token-file", str(path)]) == 2
    assert "has a token named nurse" in capsys.readouterr().err
    assert main(["serve", "--new-token", "nurse:write"]) == 2
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "so it needs --token-file" in capsys.readouterr().err


def test_answers_do_not_wait_for_full_packets(live: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = server._Protocol.connection_made, []

    def look(self: Any, transport: Any) -> None:
        made(self, transport)
        seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(server._Protocol, "connection_made", look)
    port = live()
    answer = talk(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(seen) == 1
    assert seen[0] != 0
