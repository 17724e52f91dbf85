"""Where photographs and results lie: folders of this machine and object stores, through one set of functions.

An address is a path of this machine or an fsspec URL (s3://, gs://, az://, ...). Errors are sentences.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from retigrade.errors import RetigradeError, UnreadablePhoto, UsageError, needs_extra
from retigrade.files import sync_folder, write_whole, writing
from retigrade.fundus.decode import MAX_BYTES, read_file
from retigrade.text import shown

_LOCAL = ("file://", "local://")
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
# What changes with an object's bytes, by what the file systems of fsspec call it.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)
_GLOB = frozenset("*?[")


def is_url(address: str) -> bool:
    """Whether an address is an fsspec URL and not a path of this machine."""
    return "://" in address


def normal(address: str) -> str:
    """Return an address that means the same for every process: an absolute path, or the URL without a last slash."""
    for prefix in _LOCAL:
        address = address.removeprefix(prefix)
    return address.rstrip("/") if is_url(address) else os.path.abspath(address)  # noqa: PTH100 - links stay links


def is_glob(address: str) -> bool:
    """Whether an address has a wildcard in it."""
    return not _GLOB.isdisjoint(address)


def open_store(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address and the path within it.

    Raises UsageError where the package that reads it is missing, or nobody knows such an address.
    """
    with needs_extra("batch"):
        import fsspec
    protocol = address.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        raise UsageError(
            f"{shown(address)}: reading {protocol}:// needs another package: "
            + (f"pip install {package}" if package else str(error))
        ) from error
    except ValueError as error:
        raise UsageError(f"{shown(address)}: there is no kind of store called {protocol}:// ({error})") from error
    return system, str(path)


@contextmanager
def reaching(address: str, *, what: str = "read") -> Iterator[None]:
    """Turn whatever a store objects to into a UsageError of one sentence."""
    try:
        yield
    except RetigradeError:
        raise
    except Exception as error:  # each store has errors of its own, with no common base
        raise UsageError(
            f"{shown(address)}: cannot be {what}: {complaint(error)}; check the address and your rights to it"
        ) from error


def complaint(error: Exception) -> str:
    """Return the first line of what a store objects to."""
    match error:
        case FileNotFoundError():
            return "there is no such file, folder or bucket"
        case PermissionError():
            return "no permission"
        case OSError() if error.strerror:
            return error.strerror
    return next(iter(shown(line) for line in str(error).splitlines()), "") or type(error).__name__


def version(info: Mapping[str, Any]) -> str | None:
    """Return what tells one state of an object from the next, from what its store says; None if nothing."""
    for key in _VERSIONS:
        value = info.get(key)
        if value is not None:
            return value.hex() if isinstance(value, bytes | bytearray) else str(value).strip('"')
    return None


def read_photograph(uri: str, *, size: int | None, offset: int | None) -> bytes:
    """Return the bytes of a photograph: of a file or object, or of `size` bytes from `offset` of the tar that holds it.

    Raises UnreadablePhoto: missing, no permission, too large, or the store does not give it.
    """
    if offset is not None and size is not None:
        return _ranged(uri, size=size, offset=offset)
    if not is_url(uri):
        return read_file(Path(uri))
    try:
        system, path = open_store(uri)
        if size is None:
            size = system.info(path)["size"]
        if size > MAX_BYTES:
            raise UnreadablePhoto(_too_large(uri, size))
        return bytes(system.cat_file(path))
    except RetigradeError as error:
        raise error if isinstance(error, UnreadablePhoto) else UnreadablePhoto(str(error)) from error
    except Exception as error:
        raise UnreadablePhoto(f"{shown(uri)}: cannot be read: {complaint(error)}") from error


def _ranged(uri: str, *, size: int, offset: int) -> bytes:
    container = uri.partition("::")[2]
    if size > MAX_BYTES:
        raise UnreadablePhoto(_too_large(uri, size))
    try:
        if is_url(container):
            system, path = open_store(container)
            data = bytes(system.cat_file(path, start=offset, end=offset + size))
        else:
            with Path(container).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
    except Exception as error:
        raise UnreadablePhoto(f"{shown(uri)}: cannot be read: {complaint(error)}") from error
    if len(data) < size:
        raise UnreadablePhoto(f"{shown(uri)}: its tar is cut short")
    return data


def _too_large(uri: str, size: int) -> str:
    return f"{shown(uri)}: {size / 2**20:.0f} MiB, more than the {MAX_BYTES // 2**20} MiB that are read"


class Store:
    """A folder, here or in an object store, into which files are written whole."""

    def __init__(self, address: str) -> None:
        """Touch nothing yet; UsageError where no package can reach it."""
        self.address = normal(address)
        self.folder = None if is_url(self.address) else Path(self.address)
        self._system: Any = None
        self._root = ""
        if self.folder is None:
            self._system, self._root = open_store(self.address)

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it is there whole or not at all; UsageError where that fails."""
        if self.folder is not None:
            write_whole(self.folder / name, data)
            return
        with reaching(f"{self.address}/{name}", what="written"):
            self._system.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        with reaching(f"{self.address}/{name}"), suppress(FileNotFoundError):
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            return bytes(self._system.cat_file(self._path(name)))
        return None

    def open(self, name: str) -> BinaryIO:
        """Open a file to read pieces of it."""
        if self.folder is not None:
            return (self.folder / name).open("rb")
        file: BinaryIO = self._system.open(self._path(name), "rb")
        return file

    def names(self, *, suffix: str) -> list[str]:
        """Return the names of the files in the folder that end in `suffix`, in order; none where it is missing."""
        with reaching(self.address, what="listed"), suppress(FileNotFoundError):
            if self.folder is not None:
                found = [path.name for path in self.folder.iterdir()]
            else:
                self._system.invalidate_cache()
                entries = self._system.ls(self._root, detail=True)
                found = [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]
            return sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))
        return []

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all below it, where there is one; UsageError where that fails."""
        if self.folder is None:
            with reaching(f"{self.address}/{name}", what="removed"), suppress(FileNotFoundError):
                self._system.rm(self._path(name), recursive=True)
            return
        path = self.folder / name
        with writing(path), suppress(FileNotFoundError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            sync_folder(path.parent)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class NamedBytes(io.BytesIO):
    """The bytes of a file, with the name that it goes by in sentences."""

    def __init__(self, data: bytes, name: str) -> None:
        """Hold the bytes."""
        super().__init__(data)
        self.name = name
