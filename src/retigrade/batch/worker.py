"""A worker: grades one part after another, and writes each as one Parquet file.

A part has one name, so grading it twice leaves one file. A worker that dies leaves a mark that says so. The next one
at the same part then notes each photograph before it reads it, and one that two workers died of becomes an error row.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from retigrade import __version__
from retigrade.batch.destination import parquet, part_name, picture_name
from retigrade.batch.photographs import Photograph
from retigrade.batch.plan import Part, read_part
from retigrade.batch.schema import Heat, arrow_schema
from retigrade.batch.stores import Store, read_photograph
from retigrade.bundle import Bundle, Device
from retigrade.errors import RetigradeError, UnreadablePhoto
from retigrade.fundus.decode import Photo, decode_bytes
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.inputs import Input
from retigrade.output.illustrate import HeatPictures, Illustrated, draw
from retigrade.output.rows import as_row

_AHEAD, _AHEAD_BYTES = 8, 64 * 2**20  # photographs that are fetched while others are graded, and their bytes at most
_MOST_DEATHS = 2
_JPEG = HeatPictures(format="jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker needs to know.

    bundle: the bytes of its file. destination: address of the results. run: this run's own name. threads: photographs
    at work at once.
    """

    bundle: bytes
    destination: str
    run: str
    operating_point: str | None = None
    heat: Heat = "none"
    device: Device = "cpu"
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOutcome:
    """What became of a part: its file, rows by status, bytes read, seconds; failure: why it has no file."""

    number: int
    name: str
    counts: dict[str, int]
    bytes: int = 0
    seconds: float = 0.0
    failure: str | None = None


class PartWorker:
    """Grades parts with one bundle."""

    def __init__(self, config: WorkerConfig) -> None:
        """Open the bundle; BundleError where it cannot be used."""
        self._config = config
        bundle = Bundle.from_bytes(config.bundle, threads=1, device=config.device)
        self._grader = Grader(bundle, operating_point=config.operating_point)
        self._store = Store(config.destination)
        self._metadata = {"retigrade": __version__, "bundle": bundle.identity}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Grade the parts of a batch of Ray Data, given as JSON in `part`, and return outcomes as JSON in `outcome`."""
        outcomes = [self.grade_part(Part(**json.loads(text))) for text in batch["part"]]
        return {"outcome": [json.dumps(asdict(outcome)) for outcome in outcomes]}

    def grade_part(self, part: Part) -> PartOutcome:
        """Grade a part and write its file."""
        started = time.perf_counter()
        name = part_name(self._config.run, part.number)
        try:
            photographs = read_part(self._store, part)
            marks = _Marks(self._store, f"{PurePosixPath(part.file).parent}/{part.number:06d}.attempt")
            read = _Reader(photographs, marks)
            rows = [self._record(verdict, photograph) for verdict, photograph in self._verdicts(photographs, read)]
            table = pa.Table.from_pylist(rows, schema=arrow_schema(self._config.heat))
            self._store.write(name, parquet(table.replace_schema_metadata(self._metadata)))
            marks.clear()
        except RetigradeError as error:  # a full disk, or no right to write: no other part would fare better
            return PartOutcome(number=part.number, name=name, counts={}, failure=str(error))
        except Exception as error:  # ours: said once, rather than tried again and again
            failure = f"internal error: {type(error).__name__}: {error}"
            return PartOutcome(number=part.number, name=name, counts={}, failure=failure)
        counts = Counter(str(row["status"]) for row in rows)
        counts["referable"] = sum(bool(row["referable"]) for row in rows)
        return PartOutcome(
            number=part.number,
            name=name,
            counts=dict(counts),
            bytes=read.bytes,
            seconds=time.perf_counter() - started,
        )

    def _verdicts(self, photographs: list[Photograph], read: _Reader) -> Iterator[tuple[Illustrated, Photograph]]:
        wanted = self._config.heat != "none"
        jobs = 1 if read.careful else self._config.threads  # at work on the one that is noted, and no other
        inputs: deque[Input] = deque()

        def given() -> Iterator[Input]:
            for item in read.inputs():
                inputs.append(item)
                yield item

        gradings = self._grader.grade_many(given(), jobs=jobs, heat=wanted)
        for grading, photograph in zip(gradings, photographs, strict=True):
            yield self._verdict(grading, inputs.popleft()), photograph

    def _verdict(self, grading: Grading, item: Input) -> Illustrated:
        """The verdict with the picture that is asked for; the input, which holds the file's bytes, ends here."""
        if self._config.heat == "none":
            return Illustrated(row=as_row(grading))
        return draw(grading, item, heat=_JPEG, thumbnail=False)

    def _record(self, verdict: Illustrated, photograph: Photograph) -> dict[str, Any]:
        row = replace(
            verdict.row, path=photograph.uri, patient=photograph.patient, eye=photograph.eye, date=photograph.date
        )
        values = asdict(row) | {"size": photograph.size, "etag": photograph.etag}
        if self._config.heat == "bytes":
            values["heat"] = verdict.picture
        elif self._config.heat == "files":
            values["heat"] = None
            if verdict.picture is not None:
                values["heat"] = picture_name(photograph.uri)
                self._store.write(values["heat"], verdict.picture)
        return values


