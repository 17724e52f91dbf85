"""Photographs out of a request's body, held in memory alone, with limits that hold while they arrive."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from retigrade.serve.config import ServeConfig
from retigrade.serve.problems import Problem, busy
from retigrade.text import shown

FIELDS = ("patient", "eye", "date")
FILES = "files"
RAW_TYPES = ("image/", "application/octet-stream", "application/dicom")
_FIELD_BYTES, _HEADER_BYTES, _NAME_CHARACTERS = 64 * 1024, 8 * 1024, 200
_BETWEEN_FOLDERS = re.compile(r"[/\\]")
_CLOSE = {"Connection": "close"}


@dataclass(slots=True)
class File:
    """One file of a request; name: without folders, fit to show."""

    name: str
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Upload:
    """What a request holds; fields: the values of each text field in order."""

    files: list[File] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)


class Admission:
    """How many requests with photographs, and bytes of theirs, are in memory at once; used by the event loop alone."""

    def __init__(self, config: ServeConfig) -> None:
        """config: its limits."""
        self._requests, self._bytes = config.max_waiting, config.max_waiting_bytes
        self.waiting = self.held = 0

    @contextmanager
    def request(self) -> Iterator[Share]:
        """Yield the request's share of the memory; Problem 503 where too many wait."""
        if self.waiting >= self._requests:
            raise busy(f"{self.waiting} requests are waiting")
        self.waiting += 1
        share = Share(self)
        try:
            yield share
        finally:
            self.waiting -= 1
            self.held -= share.held

    def take(self, count: int) -> None:
        """Count bytes in; Problem 503 where there is no room for them."""
        if self.held + count > self._bytes:
            raise busy("photographs that are waiting fill the memory set aside for them")
        self.held += count


class Share:
    """What one request holds of it."""

    def __init__(self, admission: Admission) -> None:
        """Start with nothing."""
        self._admission, self.held = admission, 0

    def take(self, count: int) -> None:
        """Count bytes in; Problem 503 where there is no room for them."""
        self._admission.take(count)
        self.held += count


