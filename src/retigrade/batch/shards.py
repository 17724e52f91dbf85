"""Tar shards of the WebDataset layout: each picture in one is a photograph, read from its place without unpacking.

Files of one sample share a name up to its first dot; `NAME.json` may say patient, eye and date of its pictures.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from retigrade.batch.photographs import Parsed, Photograph
from retigrade.batch.stores import is_url, open_store, reaching
from retigrade.fundus.formats import SNIFF_BYTES
from retigrade.inputs import HIDDEN, NO_PICTURE, Skipped, is_hidden, is_photograph

_BLOCK = 2**16  # bytes that a store gives at once while the headers are read, one every photograph
_LARGEST_JSON = 2**20


def is_shard(name: str) -> bool:
    """Whether a file goes by the name of a tar."""
    return name.lower().endswith(".tar")


def list_members(address: str, *, version: str | None, skipped: list[Skipped], parsed: Parsed) -> Iterator[Photograph]:
    """Yield the photographs in a tar, in order; a tar that cannot be read to its end is itself one with a problem.

    Raises UsageError where it cannot be opened at all: a later run would take its rows for those of what is gone.
    """
    with reaching(address), _opened(address) as (file, size):
        sample = _Sample(address, version, parsed)
        count = 0
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep all
                    if member.size < 0 or member.offset_data + member.size > size:
                        raise tarfile.ReadError("unexpected end of data")
                    key = _key(member.name)
                    if key != sample.key:
                        yield from sample.photographs()
                        sample = _Sample(address, version, parsed, key)
                    count += _take(member, file, sample, skipped)
        except tarfile.TarError as error:
            yield from sample.photographs()
            what = f"is cut short or damaged after {count} photographs ({error})" if count else f"is no tar ({error})"
            yield Photograph(uri=address, etag=version, size=size, problem=f"the tar {what}; get it again")
            return
        yield from sample.photographs()


class _opened:  # noqa: N801 - a context manager
    """Opens a file, here or in a store, and says how many bytes it has."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> tuple[BinaryIO, int]:
        if is_url(self._address):
            system, remote = open_store(self._address)
            self._file: Any = system.open(remote, "rb", block_size=_BLOCK, cache_type="readahead")
            return self._file, int(self._file.size)
        path = Path(self._address)
        self._file = path.open("rb")
        return self._file, path.stat().st_size

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _take(member: tarfile.TarInfo, file: BinaryIO, sample: _Sample, skipped: list[Skipped]) -> int:
    """Add a member to its sample; return how many photographs that makes."""
    name = member.name.rpartition("/")[2]

    def read(count: int) -> bytes:
        file.seek(member.offset_data)
        return file.read(min(count, member.size))

    if member.isdir():
        return 0
    if any(map(is_hidden, member.name.removeprefix("./").split("/"))):
        skipped.append(Skipped(Path(sample.address, member.name), HIDDEN))
    elif member.isfile() and is_photograph(name, lambda: read(SNIFF_BYTES)):
        sample.pictures.append(member)
        return 1
    elif member.isfile() and name.lower().endswith(".json") and member.size <= _LARGEST_JSON:
        sample.read_json(read(member.size))
    else:
        skipped.append(Skipped(Path(sample.address, member.name), NO_PICTURE))
    return 0


@dataclass(slots=True)
class _Sample:
    """The files of one name in a tar."""

    address: str
    version: str | None
    parsed: Parsed
    key: str | None = None
    pictures: list[tarfile.TarInfo] = field(default_factory=list)
    stated: dict[str, Any] = field(default_factory=dict)

    def read_json(self, data: bytes) -> None:
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):  # the latter from what is nested a thousand deep
            return
        if isinstance(values, dict):
            self.stated = values

    def photographs(self) -> Iterator[Photograph]:
        patient, eye, date = (str(self.stated.get(name) or "") for name in ("patient", "eye", "date"))
        read_eye, read_date = (self.parsed.eye(eye), self.parsed.date(date)) if self.pictures else (None, None)
        for member in self.pictures:
            yield Photograph(
                uri=f"tar://{member.name}::{self.address}",
                size=member.size,
                etag=self.version,
                offset=member.offset_data,
                patient=patient or None,
                eye=read_eye,
                date=read_date,
            )
