"""Who is let in and what an attacker can do: each of OWASP's basics is a test, and none gets through."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi import Response
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.requests import Request

from retigrade.errors import UsageError
from retigrade.serve.config import ServeConfig
from retigrade.serve.middleware import ACCESS
from retigrade.serve.security import COOKIE, CSRF_HEADER, Role, Tokens, new_token, read_tokens
from retigrade.serve.tables import AuditRecord, GradingRecord
from servers import BASE

Serve = Callable[..., TestClient]
HOSTILE = "\"><script>alert(1)</script>'{{7*7}}"


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    """A token of each role, in the file `tokens`."""
    return {role: new_token(tmp_path / "tokens", role, role) for role in ("read", "write", "admin")}


@pytest.fixture
def guarded(serve: Serve, tmp_path: Path, tokens: dict[str, str]) -> TestClient:
    return serve(token_file=tmp_path / "tokens")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def files(data: bytes, name: str = "eye.png") -> Any:
    return [("files", (name, data, "image/png"))]


def actions(client: TestClient) -> list[tuple[str, str]]:
    client.app.state.service.note("test", "look", {}).result()  # type: ignore[attr-defined]  # after what waits
    with client.app.state.service.database.reading() as session:  # type: ignore[attr-defined]
        return [(line.actor, line.action) for line in session.scalars(select(AuditRecord).order_by(AuditRecord.number))]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_another_host_needs_tokens(host: str) -> None:
    with pytest.raises(UsageError, match="so it needs --token-file FILE"):
        ServeConfig(host=host)


def test_tokens_are_hashed_at_rest(tmp_path: Path, tokens: dict[str, str]) -> None:
    text = (tmp_path / "tokens").read_text()
    assert not any(token in text for token in tokens.values())
    assert (tmp_path / "tokens").stat().st_mode & 0o077 == 0
    assert [token.role for token in read_tokens(tmp_path / "tokens")] == [Role.READ, Role.WRITE, Role.ADMIN]
    assert Tokens(tmp_path / "tokens").find(tokens["write"]) is not None
    assert Tokens(tmp_path / "tokens").find(tokens["write"] + "x") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no token"),
        ("nurse write secret\n", "line 1 holds no SHA-256"),
        ("nurse boss " + "0" * 64, "line 1 is not NAME ROLE DIGEST"),
        ("a read " + "0" * 64 + "\na read " + "1" * 64, "the name a is there twice"),
    ],
)
def test_a_token_file_that_cannot_be(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        Tokens(tmp_path / "tokens")


def test_each_role_may_do_what_it_may(guarded: TestClient, tokens: dict[str, str], photograph: bytes) -> None:
    def statuses(role: str) -> list[int]:
        headers = bearer(tokens[role])
        return [
            guarded.get("/v1/gradings", headers=headers).status_code,
            guarded.post("/v1/gradings", files=files(photograph), headers=headers).status_code,
            guarded.put("/v1/patients/P1", json={}, headers=headers).status_code,
            guarded.delete("/v1/patients/P1", headers=headers).status_code,
        ]

    assert statuses("read") == [200, 403, 403, 403]
    assert statuses("write") == [200, 201, 201, 403]
    assert statuses("admin") == [200, 201, 200, 204]


@pytest.mark.parametrize(
    "address",
    ["/v1/gradings", "/v1/gradings/x", "/v1/patients", "/v1/patients/x/timeline", "/v1/statistics", "/v1/export",
     "/v1/bundle", "/metrics"],
)  # fmt: skip
def test_without_a_token_nothing_is_told(guarded: TestClient, address: str) -> None:
    answer = guarded.get(address)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_health_is_for_everybody(guarded: TestClient) -> None:
    assert guarded.get("/health").status_code == guarded.get("/ready").status_code == 200


def test_guessing_tokens_ends_soon(guarded: TestClient, tokens: dict[str, str]) -> None:
    statuses = [guarded.get("/v1/gradings", headers=bearer(f"guess{n}")).status_code for n in range(15)]
    assert statuses == [401] * 10 + [429] * 5
    assert actions(guarded).count(("unknown", "refuse token")) == 10
    answer = guarded.get("/v1/gradings", headers=bearer("guess"))
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "bearer\t", "Bearer a b", "Bearer \xff"])
def test_authorization_of_another_kind(guarded: TestClient, header: str) -> None:
    answer = guarded.get("/v1/gradings", headers={"Authorization": header.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 401


def test_a_token_taken_out_of_the_file_ends_at_once(
    guarded: TestClient, tmp_path: Path, tokens: dict[str, str]
) -> None:
    assert guarded.get("/v1/gradings", headers=bearer(tokens["read"])).status_code == 200
    lines = (tmp_path / "tokens").read_text().splitlines(keepends=True)
    (tmp_path / "tokens").write_text("".join(line for line in lines if not line.startswith("read ")))
    assert guarded.get("/v1/gradings", headers=bearer(tokens["read"])).status_code == 401
    assert guarded.get("/v1/gradings", headers=bearer(tokens["write"])).status_code == 200


@pytest.mark.parametrize("content", [None, b"", b"# nobody\n", b"read re", b"\xff\xfe"])
def test_a_token_file_that_cannot_be_used_lets_nobody_in_until_it_can(
    guarded: TestClient, tmp_path: Path, tokens: dict[str, str], content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file, away = tmp_path / "tokens", tmp_path / "away"
    file.rename(away)
    if content is not None:
        file.write_bytes(content)
    statuses = [guarded.get("/v1/gradings", headers=bearer(tokens["read"])).status_code for _ in range(3)]
    assert statuses == [401] * 3
    assert sum("nobody is let in any more" in line.getMessage() for line in caplog.records) == 1
    file.unlink(missing_ok=True)
    away.rename(file)  # with the time of its last change as it was
    assert guarded.get("/v1/gradings", headers=bearer(tokens["read"])).status_code == 200


@pytest.mark.parametrize(
    ("content", "why"), [(None, "Is a directory"), (b"\xff", "not UTF-8"), (b"x", "line 1 is not")]
)
def test_a_token_goes_into_a_file_of_tokens_alone(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "tokens"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=f"tokens cannot be used: .*{why}"):
        new_token(path, "nurse", "write")


def test_a_token_goes_into_a_file_of_comments(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("# of the clinic\n")
    new_token(tmp_path / "tokens", "nurse", "write")
    assert [token.name for token in read_tokens(tmp_path / "tokens")] == ["nurse"]


def session_of(client: TestClient, token: str) -> tuple[str, str]:
    """Sign in as the page does, and return the cookie and the page's token."""
    guard = client.app.state.service.guard  # type: ignore[attr-defined]
    scope = {"type": "http", "method": "POST", "headers": [], "client": ("1.2.3.4", 5), "scheme": "http",
             "server": ("127.0.0.1", 80), "path": "/login", "query_string": b""}  # fmt: skip
    response = Response()
    caller = guard.sign_in(Request(scope), response, token)
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    return str(caller.session), guard.csrf_token(caller)


