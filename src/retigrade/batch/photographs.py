"""One photograph of a run, as the plan keeps it: where it is, what state it is in, and whose eye it shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from retigrade.errors import UnreadablePhoto
from retigrade.grading import Subject
from retigrade.subjects import parse_date, parse_eye
from retigrade.text import shown


class Photograph(NamedTuple):
    """One photograph to grade; what is not known is None.

    uri: a path of this machine, an fsspec URL, or `tar://member::shard`. size: bytes. etag: changes when the bytes do.
    offset: where in its tar the bytes begin. patient, eye, date: whose eye it is, as parsed and written again. problem:
    why it cannot be read, where that is known already.
    """

    uri: str
    size: int | None = None
    etag: str | None = None
    offset: int | None = None
    patient: str | None = None
    eye: str | None = None
    date: str | None = None
    problem: str | None = None

    @property
    def subject(self) -> Subject:
        """Whose eye it shows."""
        return Subject(self.patient, parse_eye(self.eye or ""), parse_date(self.date or ""))

    @property
    def key(self) -> bytes:
        """Sixteen bytes that stand for these bytes at this address, and for whose eye they are."""
        return key_of(self.uri, self.size, self.etag, self.patient, self.eye, self.date)

    def check(self) -> None:
        """Raise UnreadablePhoto where it is known that it cannot be read."""
        if self.problem is not None:
            raise UnreadablePhoto(f"{shown(self.uri)}: {self.problem}")

    def writable(self) -> Photograph:
        """Return the photograph, or one with a problem where its words cannot be written into a file of any kind."""
        odd = {name for name in _ODD if not _is_unicode(getattr(self, name) or "")}
        if not odd:
            return self
        return Photograph(
            uri=shown(self.uri) if "uri" in odd else self.uri,
            size=self.size,
            etag=None if "etag" in odd else self.etag,
            problem=self.problem or next(words for name, words in _ODD.items() if name in odd),
        )


_ODD = {
    "uri": "its name is not Unicode; rename it",
    "patient": "its patient's identifier is not Unicode; correct it",
    "etag": "its etag is not Unicode; correct it",
}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of another encoding, which Python keeps as lone surrogates
        return False
    return True


def key_of(uri: str, size: int | None, etag: str | None, *subject: str | None) -> bytes:
    """Return sixteen bytes that stand for a state of an address, and for whose eye it shows."""
    text = "\0".join((uri, "" if size is None else str(size), etag or "", *(word or "" for word in subject)))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


@dataclass(slots=True)
class Parsed:
    """Eyes and dates of a list in one spelling; what cannot be read is unknown, and counted."""

    unknown: int = 0
    first: str = ""

    def eye(self, text: str) -> str | None:
        """Return `right`, `left` or None."""
        try:
            eye = parse_eye(text)
        except ValueError as error:
            self._count(error)
            return None
        return None if eye is None else eye.value

    def date(self, text: str) -> str | None:
        """Return a day in ISO 8601, or None."""
        try:
            day = parse_date(text)
        except ValueError as error:
            self._count(error)
            return None
        return None if day is None else day.isoformat()

    def _count(self, error: ValueError) -> None:
        self.unknown += 1
        self.first = self.first or shown(str(error))
