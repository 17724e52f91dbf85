"""Who calls, and what they may do: tokens, roles, the page's sessions, and forms that no other site can send."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer

from retigrade.errors import UsageError
from retigrade.files import write_whole
from retigrade.serve.problems import Problem
from retigrade.text import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COOKIE, CSRF_HEADER, CSRF_FIELD = "retigrade_session", "X-CSRF-Token", "csrf_token"
SESSION_SECONDS = 12 * 3600
LOCAL = "local"
"""The name of whoever calls a server that needs no token."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FAILURES, _FAILURE_SECONDS, _ADDRESSES = 10, 60.0, 10_000
_UNUSABLE = (OSError, UnicodeDecodeError, UsageError)  # what reading the token file raises
_Stamp = tuple[int, int, int]  # changes with the file
_logger = logging.getLogger(__name__)


class Role(IntEnum):
    """What a caller may do; each role may do what the one before it may."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the token file: a name, a role, and the SHA-256 of the token, which is nowhere else."""

    name: str
    role: Role
    digest: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request; session: the value of the page's cookie, None without one."""

    name: str
    role: Role
    session: str | None = None


class Tokens:
    """The token file, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where the file cannot be read or holds no token."""
        self._path = path
        try:
            self._known = self._read()
        except _UNUSABLE as error:
            raise _unusable(path, error) from error

    def find(self, token: str) -> Token | None:
        """Return whose token this is; every one is compared, in constant time, so that time tells nothing."""
        digest, found = _digest(token), None
        for known in self._refreshed():
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def named(self, name: str) -> Token | None:
        """Return the token with this name."""
        return next((token for token in self._refreshed() if token.name == name), None)

    def _read(self) -> tuple[_Stamp | None, tuple[Token, ...]]:
        stamp = self._stamp()  # before the file is read: what is written into it meanwhile changes the stamp again
        return stamp, read_tokens(self._path)

    def _stamp(self) -> _Stamp:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _refreshed(self) -> tuple[Token, ...]:
        """Return the tokens of the file as it is now; none while it cannot be used: then nobody is let in."""
        stamp = self._known[0]
        try:
            if stamp is None or stamp != self._stamp():
                self._known = self._read()  # both at once: other threads ask meanwhile
        except _UNUSABLE as error:
            if stamp is not None:  # once, not at every request
                _logger.error("nobody is let in any more: %s", _unusable(self._path, error))
            self._known = None, ()  # it is read again next time, whatever its stamp is then
        return self._known[1]


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file: lines of name, role and digest.

    Raises UsageError where a line is something else or there is none, OSError or UnicodeDecodeError where it cannot be
    read.
    """
    found = _tokens_in(path.read_text("utf-8"))
    if not found:
        raise UsageError("it holds no token; make one with --new-token NAME:ROLE")
    return found


def _tokens_in(text: str) -> tuple[Token, ...]:
    found: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3 or not _NAME.fullmatch(words[0]) or words[1].upper() not in Role.__members__:
            raise UsageError(f"line {number} is not NAME ROLE DIGEST with a role of read, write or admin")
        if not _DIGEST.fullmatch(words[2]):
            raise UsageError(f"line {number} holds no SHA-256; never write a token itself into the file")
        if words[0] in found:
            raise UsageError(f"line {number}: the name {words[0]} is there twice")
        found[words[0]] = Token(words[0], Role[words[1].upper()], words[2])
    return tuple(found.values())


def _unusable(path: Path, error: Exception) -> UsageError:
    why = str(error)
    if isinstance(error, OSError):
        why = error.strerror or why
    elif isinstance(error, UnicodeDecodeError):
        why = "it is not UTF-8"
    return UsageError(f"the token file {shown(str(path))} cannot be used: {why}")


def new_token(path: Path, name: str, role: str) -> str:
    """Add a token to the file, which is made where it is missing, and return it: it is shown this once.

    Raises UsageError where the name is taken, name or role cannot be, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name) or role.upper() not in Role.__members__:
        raise UsageError(
            f"--new-token {shown(name)}:{shown(role)}: give a name of letters, digits, - and _, and a role of read, "
            "write or admin"
        )
    try:
        text = path.read_text("utf-8")
        known = _tokens_in(text)
    except FileNotFoundError:
        text, known = "", ()
    except _UNUSABLE as error:
        raise _unusable(path, error) from error
    if any(token.name == name for token in known):
        raise UsageError(f"{shown(str(path))} has a token named {name}; choose another name, or take its line out")
    token = secrets.token_urlsafe(32)
    write_whole(path, f"{text.rstrip()}\n{name} {role.lower()} {_digest(token)}\n".lstrip().encode())
    path.chmod(0o600)
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Guard:
    """Decides who a caller is; one for a server."""

    def __init__(
        self,
        tokens: Tokens | None,
        *,
        origins: tuple[str, ...] = (),
        note: Callable[[str, str, dict[str, Any]], object],
    ) -> None:
        """tokens: None lets every caller in, as the local administrator; origins: other web sites that may call.

        note: writes a line of the audit log, called with who, what and details.
        """
        self.tokens, self._origins, self._note = tokens, frozenset(origins), note
        self._key = secrets.token_bytes(32)  # sessions end with the process
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._ended: dict[str, float] = {}  # sessions that were signed out, and until when they would have gone on

    def identify(self, request: Request) -> Caller:
        """Return who sent a request; Problem 401, 403 or 429 where nobody may know."""
        self._refuse_other_sites(request)
        if self.tokens is None:
            return Caller(LOCAL, Role.ADMIN)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if given:
            if scheme.casefold() != "bearer":
                raise _not_signed_in("an Authorization header of another kind")
            token = self.check_token(request, given.strip())
            return Caller(token.name, token.role)
        if session := request.cookies.get(COOKIE):
            named = self._session_token(session)
            if named is not None:
                return Caller(named.name, named.role, session)
        raise _not_signed_in("no token")

    def check_token(self, request: Request, given: str) -> Token:
        """Return the token that was given; Problem 401 where there is none, 429 after many tries."""
        address = request.client.host if request.client else ""
        failures = self._failures.get(address, deque())
        now = time.monotonic()
        while failures and now - failures[0] > _FAILURE_SECONDS:
            failures.popleft()
        if len(failures) >= _FAILURES:
            wait = str(max(1, round(_FAILURE_SECONDS - (now - failures[0]))))
            raise Problem(
                429, seen=f"{_FAILURES} wrong tokens within {_FAILURE_SECONDS:.0f} s", needed="the right one",
                attempt=f"again in {wait} s", headers={"Retry-After": wait},
            )  # fmt: skip
        found = None if self.tokens is None else self.tokens.find(given)
        if found is None:
            failures.append(now)
            self._failures[address] = failures
            self._failures.move_to_end(address)
            if len(self._failures) > _ADDRESSES:
                self._failures.popitem(last=False)
            self._note("unknown", "refuse token", {"address": address})
            raise _not_signed_in("a token that this server does not know")
        return found

    def sign_in(self, request: Request, response: Response, given: str) -> Caller:
        """Start a session of the page for the holder of a token; Problem as `check_token` has it."""
        self._refuse_other_sites(request)
        token = self.check_token(request, given)
        unsigned = f"{token.name}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        session = f"{unsigned}.{self._sign(unsigned, token.digest)}"
        response.set_cookie(
            COOKIE, session, max_age=SESSION_SECONDS, path="/", httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        self._note(token.name, "sign in", {"address": request.client.host if request.client else ""})
        return Caller(token.name, token.role, session)

    def sign_out(self, caller: Caller, response: Response) -> None:
        """End a session of the page: its cookie is deleted, and a copy of it lets nobody in."""
        if caller.session is not None:
            now = time.time()
            for session, end in list(self._ended.items()):
                if end < now:
                    self._ended.pop(session, None)
            self._ended[caller.session] = now + SESSION_SECONDS
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    def csrf_token(self, caller: Caller) -> str:
        """Return what a form or a script of the page must send along; no other site can know it."""
        return self._sign("csrf", caller.session or caller.name)

    def check_csrf(self, caller: Caller, given: str | None) -> None:
        """Raise Problem 403 unless a form or a script sent what the page gave it."""
        if not given or not hmac.compare_digest(self.csrf_token(caller).encode(), given.encode()):
            raise Problem(
                403, seen="a form without the page's own token, or with an old one", needed=f"the field {CSRF_FIELD}",
                attempt="load the page again and send the form from there",
            )  # fmt: skip

    def _session_token(self, session: str) -> Token | None:
        if session in self._ended:
            return None
        unsigned, _, signature = session.rpartition(".")
        name, _, rest = unsigned.partition(".")
        token = self.tokens.named(name) if self.tokens is not None else None
        if token is None or not hmac.compare_digest(
            self._sign(unsigned, token.digest).encode(), signature.encode("utf-8", "surrogateescape")
        ):
            return None
        return token if int(rest.partition(".")[0]) > time.time() else None

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._key, "\0".join(parts).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    def _refuse_other_sites(self, request: Request) -> None:
        """Refuse what a browser sends from another web site to change something, and a foreign name of this host."""
        if request.method in _SAFE:
            return
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is not None:
            foreign = origin not in self._origins and urlsplit(origin).netloc != request.headers.get("host")
        else:
            foreign = site in ("cross-site", "same-site")
        if foreign:
            raise Problem(
                403, seen="a request that another web site made a browser send", needed="one from this server's page",
                attempt="open the page itself; --origin names other sites that may call",
            )  # fmt: skip


def _not_signed_in(seen: str) -> Problem:
    return Problem(
        401, seen=seen, needed="Authorization: Bearer TOKEN, or a session of the page", attempt="sign in at /login",
        headers={"WWW-Authenticate": "Bearer"},
    )  # fmt: skip


def guard_of(request: Request) -> Guard:
    """Return the server's guard."""
    guard = request.app.state.service.guard
    assert isinstance(guard, Guard)
    return guard


def needs(role: Role, *, form: bool = False) -> Callable[[Request], Awaitable[Caller]]:
    """Return a dependency: the caller, who must have this role.

    form: whether the route reads a form of the page and calls `check_csrf` with its field itself; any other request
    that changes something in a session of the page needs the header.
    """

    async def find(request: Request) -> Caller:  # async, for it waits for nothing and needs no thread of its own
        guard = guard_of(request)
        caller = guard.identify(request)
        request.scope["actor"] = caller.name
        if caller.role < role:
            raise Problem(
                403, seen=f"a token with the role {caller.role.name.lower()}", needed=f"the role {role.name.lower()}",
                attempt="with another token",
            )  # fmt: skip
        if request.method not in _SAFE and not form and caller.session is not None:
            guard.check_csrf(caller, request.headers.get(CSRF_HEADER))
        return caller

    return find


SCHEMES = [
    Depends(HTTPBearer(auto_error=False, description="A token of the token file.")),
    Depends(APIKeyCookie(name=COOKIE, auto_error=False, description="A session of the page.")),
]
"""For the OpenAPI document alone."""

Reads = Annotated[Caller, Depends(needs(Role.READ))]
Writes = Annotated[Caller, Depends(needs(Role.WRITE))]
Administers = Annotated[Caller, Depends(needs(Role.ADMIN))]