def test_a_session_needs_the_page_s_own_token_to_change_something(
    guarded: TestClient, tokens: dict[str, str], photograph: bytes
) -> None:
    session, csrf = session_of(guarded, tokens["write"])
    cookie = {"Cookie": f"{COOKIE}={session}"}
    assert guarded.get("/v1/gradings", headers=cookie).status_code == 200
    forged = guarded.post("/v1/gradings", files=files(photograph), headers=cookie)
    assert forged.status_code == 403
    wrong = guarded.post("/v1/gradings", files=files(photograph), headers={**cookie, CSRF_HEADER: csrf[:-1] + "x"})
    assert wrong.status_code == 403
    right = guarded.post("/v1/gradings", files=files(photograph), headers={**cookie, CSRF_HEADER: csrf})
    assert right.status_code == 201
    assert ("write", "sign in") in actions(guarded)


@pytest.mark.parametrize("change", [lambda s: s[:-1] + "0", lambda s: s.replace("write", "admin", 1), lambda s: "x"])
def test_a_session_cannot_be_forged(guarded: TestClient, tokens: dict[str, str], change: Callable[[str], str]) -> None:
    session, _ = session_of(guarded, tokens["write"])
    changed = change(session)
    if changed != session:
        answer = guarded.get("/v1/gradings", headers={"Cookie": f"{COOKIE}={changed}"})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Origin": "http://127.0.0.1:8001"}],
)  # fmt: skip
def test_another_site_cannot_send_a_form(serve: Serve, photograph: bytes, headers: dict[str, str]) -> None:
    client = serve()
    assert client.post("/v1/gradings", files=files(photograph), headers=headers).status_code == 403
    assert client.get("/v1/gradings").json()["total"] == 0


def test_the_page_s_own_site_can(serve: Serve, photograph: bytes) -> None:
    answer = serve().post("/v1/gradings", files=files(photograph), headers={"Origin": BASE})
    assert answer.status_code == 201