async def read_upload(request: Request, config: ServeConfig, share: Share, *, name: str | None = None) -> Upload:
    """Return the photographs and fields of a multipart body, or the one photograph that a body of raw bytes is.

    name: what a photograph of raw bytes goes by. Raises Problem: 408 too slow, 413 too much, 415 another kind of
    content, 422 no photograph or a field that is not known.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().casefold()
    if kind != "multipart/form-data" and not kind.startswith(RAW_TYPES):
        raise Problem(
            415, seen=f"content of the type {content_type[:100] or '(none)'}",
            needed=f"multipart/form-data with the field {FILES}, or one photograph's bytes as image/jpeg or "
            "application/octet-stream",
            attempt="curl -F files=@eye.jpg, or curl -H 'Content-Type: image/jpeg' --data-binary @eye.jpg",
            headers=_CLOSE,
        )  # fmt: skip
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > config.max_request_bytes:
        raise _too_much(int(declared), config.max_request_bytes, "one request")
    body = _Multipart(content_type, config) if kind == "multipart/form-data" else _Raw(name, config)
    await _receive(request, body, config, share)
    upload = body.finish()
    if not upload.files:
        raise Problem(
            422, seen="a request without a photograph", needed=f"at least one file in the field {FILES}",
            attempt="curl -F files=@eye.jpg",
        )  # fmt: skip
    return upload


async def _receive(request: Request, body: _Multipart | _Raw, config: ServeConfig, share: Share) -> None:
    total = 0
    async for chunk in arriving(request, config):
        total += len(chunk)
        if total > config.max_request_bytes:
            raise _too_much(total, config.max_request_bytes, "one request")
        share.take(len(chunk))
        body.write(chunk)


async def arriving(request: Request, config: ServeConfig) -> AsyncIterator[bytes]:
    """Yield a request's body piece by piece; Problem 408 where it is too slow, 400 where it breaks off."""
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            yield chunk
    except TimeoutError:
        raise Problem(
            408, seen=f"{total} bytes in {config.upload_seconds:g} s", needed="the whole request in that time",
            attempt="send less in one request, or over a faster connection", headers=_CLOSE,
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise Problem(
            400, seen="a request that ended before its end", needed="all of it", attempt="send it again", headers=_CLOSE
        ) from None


class _Raw:
    """A body that is one photograph."""

    def __init__(self, name: str | None, config: ServeConfig) -> None:
        self._file, self._limit = File(safe_name(name or "")), config.max_bytes

    def write(self, chunk: bytes) -> None:
        self._file.data += chunk
        if len(self._file.data) > self._limit:
            raise _too_much(len(self._file.data), self._limit, "one photograph")

    def finish(self) -> Upload:
        return Upload([self._file] if self._file.data else [])


class _Multipart:
    """A multipart body (RFC 7578), read piece by piece."""

    def __init__(self, content_type: str, config: ServeConfig) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _malformed("no boundary in the Content-Type")
        self._config, self._upload = config, Upload()
        self._header, self._value, self._headers = bytearray(), bytearray(), dict[str, str]()
        self._field, self._text = "", bytearray()
        self._file: File | None = None
        self._is_complete = False
        callbacks = {
            "on_part_begin": self._begin, "on_part_data": self._data, "on_part_end": self._end,
            "on_header_field": self._header_field, "on_header_value": self._header_value,
            "on_header_end": self._header_end, "on_headers_finished": self._headers_finished, "on_end": self._finished,
        }  # fmt: skip
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError:
            raise _malformed("a boundary that cannot be used") from None

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _malformed("a body that is not what its Content-Type says") from None

    def finish(self) -> Upload:
        if not self._is_complete:
            raise _malformed("a multipart body without its end")
        return self._upload

    def _begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > _HEADER_BYTES:
            raise _malformed(f"a header of a part with more than {_HEADER_BYTES} bytes")

    def _header_end(self) -> None:
        self._headers[self._header.decode("latin-1").casefold()] = self._value.decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        disposition = Message()
        disposition["Content-Disposition"] = _one_line(self._headers.get("content-disposition", ""))
        try:
            name = disposition.get_param("name", header="content-disposition")
            file_name = disposition.get_filename()
        except (TypeError, ValueError, LookupError):  # the standard library trusts names in pieces (RFC 2231)
            raise _malformed("a part whose Content-Disposition cannot be read") from None
        self._field, self._file, self._text = name if isinstance(name, str) else "", None, bytearray()
        if self._field == FILES:
            if len(self._upload.files) >= self._config.max_files:
                raise Problem(
                    413, seen=f"more than {self._config.max_files} files in one request",
                    needed=f"{self._config.max_files} at most", attempt="send the others in another request",
                    headers=_CLOSE,
                )  # fmt: skip
            self._file = File(safe_name(file_name or ""))
        elif self._field not in FIELDS:
            raise Problem(
                422, seen=f"a field named {self._field[:60] or '(none)'}", needed=f"{FILES}, {', '.join(FIELDS)}",
                attempt="curl -F files=@eye.jpg -F patient=P1 -F eye=right -F date=2026-05-02", headers=_CLOSE,
            )  # fmt: skip

    def _data(self, data: bytes, start: int, end: int) -> None:
        into = self._text if self._file is None else self._file.data
        into += memoryview(data)[start:end]
        limit = _FIELD_BYTES if self._file is None else self._config.max_bytes
        if len(into) > limit:
            raise _too_much(len(into), limit, "one field" if self._file is None else "one photograph")

    def _end(self) -> None:
        if self._file is None:
            values = self._upload.fields.setdefault(self._field, [])
            values.append(self._text.decode("utf-8", "replace"))
            if len(values) > self._config.max_files:
                raise _malformed(f"more than {self._config.max_files} values of the field {self._field}")
        elif self._file.data or self._file.name != _UNNAMED:  # a form in which nobody chose a file sends an empty one
            self._upload.files.append(self._file)

    def _finished(self) -> None:
        self._is_complete = True


_UNNAMED = "photograph"


def safe_name(name: str) -> str:
    """Return what a file is called without any folder, in characters that can be shown; it is never opened."""
    last = _BETWEEN_FOLDERS.split(name)[-1].strip()
    text = shown(last.encode("utf-8", "replace").decode("utf-8", "replace"))[:_NAME_CHARACTERS]
    return text if text.strip(". ") else _UNNAMED


def _one_line(text: str) -> str:
    return "".join(c for c in text if c.isprintable())


def _too_much(seen: int, limit: int, of: str) -> Problem:
    return Problem(
        413, seen=f"{seen} bytes or more in {of}", needed=f"{limit} at most",
        attempt="send less at once, or a smaller photograph", headers=_CLOSE,
    )  # fmt: skip


def _malformed(seen: str) -> Problem:
    return Problem(
        400, seen=seen, needed="multipart/form-data as in RFC 7578", attempt="curl -F files=@eye.jpg", headers=_CLOSE
    )
