"""What every request goes through: a number, a line in the log, and headers that keep a browser safe."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from typing import TYPE_CHECKING

from starlette.requests import Request

from retigrade.serve.problems import Answer, Problem, busy, fault
from retigrade.serve.rest.shapes import PREFIX
from retigrade.serve.uploads import RAW_TYPES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from retigrade.serve.config import ServeConfig
    from retigrade.serve.counters import Counters

ACCESS = logging.getLogger("retigrade.serve.access")
_logger = logging.getLogger(__name__)
_SMALL, _OPEN = 2**20, 600
_PHOTOGRAPHS = f"{PREFIX}/gradings"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load (W3C CSP 3): the server's own files alone, and no script inside the page."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with none, browsers do not say where a form comes from
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), geolocation=(), microphone=()"),
)


class Gate:
    """The outermost layer of the application (ASGI)."""

    def __init__(
        self, app: ASGIApp, *, config: ServeConfig, counters: Counters, hosts: frozenset[str] | None, answer: Answer
    ) -> None:
        """hosts: the names that this server answers to; None for any. answer: makes what a client sees of a problem."""
        self._app, self._config, self._counters, self._hosts = app, config, counters, hosts
        self._answer = answer
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = secrets.token_hex(8)
        started, status, is_answered = time.perf_counter(), 500, False

        async def answer(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status, is_answered = message["status"], True
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                headers += [pair for pair in _HEADERS if pair[0] not in present]
                headers.append((b"x-request-id", request_id.encode()))
                if b"cache-control" not in present:
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        self._open += 1
        try:
            if (problem := self._refuse(scope)) is not None:
                await self._answer(Request(scope), problem)(scope, receive, answer)
            else:
                await self._app(scope, self._bounded(receive), answer)
        except Exception as error:
            _logger.error("request %s: internal error: %s", request_id, type(error).__name__, exc_info=True)
            if not is_answered:
                await self._answer(Request(scope), fault())(scope, receive, answer)
        finally:
            self._open -= 1
            route, seconds = getattr(scope.get("route"), "path", "(none)"), time.perf_counter() - started
            self._counters.count_request(method=scope["method"], route=route, status=status, seconds=seconds)
            if ACCESS.isEnabledFor(logging.INFO):
                line = {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "request": request_id,
                    "method": scope["method"], "route": route, "status": status, "actor": scope.get("actor"),
                    "ms": round(seconds * 1000, 1),
                }  # fmt: skip
                ACCESS.info(json.dumps(line))

    def _bounded(self, receive: Receive) -> Receive:
        """Return `receive` for a body that must be there within its time; then the client counts as gone."""
        deadline: float | None = asyncio.get_running_loop().time() + self._config.upload_seconds

        async def receive_in_time() -> Message:
            nonlocal deadline
            if deadline is None:
                return await receive()
            async with asyncio.timeout_at(deadline):
                message = await receive()
            if not message.get("more_body", False):
                deadline = None
            return message

        return receive_in_time

    def _refuse(self, scope: Scope) -> Problem | None:
        """Return a problem where the request is for another host, or its body is larger than any that is read."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._open > _OPEN:
            return busy(f"{_OPEN} requests are open")
        return self._refuse_size(scope, headers) or self._refuse_host(headers.get(b"host", ""))

    def _refuse_size(self, scope: Scope, headers: dict[bytes, str]) -> Problem | None:
        """Photographs are counted as they come, where they are taken; every other body says its size, and is small.

        Elsewhere a body is read before anybody asks who sent it, whatever it calls itself.
        """
        kind = headers.get(b"content-type", "").casefold()
        takes_photographs = (scope["method"], scope["path"]) == ("POST", _PHOTOGRAPHS)
        if takes_photographs and kind.startswith(("multipart/", *RAW_TYPES)):
            return None
        length = headers.get(b"content-length", "0")
        is_small = length.isdecimal() and int(length) <= _SMALL and b"transfer-encoding" not in headers
        if is_small:
            return None
        return Problem(
            413, seen=f"a body of {length} bytes or of no stated size", needed=f"{_SMALL} at most, with Content-Length",
            attempt=f"photographs go to POST {_PHOTOGRAPHS}, as multipart/form-data or image/jpeg",
            headers={"Connection": "close"},
        )  # fmt: skip

    def _refuse_host(self, host: str) -> Problem | None:
        """A foreign site may have pointed its name at this machine (DNS rebinding)."""
        if self._hosts is None:
            return None
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.strip("[]").casefold() in self._hosts:
            return None
        return Problem(
            421, seen="a request for another host", needed=f"one of {', '.join(sorted(self._hosts))}",
            attempt="open the address that the server printed; a server with --token-file answers to any name",
        )  # fmt: skip
