"""What a run was pointed at, as a stream of photographs: a folder, a store, a manifest, tars."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from retigrade.batch.manifests import is_manifest, read_manifest
from retigrade.batch.photographs import Photograph
from retigrade.batch.shards import is_shard, list_members
from retigrade.batch.stores import is_glob, is_url, normal, open_store, reaching, version
from retigrade.errors import PhotoError, UsageError
from retigrade.fundus.decode import decode
from retigrade.fundus.formats import SNIFF_BYTES
from retigrade.inputs import HIDDEN, NO_PICTURE, Input, Skipped, Walk, is_hidden, is_photograph
from retigrade.output.journal import Stamp
from retigrade.text import shown


@dataclass(slots=True)
class Listing:
    """The photographs of a source; skipped and notes are complete when the last one was taken."""

    photographs: Iterator[Photograph]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_source(source: str, *, exclude: str | None = None) -> Listing:
    """List the photographs that `source` stands for, in an order that stays the same.

    source: a folder, recursed; an fsspec URL of a folder, with a wildcard or of one file; a manifest, which is a
    Parquet or CSV file with a column `uri`; a tar of the WebDataset layout, or a folder or pattern of them. exclude:
    the folder that results are written into.

    Raises UsageError where there is nothing, or it cannot be listed, DataError where a manifest cannot be read.
    """
    address = normal(source)
    listing = Listing(iter(()))
    found = _Remote(address, listing, exclude).photographs() if is_url(address) else _local(address, listing, exclude)
    with reaching(address, what="listed"):
        first = next(found, None)
    if first is None:
        raise UsageError(
            f"no photographs in {shown(source)}: looked for JPEG, PNG, TIFF, WebP and BMP files, and tars of them"
        )
    listing.photographs = _watched(chain([first], found), address)
    return listing


def _watched(photographs: Iterator[Photograph], address: str) -> Iterator[Photograph]:
    with reaching(address, what="listed"):
        yield from photographs


def _local(address: str, listing: Listing, exclude: str | None) -> Iterator[Photograph]:
    path = Path(address)
    if is_glob(address) and not path.exists():
        import glob

        matched = [Path(name) for name in sorted(glob.glob(address, recursive=True))]  # noqa: PTH207 - whole paths
    else:
        matched = [path]
    for one in matched:
        if one.is_dir():
            yield from _folder(one, listing, None if exclude is None or is_url(exclude) else Path(exclude))
        elif is_manifest(one.name):
            yield from read_manifest(str(one), listing.notes, listing.skipped)
        elif is_shard(one.name):
            yield from list_members(str(one), version=_stamp(one)[1], skipped=listing.skipped)
        elif one == path or is_photograph(one.name, partial(_head, one)):
            if not one.exists() and len(matched) == 1:
                raise FileNotFoundError(str(one))
            yield _of_file(Input(one, one.name))
        else:
            listing.skipped.append(Skipped(one, NO_PICTURE))


def _folder(folder: Path, listing: Listing, exclude: Path | None) -> Iterator[Photograph]:
    walk = Walk(exclude=exclude)
    for item in walk.photographs(folder):
        yield _of_file(item)
    for entry in walk.skipped:
        if entry.reason == NO_PICTURE and is_shard(entry.path.name):
            yield from list_members(str(entry.path), version=_stamp(entry.path)[1], skipped=listing.skipped)
        else:
            listing.skipped.append(entry)


def _of_file(item: Input) -> Photograph:
    uri = os.fspath(item.path)
    if item.reader is not decode:  # an unreadable folder
        try:
            item.read()
        except PhotoError as error:
            return Photograph(uri=uri, problem=str(error))
    size, changed = _stamp(item.path)
    return Photograph(uri=uri, size=size, etag=changed)


def _stamp(path: Path) -> tuple[int | None, str | None]:
    stamp = Stamp.of(path)
    return stamp.size, None if stamp.mtime is None else str(stamp.mtime)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SNIFF_BYTES)


@dataclass(slots=True)
class _Remote:
    """An address in a store."""

    address: str
    listing: Listing
    exclude: str | None
    system: Any = None

    def photographs(self) -> Iterator[Photograph]:
        self.system, path = open_store(self.address)
        if is_glob(path):
            infos = self.system.glob(path, detail=True)
            for name in sorted(infos):
                yield from self._entry(infos[name], given=False)
            return
        info = self.system.info(path)
        if info["type"] != "directory":
            yield from self._entry(info, given=True)
            return
        stack = [str(info["name"])]
        while stack:  # not recursion: folders may nest deeply
            folder = stack.pop()
            entries = sorted(self.system.ls(folder, detail=True, refresh=True), key=lambda entry: str(entry["name"]))
            for entry in entries:
                name = str(entry["name"]).rstrip("/")
                if name == folder.rstrip("/"):  # a store's own mark that the folder is there
                    continue
                if is_hidden(name.rpartition("/")[2]):
                    self.listing.skipped.append(Skipped(Path(name), HIDDEN))
                elif entry["type"] != "directory":
                    yield from self._entry(entry, given=False)
                elif self._uri(name) == self.exclude:
                    self.listing.skipped.append(Skipped(Path(name), "the output folder"))
                else:
                    stack.append(name)

    def _entry(self, info: dict[str, Any], *, given: bool) -> Iterator[Photograph]:
        path = str(info["name"])
        name, uri = path.rpartition("/")[2], self._uri(path)
        if info["type"] == "directory":
            return
        if is_manifest(name) and (given or is_glob(self.address)):
            yield from read_manifest(uri, self.listing.notes, self.listing.skipped)
        elif is_shard(name):
            yield from list_members(uri, version=version(info), skipped=self.listing.skipped)
        elif given or is_photograph(name, lambda: self._first_bytes(path, info)):
            yield Photograph(uri=uri, size=info.get("size"), etag=version(info))
        else:
            self.listing.skipped.append(Skipped(Path(name), NO_PICTURE))

    def _first_bytes(self, path: str, info: dict[str, Any]) -> bytes:
        return bytes(self.system.cat_file(path, start=0, end=SNIFF_BYTES)) if info.get("size") else b""

    def _uri(self, path: str) -> str:
        return str(self.system.unstrip_protocol(path))
