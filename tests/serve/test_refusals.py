"""Bad input, each a test: what is refused says what was seen, what is needed and what to try, and nothing is kept."""

from __future__ import annotations

import asyncio
import datetime
import errno
import io
import shutil
import sqlite3
import stat
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient
from sqlalchemy import event, text
from starlette.requests import Request

from retigrade.cli import main
from retigrade.errors import BundleError, UsageError
from retigrade.grader import Grader, load
from retigrade.serve.app import create_app
from retigrade.serve.config import ServeConfig
from retigrade.serve.database import Database
from retigrade.serve.page.forms import read_form, read_names
from retigrade.serve.photos import PhotoStore
from retigrade.serve.problems import Problem
from retigrade.serve.security import new_token
from retigrade.serve.server import listen, verify
from servers import talk
from tiny_bundle import write_tiny_bundle

Serve = Callable[..., TestClient]


def post(client: TestClient, content: bytes | None = None, **values: Any) -> Any:
    return client.post("/v1/gradings", content=content, **values)


def refused(answer: Any, status: int, seen: str) -> None:
    """Check a problem, and that it says what to do."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert seen in problem["seen"]
    assert problem["status"] == status
    assert problem["needed"]
    assert problem["try"]
    assert problem["detail"].startswith(problem["seen"])
    assert problem["instance"].endswith(answer.headers["x-request-id"])


MULTIPART = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'


def form(*parts: tuple[bytes, bytes, bytes]) -> bytes:
    return b"".join(PART % part for part in parts) + b"--x--\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "status", "seen"),
    [
        (MULTIPART, b"--x--\r\n", 422, "without a photograph"),
        (MULTIPART, b"", 400, "without its end"),
        (MULTIPART, b"garbage", 400, "not what its Content-Type says"),
        (MULTIPART, form((b"files", b'; filename="a"', b"x"))[:-6], 400, "without its end"),
        (MULTIPART, form((b"files", b'; filename=""', b"")), 422, "without a photograph"),
        (MULTIPART, form((b"file", b'; filename="a"', b"x")), 422, "a field named file"),
        (MULTIPART, form((b"files", b"; filename*=utf-8''a; filename*1=b", b"x")), 400, "Content-Disposition"),
        (MULTIPART, form((b"files", b"; filename*=%00''a", b"x")), 400, "Content-Disposition"),
        (
            MULTIPART,
            form((b"files", b"", b"x"), (b"patient", b"", b"A" * 10_240)),
            422,
            "a patient of 10240 characters",
        ),
        (MULTIPART, form((b"files", b"", b"x"), (b"patient", b"", b"A\x00B")), 422, "control characters"),
        (MULTIPART, form((b"files", b"", b"x"), (b"patient", b"", b"A\nB")), 422, "control characters"),
        (MULTIPART, form((b"files", b"", b"x"), (b"patient", b"", b"A" * 70_000)), 413, "in one field"),
        (MULTIPART, form((b"files", b"", b"x"), (b"eye", b"", b"third")), 422, "eye 'third' is neither"),
        (MULTIPART, form((b"files", b"", b"x"), (b"date", b"", b"2025-02-30")), 422, "does not exist"),
        (MULTIPART, form((b"files", b"", b"x"), (b"date", b"", b"01/02/2025")), 422, "can be read with the day"),
        (MULTIPART, form((b"files", b"", b"x"), (b"date", b"", b"2999-01-01")), 422, "in the future"),
        ("multipart/form-data", b"x", 400, "no boundary"),
        ("application/json", b"{}", 415, "application/json"),
        ("application/x-www-form-urlencoded", b"files=1", 415, "urlencoded"),
        ("", b"x", 415, "(none)"),
        ("text/plain\x0b", b"x", 415, "text/plain"),
        ("image/jpeg", b"", 422, "without a photograph"),
    ],
)
def test_a_request_that_cannot_be(serve: Serve, kind: str, body: bytes, status: int, seen: str) -> None:
    client = serve()
    refused(post(client, body, headers={"Content-Type": kind}), status, seen)
    assert client.get("/v1/gradings").json()["total"] == 0


def test_a_date_is_in_the_future_from_the_day_after_tomorrow_on(serve: Serve, photograph: bytes) -> None:
    client = serve()
    today = datetime.datetime.now(datetime.UTC).date()
    for days, status in ((1, 201), (2, 422)):
        date = today + datetime.timedelta(days=days)
        answer = post(client, photograph, params={"date": str(date)}, headers={"Content-Type": "image/png"})
        assert answer.status_code == status


def test_ten_thousand_files(serve: Serve) -> None:
    body = form(*((b"files", b'; filename="a"', b"x") for _ in range(10_000)))
    refused(post(serve(), body, headers={"Content-Type": MULTIPART}), 413, "more than 100 files")


def test_a_zip_gets_an_error_as_on_the_command_line(serve: Serve) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("eye.png", b"x" * 1000)
    answer = post(serve(), packed.getvalue(), headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 201
    assert answer.json()["gradings"][0]["status"] == "error"
    assert "not a picture" in answer.json()["gradings"][0]["reasons"][0]


@pytest.mark.parametrize("is_multipart", [True, False])
def test_too_many_bytes(serve: Serve, is_multipart: bool) -> None:
    client = serve(max_bytes=1000, max_request_bytes=5000)
    kind = MULTIPART if is_multipart else "image/png"
    for size, seen in ((1001, "in one photograph"), (6000, "in one request")):
        data = b"x" * size
        body = form((b"files", b'; filename="a"', data)) if is_multipart else data
        refused(post(client, body, headers={"Content-Type": kind}), 413, seen)


def test_too_many_bytes_that_nobody_announced(live: Callable[..., int]) -> None:
    port = live(max_bytes=1000, max_request_bytes=5000)
    head = b"POST /v1/gradings HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    answer = talk(port, head + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + b"x" * 0x1000 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_too_many_pixels(serve: Serve, photograph: bytes) -> None:
    answer = post(serve(max_pixels=320 * 320 - 1), photograph, headers={"Content-Type": "image/png"})
    assert answer.json()["gradings"][0]["status"] == "error"
    assert "320 x 320 pixels, more than the 102399" in answer.json()["gradings"][0]["reasons"][0]


def test_a_large_body_elsewhere(serve: Serve) -> None:
    client = serve()
    refused(client.put("/v1/patients/P1", content=b"x" * (2**20 + 1)), 413, "bytes")


@pytest.mark.parametrize("kind", ["image/jpeg", MULTIPART, "application/octet-stream", "application/dicom"])
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_large_body_elsewhere_is_not_read_whatever_it_calls_itself(
    serve: Serve, tmp_path: Path, kind: str, is_announced: bool
) -> None:
    new_token(tmp_path / "tokens", "nurse", "write")
    client = serve(token_file=tmp_path / "tokens")  # and nobody has shown a token yet
    body = b"x" * (2**20 + 1)
    for method, address in (("PUT", "/v1/patients/P1"), ("POST", "/v1/gradings/x/readings"), ("POST", "/login")):
        answer = client.request(
            method, address, content=body if is_announced else iter([body]), headers={"Content-Type": kind}
        )
        refused(answer, 413, "bytes")
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"nome": "x"}', b'{"birth_date": "2999-01-01"}', b'{"name": "a\\nb"}']
)
def test_a_patient_that_cannot_be(serve: Serve, body: bytes) -> None:
    answer = serve().put("/v1/patients/P1", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("patient", ["A" * 201, "%00", "a%07b", "%20"])
def test_a_patient_s_address_that_cannot_be(serve: Serve, patient: str) -> None:
    assert serve().put(f"/v1/patients/{patient}", json={}).status_code == 422


def test_unknown_addresses_and_methods(serve: Serve) -> None:
    client = serve()
    refused(client.get("/v2/gradings"), 404, "/v2/gradings")
    refused(client.delete("/v1/gradings"), 405, "DELETE")
    refused(client.get("/v1/gradings/unknown"), 404, "an id that no grading has")
    refused(client.get("/v1/gradings?limit=0"), 422, "query.limit")


def test_too_many_requests_at_once_are_asked_to_come_again(serve: Serve, photograph: bytes) -> None:
    client = serve(max_waiting=1)
    admission = client.app.state.service.admission  # type: ignore[attr-defined]
    with admission.request():
        answer = post(client, photograph, headers={"Content-Type": "image/png"})
        refused(answer, 503, "1 requests are waiting")
        assert int(answer.headers["retry-after"]) > 0
    assert post(client, photograph, headers={"Content-Type": "image/png"}).status_code == 201
    assert (admission.waiting, admission.held) == (0, 0)


def test_too_many_bytes_at_once_are_asked_to_come_again(serve: Serve, photograph: bytes) -> None:
    client = serve(max_waiting_bytes=1000)
    refused(post(client, photograph, headers={"Content-Type": "image/png"}), 503, "memory set aside")
    assert client.app.state.service.admission.held == 0  # type: ignore[attr-defined]


def test_a_slow_upload_ends(live: Callable[..., int], photograph: bytes) -> None:
    port = live(upload_seconds=0.3)
    head = b"POST /v1/gradings HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    started = time.monotonic()
    answer = talk(port, head + photograph[:1000])
    assert time.monotonic() - started < 8
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"1000 bytes in 0.3 s" in answer


def test_a_slow_form_ends(live: Callable[..., int]) -> None:
    port = live(upload_seconds=0.3)
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    answer = talk(port, head + b"Content-Length: 1000\r\n\r\ntoken=")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"6 bytes in 0.3 s" in answer


@pytest.mark.parametrize("read", [read_form, read_names])
def test_a_form_that_breaks_off(serve: Serve, read: Callable[[Request], Any]) -> None:
    pieces = iter([{"type": "http.request", "body": b"token=", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(pieces)

    kind = (b"content-type", b"application/x-www-form-urlencoded")
    scope = {"type": "http", "method": "POST", "path": "/login", "headers": [kind], "app": serve().app}
    with pytest.raises(Problem, match="ended before its end") as met:
        asyncio.run(read(Request(scope, receive)))
    assert met.value.status == 400


def test_slow_headers_end(live: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.serve.server._HEADER_SECONDS", 0.3)
    port = live()
    started = time.monotonic()
    assert talk(port, b"POST /v1/gradings HTTP/1.1\r\nHost: loc") == b""
    assert time.monotonic() - started < 8


def test_many_slow_uploads_hold_nobody_up(live: Callable[..., int], photograph: bytes) -> None:
    port = live(upload_seconds=3, max_waiting=64)
    head = b"POST /v1/gradings HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    slow = [threading.Thread(target=talk, args=(port, head + b"Content-Length: 100000\r\n\r\nx")) for _ in range(20)]
    for thread in slow:
        thread.start()
    whole = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(photograph) + photograph
    answer = talk(port, whole)
    assert answer.startswith(b"HTTP/1.1 201 ")
    for thread in slow:
        thread.join()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/gradings HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_http_that_is_none_does_no_harm(live: Callable[..., int], data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.serve.server._HEADER_SECONDS", 0.5)
    port = live()
    try:
        answer = talk(port, data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    except OSError:
        answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert talk(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )


# The database ---------------------------------------------------------------------------------------------------------


def test_a_database_that_becomes_full(serve: Serve, photographs: dict[Any, bytes]) -> None:
    client = serve()
    service = client.app.state.service  # type: ignore[attr-defined]
    event.listen(
        service.database._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1")
    )
    service.database.close()  # its connections are opened again, with that limit
    answers = [post(client, data + bytes(8000), headers={"Content-Type": "image/png"}) for data in photographs.values()]
    full = [answer for answer in answers if answer.status_code != 201]
    assert full
    refused(full[-1], 503, "full")
    assert full[-1].headers["retry-after"]
    assert client.get("/v1/gradings").json()["total"] == len(answers) - len(full)


def test_a_database_that_another_program_has_locked(serve: Serve, tmp_path: Path, photograph: bytes) -> None:
    client = serve()
    service = client.app.state.service  # type: ignore[attr-defined]
    event.listen(
        service.database._engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=50")
    )
    service.database.close()
    other = sqlite3.connect(tmp_path / "record.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused(post(client, photograph, headers={"Content-Type": "image/png"}), 503, "locked by another program")
    assert client.get("/v1/gradings").json()["total"] == 0  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    assert post(client, photograph, headers={"Content-Type": "image/png"}).status_code == 201


def test_a_database_that_becomes_read_only(serve: Serve, photograph: bytes) -> None:
    client = serve()
    service = client.app.state.service  # type: ignore[attr-defined]
    event.listen(service.database._engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
    service.database.close()
    refused(post(client, photograph, headers={"Content-Type": "image/png"}), 503, "read-only")


def test_a_read_only_database_at_the_start(tmp_path: Path, grader: Grader) -> None:
    Database(f"sqlite:///{tmp_path / 'record.db'}").close()
    with pytest.raises(
        UsageError, match=r"the database sqlite:.* cannot be opened: attempt to write a readonly database"
    ):
        Database(f"sqlite:///file:{tmp_path / 'record.db'}?mode=ro&uri=true").close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "record.db").write_bytes(b"no database at all, but as long as one" * 40)
    with pytest.raises(UsageError, match="cannot be opened: file is not a database"):
        Database(f"sqlite:///{tmp_path / 'record.db'}")


def test_a_newer_schema(url: str, grader: Grader) -> None:
    database = Database(url)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(UsageError, match="schema 9999, newer than this program"):
        create_app(ServeConfig(database=url), grader=grader)


def test_a_log_is_looked_for_in_a_database_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no database"):
        verify(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []


# The rest -------------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken() -> None:
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1:\d+ .* --port"),
    ):
        listen("127.0.0.1", first.getsockname()[1])


def test_a_bundle_altered_while_serving_changes_no_answer(tmp_path: Path, photograph: bytes) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.onnx")
    config = ServeConfig(database=f"sqlite:///{tmp_path / 'record.db'}", bundle=bundle, jobs=1)
    with TestClient(create_app(config), base_url="http://127.0.0.1") as client:
        headers = {"Content-Type": "image/png"}
        before = post(client, photograph, headers=headers).json()["gradings"][0]
        data = bytearray(bundle.read_bytes())
        data[len(data) // 2] ^= 1
        bundle.write_bytes(data + b"x")
        after = post(client, photograph, headers=headers, params={"patient": "P1"}).json()["gradings"][0]
        assert [after[name] for name in ("bundle", "grade", "p0")] == [
            before[name] for name in ("bundle", "grade", "p0")
        ]
        (note,) = client.get("/ready").json()["notes"]
        assert "has changed since the start" in note
    with pytest.raises(BundleError):
        load(bundle)


def test_a_folder_that_no_photograph_can_be_kept_in(tmp_path: Path, grader: Grader) -> None:
    (tmp_path / "photos").write_text("a file")
    config = ServeConfig(database=f"sqlite:///{tmp_path / 'record.db'}", keep_photos=tmp_path / "photos")
    with pytest.raises(UsageError, match=r"it is not a folder; name another one$"):
        create_app(config, grader=grader)


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(_path: Path, _mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", chmod)  # as root, every folder is one's own
    with pytest.raises(UsageError, match=r"cannot be kept from others \(Operation not permitted\); .* --keep-photos"):
        PhotoStore(tmp_path / "photos")


@pytest.mark.parametrize(
    "values",
    [{"port": -1}, {"port": 65536}, {"jobs": 0}, {"max_bytes": 0}, {"upload_seconds": 0}, {"retention_days": 3},
     {"upload_seconds": float("nan")}],
)  # fmt: skip
def test_options_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        ServeConfig(**values)


@pytest.mark.parametrize("option", ["--max-megabytes", "--max-megapixels"])
def test_the_option_that_was_typed_is_named(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["serve", option, "0"]) == 2
    assert f"{option} must be more than 0, got 0" in capsys.readouterr().err


def test_a_disk_that_photographs_cannot_be_kept_on(serve: Serve, tmp_path: Path, photograph: bytes) -> None:
    client = serve(keep_photos=tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos")
    (tmp_path / "photos").write_text("a file now")
    answer = post(client, photograph, headers={"Content-Type": "image/png"})
    refused(answer, 503, "photograph cannot be kept")
    assert stat.S_ISREG((tmp_path / "photos").stat().st_mode)
