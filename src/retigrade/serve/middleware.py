"""What every request goes through: a number, a line in the log, and headers that keep a browser safe."""

from __future__ import annotations

import json
import logging
import secrets
import time
from typing import TYPE_CHECKING

from retigrade.serve.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCESS = logging.getLogger("retigrade.serve.access")
_logger = logging.getLogger(__name__)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load (W3C CSP 3): the server's own files alone, and no script inside the page."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), geolocation=(), microphone=()"),
)


class Gate:
    """The outermost layer of the application (ASGI)."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None) -> None:
        """hosts: the names that this server answers to; None for any."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = secrets.token_hex(8)
        started, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                headers += [pair for pair in _HEADERS if pair[0] not in present]
                headers.append((b"x-request-id", request_id.encode()))
                if b"cache-control" not in present:
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        try:
            if (problem := self._refuse_host(scope)) is not None:
                await problem.response(request_id)(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except Exception as error:
            _logger.error("request %s: internal error: %s", request_id, type(error).__name__, exc_info=True)
            problem = Problem(500, seen="an internal error", needed="a fix", attempt="report the number of the request")
            if status == 500:
                await problem.response(request_id)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            if ACCESS.isEnabledFor(logging.INFO):
                line = {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "request": request_id,
                    "method": scope["method"], "route": route, "status": status, "actor": scope.get("actor"),
                    "ms": round((time.perf_counter() - started) * 1000, 1),
                }  # fmt: skip
                ACCESS.info(json.dumps(line))

    def _refuse_host(self, scope: Scope) -> Problem | None:
        """Return a problem where the request is for another host: a foreign site may have pointed its name here."""
        if self._hosts is None:
            return None
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.strip("[]").casefold() in self._hosts:
            return None
        return Problem(
            421, seen="a request for another host", needed=f"one of {', '.join(sorted(self._hosts))}",
            attempt="open the address that the server printed; a server with --token-file answers to any name",
        )  # fmt: skip