class _Marks:
    """What earlier attempts at a part left: which photograph they were at when they died, if they noted it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        known = store.read(name)
        self.careful = known is not None
        self._deaths: dict[str, int] = {}
        if known is not None:
            left = json.loads(known)
            self._deaths = left["deaths"]
            if left["at"] is not None:
                self._deaths[str(left["at"])] = self._deaths.get(str(left["at"]), 0) + 1
        self.at(None)

    def at(self, position: int | None) -> None:
        self._store.write(self._name, json.dumps({"at": position, "deaths": self._deaths}).encode())

    def deaths(self, position: int) -> int:
        return self._deaths.get(str(position), 0)

    def clear(self) -> None:
        self._store.remove(self._name)


class _Reader:
    """Fetches the photographs of a part, some ahead; each becomes an input that holds its bytes."""

    def __init__(self, photographs: list[Photograph], marks: _Marks) -> None:
        self._photographs, self._marks = photographs, marks
        self.careful = marks.careful
        self.bytes = 0

    def inputs(self) -> Iterator[Input]:
        pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="retigrade-fetch")
        waiting: deque[tuple[Future[bytes], Photograph, int]] = deque()
        ahead = 1 if self.careful else _AHEAD
        try:
            for position, photograph in enumerate(self._photographs):
                held = sum(size for _, _, size in waiting)
                while len(waiting) >= ahead or (waiting and held + (photograph.size or 0) > _AHEAD_BYTES):
                    yield self._input(waiting[0])
                    held -= waiting.popleft()[2]
                if self.careful:
                    self._marks.at(position)
                waiting.append((pool.submit(self._fetch, position), photograph, photograph.size or 0))
            while waiting:
                yield self._input(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, position: int) -> bytes:
        photograph = self._photographs[position]
        photograph.check()
        if self._marks.deaths(position) >= _MOST_DEATHS:
            raise UnreadablePhoto(
                f"{photograph.uri}: {_MOST_DEATHS} workers died while they graded it, perhaps for want of memory"
            )
        return read_photograph(photograph.uri, size=photograph.size, offset=photograph.offset)

    def _input(self, waiting: tuple[Future[bytes], Photograph, int]) -> Input:
        future, photograph, _ = waiting
        name = PurePosixPath(photograph.uri.partition("::")[0]).name or photograph.uri
        try:
            data = future.result()
            self.bytes += len(data)
        except UnreadablePhoto as error:
            problem = error

            def refuse(_path: Path, *, min_side: int | None = None) -> Photo:
                raise problem

            return Input(Path(photograph.uri), name, reader=refuse)

        def read(_path: Path, *, min_side: int | None = None) -> Photo:
            return decode_bytes(data, name=name, min_side=min_side)

        return Input(Path(photograph.uri), name, reader=read)
