"""The plan of a run: the photographs to grade, written as Parquet beside the results, in parts that workers take.

A worker gets the position of a part, and the driver holds no more than these positions, however many photographs there
are.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from retigrade.batch.photographs import Photograph
from retigrade.batch.stores import Store

_Item = TypeVar("_Item")
PART = 1000
"""Photographs in a part of a large run."""
_SMALLEST = 8
_PARTS_A_WORKER = 32  # in a small run, so that no worker waits long for the last one
_MOST_HELD = 300_000  # photographs that are counted before the size of a part is chosen; of more, parts are whole
_PARTS_A_FILE = 100
_SCHEMA = pa.schema(
    [
        pa.field(name, pa.int64() if name in ("size", "offset") else pa.string(), nullable=name != "uri")
        for name in Photograph._fields
    ]
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a plan: its number, the file and the row group that list it, its photographs and their bytes."""

    number: int
    file: str
    group: int
    photographs: int
    bytes: int


def write_plan(
    photographs: Iterable[Photograph], store: Store, *, folder: str, workers: int, size: int | None
) -> list[Part]:
    """Write a plan into `folder` of the store and return its parts; size: photographs in a part, None chooses it."""
    stream = iter(photographs)
    if size is None:
        first = list(islice(stream, min(PART * _PARTS_A_WORKER * workers, _MOST_HELD)))
        size = PART if len(first) == _MOST_HELD else -(-len(first) // (_PARTS_A_WORKER * workers))
        size = max(_SMALLEST, min(PART, size))
        stream = chain(first, stream)
    parts: list[Part] = []
    for number, several in enumerate(_groups(_groups(stream, size), _PARTS_A_FILE)):
        name = f"{folder}/{number:05d}.parquet"
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, _SCHEMA) as writer:
            for group, rows in enumerate(several):
                writer.write_table(_table(rows), row_group_size=len(rows))
                parts.append(Part(len(parts), name, group, len(rows), sum(row.size or 0 for row in rows)))
        store.write(name, buffer.getvalue())
    return parts


def _groups(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    """Yield the items in groups of `size`, the last one smaller."""
    stream = iter(items)
    return iter(lambda: tuple(islice(stream, size)), ())


def _table(rows: Iterable[Photograph]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(values, type=field.type) for values, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )


def read_part(store: Store, part: Part) -> list[Photograph]:
    """Return the photographs of a part."""
    with store.open(part.file) as file:
        table = pq.ParquetFile(file).read_row_group(part.group)
    return list(_rows(table))


def _rows(table: pa.Table) -> Iterator[Photograph]:
    yield from map(Photograph._make, zip(*(column.to_pylist() for column in table.columns), strict=True))
