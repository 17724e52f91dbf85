"""What a run was pointed at, as a stream of photographs: a folder, a store, a manifest, tars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from retigrade.batch.destination import is_written
from retigrade.batch.manifests import digest_of, is_manifest, read_manifests
from retigrade.batch.photographs import Parsed, Photograph
from retigrade.batch.shards import is_shard, list_members
from retigrade.batch.stores import is_glob, is_url, normal, open_store, reaching, version
from retigrade.errors import PhotoError, UsageError
from retigrade.fundus.decode import decode
from retigrade.fundus.formats import SNIFF_BYTES
from retigrade.inputs import HIDDEN, NO_PICTURE, Input, Skipped, Walk, is_hidden, is_photograph
from retigrade.output.journal import Stamp
from retigrade.text import shown

_WRITTEN = "written by an earlier run"
_SERVERS = ("host", "account_name")  # attributes of file systems, by which two of a kind are of different stores


@dataclass(slots=True)
class Listing:
    """The photographs of a source; skipped and notes are complete when the last one was taken.

    stated: what tars state of eyes and dates.
    """

    photographs: Iterator[Photograph]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stated: Parsed = field(default_factory=Parsed)

    def leave_out(self, path: str, reason: str) -> None:
        """Keep that something was found and is no photograph."""
        self.skipped.append(Skipped(Path(path), reason))


def list_source(source: str, *, exclude: str | None = None) -> Listing:
    """List the photographs that `source` stands for, in an order that stays the same.

    source: a folder, recursed; an fsspec URL of a folder, with a wildcard or of one file; a manifest, which is a
    Parquet or CSV file with a column `uri`; a tar of the WebDataset layout, or a folder or pattern of them. exclude:
    the folder that results are written into.

    Raises UsageError where there is nothing, or it cannot be listed, DataError where a manifest cannot be read.
    """
    address = normal(source)
    exclude = None if exclude is None else normal(exclude)
    listing = Listing(iter(()))
    listed = _Remote(address, listing, exclude) if is_url(address) else _Local(address, listing, exclude)
    found = listed.photographs()
    with reaching(address, what="listed"):
        first = next(found, None)
    if first is None:
        raise UsageError(
            f"no photographs in {shown(source)}: looked for JPEG, PNG, TIFF, WebP and BMP files, and tars of them"
        )
    listing.photographs = _watched(chain([first], found), address, listing)
    return listing


def _watched(photographs: Iterator[Photograph], address: str, listing: Listing) -> Iterator[Photograph]:
    with reaching(address, what="listed"):
        for photograph in photographs:
            yield photograph.writable()
    if listing.stated.unknown:
        listing.notes.append(
            f"{listing.stated.unknown} eyes and dates that tars state are taken as unknown, the first as "
            f"{listing.stated.first}"
        )


def _matched(manifests: Sequence[str], others: Iterator[Photograph] | None, listing: Listing) -> Iterator[Photograph]:
    """The photographs of a pattern: those of its manifests, then `others`, without those that a manifest lists."""
    named: set[int] = set()
    if manifests:
        for photograph in read_manifests(manifests, listing.notes, listing.skipped):
            if others is not None:
                named.add(digest_of(photograph.uri))
            yield photograph
    again = 0
    for photograph in others or ():
        if digest_of(photograph.uri) in named:
            again += 1
        else:
            yield photograph
    if again:
        listing.notes.append(f"{again} photographs are matched and listed in a manifest as well; each is graded once")


@dataclass(slots=True)
class _Local:
    """A path of this machine, or a pattern of them."""

    address: str
    listing: Listing
    exclude: str | None

    def photographs(self) -> Iterator[Photograph]:
        path = Path(self.address)
        if not is_glob(self.address) or path.exists():
            yield from self._entry(path, given=True)
            return
        import glob

        names = sorted(glob.glob(self.address, recursive=True))  # noqa: PTH207 - whole paths
        matched = list(dict.fromkeys(map(Path, names)))
        folders = {one for one in matched if one.is_dir()}
        written = self._written(matched)
        manifests, others = list[str](), list[Path]()
        for one in matched:
            if one in written:
                self.listing.leave_out(str(one), _WRITTEN)
            elif not folders.isdisjoint(one.parents):  # listed with its folder
                continue
            elif is_manifest(one.name) and one not in folders:
                manifests.append(str(one))
            else:
                others.append(one)
        entries = chain.from_iterable(self._entry(one, given=False) for one in others)
        yield from _matched(manifests, entries if others else None, self.listing)

    def _entry(self, path: Path, *, given: bool) -> Iterator[Photograph]:
        if path.is_dir():
            yield from self._folder(path)
        elif is_manifest(path.name):
            yield from read_manifests([str(path)], self.listing.notes, self.listing.skipped)
        elif is_shard(path.name):
            yield from self._members(path)
        elif given or _is_photograph(path):
            if given and not path.exists():
                raise FileNotFoundError(str(path))
            yield _of_file(Input(path, path.name))
        else:
            self.listing.leave_out(str(path), NO_PICTURE)

    def _folder(self, folder: Path) -> Iterator[Photograph]:
        walk = Walk(exclude=None if self.exclude is None or is_url(self.exclude) else Path(self.exclude))
        for item in walk.photographs(folder):
            # A tar that cannot be looked into is taken as a photograph by the walk; see `list_members` why not here.
            if is_shard(item.path.name) and item.path.is_file():
                with reaching(str(item.path)):
                    _head(item.path)
            yield _of_file(item)
        for entry in walk.skipped:
            if entry.reason == NO_PICTURE and is_shard(entry.path.name):
                yield from self._members(entry.path)
            else:
                self.listing.skipped.append(entry)

    def _members(self, path: Path) -> Iterator[Photograph]:
        listing = self.listing
        return list_members(str(path), version=_stamp(path)[1], skipped=listing.skipped, parsed=listing.stated)

    def _written(self, matched: Sequence[Path]) -> set[Path]:
        """Those of the matches that a run wrote into the output folder, whatever way leads to it."""
        if self.exclude is None or is_url(self.exclude):
            return set()
        root = Path(self.exclude).resolve().as_posix()
        real = {folder: folder.resolve().as_posix() for folder in {one.parent for one in matched}}
        return {one for one in matched if is_written(f"{real[one.parent]}/{one.name}", root)}


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


def _is_photograph(path: Path) -> bool:
    """Whether a match is taken as a photograph; of one that cannot be looked into, decoding says why."""
    try:
        return not path.is_file() or is_photograph(path.name, partial(_head, path))
    except OSError:
        return True


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
        output = self._output()
        if is_glob(path):
            yield from self._pattern(path, output)
            return
        info = self.system.info(path)
        if info["type"] != "directory":
            if is_manifest(path):
                yield from read_manifests([self._uri(info["name"])], self.listing.notes, self.listing.skipped)
            else:
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
                    self.listing.leave_out(name, HIDDEN)
                elif name == output:
                    self.listing.leave_out(name, "the output folder")
                elif output is not None and is_written(name, output):
                    self.listing.leave_out(name, _WRITTEN)
                elif entry["type"] != "directory":
                    yield from self._entry(entry, given=False)
                else:
                    stack.append(name)

    def _pattern(self, pattern: str, output: str | None) -> Iterator[Photograph]:
        infos = self.system.glob(pattern, detail=True)
        manifests, others = list[str](), list[dict[str, Any]]()
        for name in sorted(infos):
            if infos[name]["type"] == "directory":
                continue
            if output is not None and is_written(name, output):
                self.listing.leave_out(name, _WRITTEN)
            elif is_manifest(name):
                manifests.append(self._uri(name))
            else:
                others.append(infos[name])
        entries = chain.from_iterable(self._entry(info, given=False) for info in others)
        yield from _matched(manifests, entries if others else None, self.listing)

    def _entry(self, info: dict[str, Any], *, given: bool) -> Iterator[Photograph]:
        path = str(info["name"])
        name, uri = path.rpartition("/")[2], self._uri(path)
        if is_shard(name):
            listing = self.listing
            yield from list_members(uri, version=version(info), skipped=listing.skipped, parsed=listing.stated)
        elif given or is_photograph(name, lambda: self._first_bytes(path, info)):
            yield Photograph(uri=uri, size=info.get("size"), etag=version(info))
        else:
            self.listing.leave_out(name, NO_PICTURE)

    def _output(self) -> str | None:
        """The output folder's path, where it lies in the same store; one folder may have several addresses."""
        if self.exclude is None or not is_url(self.exclude):
            return None
        system, path = open_store(self.exclude)
        same = type(system) is type(self.system) and all(
            getattr(system, name, None) == getattr(self.system, name, None) for name in _SERVERS
        )
        return path.rstrip("/") if same else None

    def _first_bytes(self, path: str, info: dict[str, Any]) -> bytes:
        return bytes(self.system.cat_file(path, start=0, end=SNIFF_BYTES)) if info.get("size") else b""

    def _uri(self, path: str) -> str:
        return str(self.system.unstrip_protocol(path))
