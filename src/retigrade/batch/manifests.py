"""Lists of photographs: Parquet or CSV with a column `uri`, and optionally patient, eye, date, size, etag, sha256."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retigrade.batch.photographs import Parsed, Photograph, key_of
from retigrade.batch.stores import is_url, open_store
from retigrade.errors import DataError, needs_extra
from retigrade.inputs import Skipped
from retigrade.output.journal import Stamp
from retigrade.tables import read_table
from retigrade.text import listing, shown

_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".tsv")
_COLUMNS = ("uri", "patient", "eye", "date", "size", "etag", "sha256")
_ROWS = 8192
_SIZE_DIGITS = 18  # of a size in bytes; more are not one of any file, and no column could hold it


def is_manifest(name: str) -> bool:
    """Whether a file goes by the name of a manifest."""
    return name.lower().endswith(_PARQUET + _CSV)


def read_manifests(addresses: Sequence[str], notes: list[str], skipped: list[Skipped]) -> Iterator[Photograph]:
    """Yield the photographs of manifests in order, each once; one that is listed for two patients is of neither.

    Relative addresses start at the folder of their manifest. Raises DataError where one cannot be read or has no column
    `uri`.
    """
    name = listing(shown(address.rpartition("/")[2]) for address in addresses)

    def rows(parsed: Parsed, skipped: list[Skipped]) -> Iterator[Photograph]:
        for address in addresses:
            read = _parquet if address.lower().endswith(_PARQUET) else _csv
            yield from read(address, parsed, skipped)

    again = _listed_again(rows)
    patients: dict[str, set[str]] = {}
    if again:
        for photograph in rows(Parsed(), []):
            if photograph.uri in again and photograph.patient is not None:
                patients.setdefault(photograph.uri, set()).add(photograph.patient)
    given: set[str] = set()
    parsed, repeated, unstated = Parsed(), 0, False
    for photograph in rows(parsed, skipped):
        if photograph.uri in again:
            if photograph.uri in given:
                repeated += 1
                continue
            given.add(photograph.uri)
            if len(names := sorted(patients.get(photograph.uri, ()))) > 1:
                reason = f"is listed for the patients {' and '.join(map(shown, names))}: it can be of one alone"
                photograph = Photograph(uri=photograph.uri, problem=f"{reason}, correct the list")
        unstated = unstated or (photograph.etag is None and is_url(photograph.uri))
        yield photograph
    if repeated:
        notes.append(f"{name}: {repeated} rows name a photograph that an earlier row names; each is graded once")
    if parsed.unknown:
        notes.append(f"{name}: {parsed.unknown} cells are taken as unknown, the first as {parsed.first}")
    if unstated:
        notes.append(
            f"{name}: has no etag or sha256 of its photographs; a later run knows them by address alone, and does not "
            "see that one has changed"
        )


def _listed_again(rows: Callable[[Parsed, list[Skipped]], Iterator[Photograph]]) -> set[str]:
    """The addresses that manifests hold more than once, from eight bytes a row and a second reading of those rows."""
    digests = array("Q", (digest_of(photograph.uri) for photograph in rows(Parsed(), [])))
    ordered = np.sort(np.frombuffer(digests, np.uint64)) if digests else np.zeros(0, np.uint64)
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not twice:
        return set()
    seen: set[str] = set()
    again: set[str] = set()
    for photograph in rows(Parsed(), []):
        if digest_of(photograph.uri) in twice:
            (again if photograph.uri in seen else seen).add(photograph.uri)
    return again


def digest_of(uri: str) -> int:
    """Return eight bytes that stand for an address."""
    return int.from_bytes(key_of(uri, None, None)[:8], "little")


def _csv(address: str, parsed: Parsed, skipped: list[Skipped]) -> Iterator[Photograph]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(address)
        if is_url(address):
            system, remote = open_store(address)
            path = Path(folder, remote.rpartition("/")[2])
            system.get_file(remote, str(path))
        table = read_table(path)
    _check_columns(address, table.columns)
    for row in table.rows:
        if row.problem is not None:
            yield Photograph(uri=f"{address}:{row.line}", problem=row.problem)
        elif not row.get("uri"):
            skipped.append(Skipped(Path(address), f"line {row.line} has no uri"))
        else:
            yield _photograph(address, {name: row.get(name) or None for name in _COLUMNS}, parsed)


def _parquet(address: str, parsed: Parsed, skipped: list[Skipped]) -> Iterator[Photograph]:
    with needs_extra("batch"):
        import pyarrow.parquet as pq
        from pyarrow import ArrowException
    with _opened(address) as file:
        try:
            table = pq.ParquetFile(file)
            columns = {name.casefold(): name for name in table.schema_arrow.names}
            _check_columns(address, tuple(columns))
            wanted = {name: columns[name] for name in _COLUMNS if name in columns}
            number = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=list(wanted.values())):
                for cells in batch.to_pylist():
                    number += 1
                    values = {name: _text(cells[column]) for name, column in wanted.items()}
                    if values["uri"]:
                        yield _photograph(address, values, parsed)
                    else:
                        skipped.append(Skipped(Path(address), f"row {number} has no uri"))
        except (ArrowException, OSError) as error:
            raise DataError(f"{shown(address)}: the Parquet file cannot be read ({error}); get it again") from error


def _opened(address: str) -> Any:
    if not is_url(address):
        return Path(address).open("rb")
    system, path = open_store(address)
    return system.open(path, "rb")


def _text(cell: object) -> str | None:
    return None if cell is None else str(cell).strip() or None


def _check_columns(address: str, columns: tuple[str, ...]) -> None:
    if "uri" not in columns:
        raise DataError(
            f"{shown(address)}: a manifest needs a column named uri; its columns are: "
            f"{', '.join(map(shown, columns)) or 'none'}"
        )


def _photograph(address: str, values: dict[str, str | None], parsed: Parsed) -> Photograph:
    uri = _absolute(values["uri"] or "", address)
    etag, size = values.get("sha256") or values.get("etag"), values.get("size")
    is_size = size is not None and size.isdecimal() and len(size) <= _SIZE_DIGITS
    size_stated = int(size) if size is not None and is_size else None
    if etag is None and not is_url(uri):
        stamp = Stamp.of(Path(uri))
        size_stated, etag = stamp.size, None if stamp.mtime is None else str(stamp.mtime)
    return Photograph(
        uri=uri,
        size=size_stated,
        etag=etag,
        patient=values.get("patient"),
        eye=parsed.eye(values.get("eye") or ""),
        date=parsed.date(values.get("date") or ""),
    )


def _absolute(uri: str, address: str) -> str:
    for prefix in ("file://", "local://"):
        uri = uri.removeprefix(prefix)
    if is_url(uri):
        return uri
    folder = address.rpartition("/")[0]
    if is_url(address):
        return uri if uri.startswith("/") else f"{folder}/{uri}"
    return os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118 - a path of one process for all
