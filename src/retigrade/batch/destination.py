"""The folder of results: parts in Parquet, what run they are of, and which photographs they hold.

A part appears whole or not at all. Whatever dies, a photograph whose row is in no part is graded by the next run, and a
row that stands for nothing any more is taken out before.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retigrade.batch.photographs import Photograph, key_of
from retigrade.batch.stores import Store, complaint, reaching
from retigrade.errors import UsageError
from retigrade.files import make_folder, writing
from retigrade.icdr import Status
from retigrade.text import shown

if os.name == "posix":
    import fcntl

PLANS = "_plans"
SUMMARY = "_summary.json"
_RUN, _LOCK, _SUFFIX = "_run.json", "_lock", ".parquet"
_PART = "part-"  # what a part's name begins with
_HEAT = "heat"
_KEY = ["path", "size", "etag", "patient", "eye", "date"]  # columns of which a row's key is made


def part_name(run: str, number: int) -> str:
    """Return the name of a part's file; run: this run's own name."""
    return f"{_PART}{run}-{number:06d}{_SUFFIX}"


def picture_name(uri: str) -> str:
    """Return the path of a photograph's thermal picture below the folder."""
    digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{_HEAT}/{digest[:2]}/{digest[:24]}.jpg"


def is_written(path: str, folder: str) -> bool:
    """Whether a path is one that runs write into the folder of their results; both in one spelling."""
    if not path.startswith(f"{folder}/"):
        return False
    first, _, rest = path[len(folder) + 1 :].partition("/")
    is_part = first.startswith(_PART) and first.endswith(_SUFFIX) and not rest
    return is_part or first in (_HEAT, PLANS, SUMMARY, _RUN, _LOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What all rows of a folder have in common."""

    source: str
    bundle: str
    operating_point: str | None
    heat: str


class Destination:
    """The folder of one run, open to one process of this machine at a time."""

    def __init__(self, address: str) -> None:
        """Touch nothing yet."""
        self.store = Store(address)

    @contextmanager
    def opened(self, header: RunHeader) -> Iterator[None]:
        """Take the folder; UsageError where another run writes into it, or it holds rows of another kind of run."""
        with self._locked():
            known = self.store.read(_RUN)
            if known is None:
                if self.parts():
                    raise UsageError(
                        f"{shown(self.store.address)} holds Parquet files of something else; name another --out"
                    )
                self.store.write(_RUN, json.dumps(asdict(header), indent=1).encode())
            else:
                self._compare(known, header)
            yield

    def parts(self) -> list[str]:
        """Return the names of the parts that are there."""
        return self.store.names(suffix=_SUFFIX)

    def _compare(self, known: bytes, header: RunHeader) -> None:
        try:
            before = RunHeader(**json.loads(known))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{shown(self.store.address)}/{_RUN} is no header of a run ({error}); name another folder"
            ) from error
        for name, words in (
            ("source", "of"),
            ("bundle", "by"),
            ("operating_point", "at the operating point"),
            ("heat", "with heat"),
        ):
            earlier, now = getattr(before, name), getattr(header, name)
            if earlier != now:
                raise UsageError(
                    f"{shown(self.store.address)} holds a run {words} {shown(str(earlier))}, and this one is {words} "
                    f"{shown(str(now))}; name another folder with --out"
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self.store.folder
        if folder is None or os.name != "posix":  # stores have no locks; two runs at once cost double work, and rows
            yield
            return
        make_folder(folder)
        with writing(folder / _LOCK):
            file = (folder / _LOCK).open("ab")  # never replaced: whoever holds it would hold a file that is gone
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"another run is writing into {shown(str(folder))}: wait for it, or name another folder with --out"
                ) from None
            except OSError as error:
                raise UsageError(
                    f"{shown(str(folder))} cannot be locked against a second run ({error.strerror}): name a folder of "
                    "another disk with --out"
                ) from error
            yield


@dataclass(slots=True)
class Earlier:
    """The rows that earlier runs left, by key; `holds` marks those that are still of use.

    keys: S16 (n,), in order. part: which of `names` holds each. used: which were asked for.
    """

    destination: Destination
    names: list[str]
    keys: npt.NDArray[np.bytes_]
    part: npt.NDArray[np.int32]
    used: npt.NDArray[np.bool_]
    damaged: list[str]

    @classmethod
    def read(cls, destination: Destination, *, retry_errors: bool) -> Earlier:
        """Read the keys of all rows; parts that were cut short are removed, and their photographs graded again.

        Raises UsageError where a part cannot be read for another reason: what was graded is not thrown away for it.
        """
        keys: list[npt.NDArray[np.bytes_]] = []
        numbers: list[npt.NDArray[np.int32]] = []
        names, damaged = destination.parts(), []
        for number, name in enumerate(names):
            table = _columns(destination.store, name, [*_KEY, "status"])
            if table is None:
                destination.store.remove(name)
                damaged.append(name)
                continue
            of_part = [
                key
                for key, status in zip(_keys(table), table["status"].to_pylist(), strict=True)
                if not (retry_errors and status == Status.ERROR)
            ]
            if len(of_part) < table.num_rows:
                _rewrite(destination.store, name, set(of_part))
            keys.append(np.array(of_part, "S16"))
            numbers.append(np.full(len(of_part), number, np.int32))
        every = np.concatenate(keys) if keys else np.zeros(0, "S16")
        order = np.argsort(every, kind="stable")
        part = np.concatenate(numbers)[order] if numbers else np.zeros(0, np.int32)
        return cls(destination, names, every[order], part, np.zeros(len(every), np.bool_), damaged)

    def __len__(self) -> int:
        return len(self.keys)

    def holds(self, photograph: Photograph) -> bool:
        """Whether there is a row of this photograph as it is now; one row of each is marked as used."""
        if not len(self.keys):
            return False
        key = np.array(photograph.key, "S16")
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            return False
        self.used[place] = True
        return True

    def remove_unused(self, *, all_listed: bool) -> int:
        """Take out the rows that were not asked for, and return how many.

        all_listed: the source was read to its end; if not, only rows that stand for the same as another one go.
        """
        unused = ~self.used
        if not all_listed:
            again = np.zeros(len(self.keys), np.bool_)
            again[1:] = self.keys[1:] == self.keys[:-1]
            unused &= again
        for number in np.unique(self.part[unused]).tolist():
            kept = (self.part == number) & ~unused
            _rewrite(self.destination.store, self.names[number], set(self.keys[kept].tolist()))
        return int(unused.sum())


class _Watched:
    """A file of a store, which remembers what the store objected to: that says nothing of what the file holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except BaseException:
            self.failed = True
            raise


def _columns(store: Store, name: str, columns: list[str]) -> pa.Table | None:
    """Read columns of a part; None where its content is damaged, UsageError where it cannot be read."""
    watched: _Watched | None = None
    try:
        with store.open(name) as file:
            watched = _Watched(file)
            return pq.ParquetFile(watched).read(columns=columns)
    except Exception as error:
        if watched is not None and not watched.failed and _is_damage(error):
            return None
        raise UsageError(
            f"cannot read {shown(store.address)}/{name}: {complaint(error)}; the part stays, and the same command goes "
            "on"
        ) from error


def _is_damage(error: Exception) -> bool:
    """Whether an error is one that pyarrow raises for bad content: one of its own, or a bare OSError."""
    if isinstance(error, pa.ArrowException):
        return not isinstance(error, MemoryError | pa.ArrowCancelled)
    return type(error) is OSError and error.errno is None


def _keys(table: pa.Table) -> Iterator[bytes]:
    """The key of each row."""
    return (key_of(*values) for values in zip(*(table[name].to_pylist() for name in _KEY), strict=True))


def _rewrite(store: Store, name: str, keep: set[bytes]) -> None:
    """Leave the rows with these keys in a part, one of each; without any, the part goes."""
    with reaching(f"{store.address}/{name}"), store.open(name) as file:
        table = pq.ParquetFile(file).read()
    left = {key.rstrip(b"\0") for key in keep}  # as numpy gives them back
    mask = []
    for key in (key.rstrip(b"\0") for key in _keys(table)):
        mask.append(key in left)
        left.discard(key)
    table = table.filter(pa.array(mask, pa.bool_()))
    if table.num_rows:
        store.write(name, parquet(table))
    else:
        store.remove(name)


def parquet(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def count_rows(destination: Destination) -> dict[str, int]:
    """Count the rows of all parts by status, and how many are referable."""
    import pyarrow.compute as pc

    counts: dict[str, int] = {}
    for name in destination.parts():
        with reaching(f"{destination.store.address}/{name}"), destination.store.open(name) as file:
            table = pq.ParquetFile(file).read(columns=["status", "referable"])
        for entry in table["status"].value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
        counts["referable"] = counts.get("referable", 0) + int(pc.sum(table["referable"]).as_py() or 0)
    return counts


def write_summary(destination: Destination, values: dict[str, Any]) -> None:
    """Write what the run came to."""
    destination.store.write(SUMMARY, json.dumps(values, indent=1).encode())


def sweep(destination: Destination, own: Iterable[str]) -> list[str]:
    """Remove the parts of neither earlier runs nor this one, which a killed run's workers left on their way out."""
    strange = sorted(set(destination.parts()) - set(own))
    for name in strange:
        destination.store.remove(name)
    return strange