def test_a_name_pointed_at_this_machine_is_refused(serve: Serve) -> None:
    client = serve()
    assert client.get("/v1/gradings", headers={"Host": "evil.example"}).status_code == 421
    for host in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
        assert client.get("/v1/gradings", headers={"Host": host}).status_code == 200


def test_other_sites_read_nothing_unless_they_are_named(serve: Serve) -> None:
    origin = {"Origin": "https://clinic.example"}
    closed = serve()
    assert "access-control-allow-origin" not in closed.get("/v1/gradings", headers=origin).headers
    opened = serve(origins=("https://clinic.example",))
    assert opened.get("/v1/gradings", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]
    other = opened.get("/v1/gradings", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("address", ["/v1/gradings", "/health", "/nothing", "/docs"])
def test_every_answer_keeps_a_browser_safe(serve: Serve, address: str) -> None:
    headers = serve().get(address).headers
    policy = {part.split()[0]: part.split()[1:] for part in headers["content-security-policy"].split(";")}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == ["'self'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd", "a\x00.png", "con\r\nX-Evil: 1.png", "..", ""],
)
def test_a_file_name_leads_nowhere(serve: Serve, tmp_path: Path, photograph: bytes, name: str) -> None:
    client = serve(keep_photos=tmp_path / "photos")
    answer = client.post(
        "/v1/gradings", params={"name": name}, content=photograph, headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 201
    path = answer.json()["gradings"][0]["path"]
    assert "/" not in path
    assert "\\win" not in path
    assert path.isprintable()
    assert "x-evil" not in answer.headers
    assert all(len(kept.name) in (2, 64) for kept in (tmp_path / "photos").rglob("*"))


@pytest.mark.parametrize(
    "address",
    ["/v1/gradings/../../etc/passwd", "/v1/gradings/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/patients/..%2f..%2fetc",
     "/docs/%2e%2e/%2e%2e/server.py", "/v1/gradings/%00/heat.png"],
)  # fmt: skip
def test_an_address_leads_nowhere(serve: Serve, address: str) -> None:
    answer = serve().get(address)
    assert answer.status_code in (404, 422)
    assert "root:" not in answer.text


def test_names_are_data_and_never_markup(serve: Serve, photograph: bytes) -> None:
    client = serve()
    answer = client.post("/v1/gradings", files=files(photograph, HOSTILE), data={"patient": HOSTILE})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["gradings"][0]["patient"] == HOSTILE
    assert client.get(f"/v1/gradings/{HOSTILE}", headers={"Accept": "application/json"}).status_code == 404
    page = client.get("/gradings/" + answer.json()["gradings"][0]["id"], headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "<script>alert" not in page.text


def test_the_log_holds_no_names(serve: Serve, photograph: bytes, caplog: pytest.LogCaptureFixture) -> None:
    client = serve()
    ACCESS.propagate = True
    with caplog.at_level(logging.DEBUG):
        client.post("/v1/gradings", files=files(photograph, "secret-name.png"), data={"patient": "secret-patient"})
        client.get("/v1/gradings?patient=secret-patient")
        client.get("/v1/patients/secret-patient")
        client.get("/v1/patients/secret-other")
    lines = [json.loads(found.getMessage()) for found in caplog.records if found.name == ACCESS.name]
    assert [line["status"] for line in lines] == [201, 200, 200, 404]
    assert all(len(line["request"]) == 16 for line in lines)
    served = [found for found in caplog.records if found.name.startswith(("retigrade", "uvicorn", "fastapi"))]
    assert "secret" not in " ".join(found.getMessage() for found in served)


def test_the_audit_log_holds_who_what_and_which_and_no_names(
    guarded: TestClient, tokens: dict[str, str], photograph: bytes
) -> None:
    headers = bearer(tokens["admin"])
    answer = guarded.post(
        "/v1/gradings", files=files(photograph, "secret.png"), data={"patient": "secret"}, headers=headers
    )
    grading = answer.json()["gradings"][0]
    guarded.delete("/v1/patients/secret", headers=headers)
    with guarded.app.state.service.database.reading() as session:  # type: ignore[attr-defined]
        lines = list(session.scalars(select(AuditRecord).order_by(AuditRecord.number)))
        assert session.scalars(select(GradingRecord)).all() == []
    graded = next(line for line in lines if line.action == "grade")
    assert graded.actor == "admin"
    assert graded.details["sha256"] == grading["sha256"]
    assert graded.details["bundle"] == grading["bundle"]
    assert graded.details["operating_point"] is None
    assert "secret" not in json.dumps([[line.actor, line.action, line.details] for line in lines])
