"""The threads behind the server: those that grade, and the one that writes to the database."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from retigrade.errors import UnreadablePhoto
from retigrade.fundus.decode import Photo, decode_bytes
from retigrade.fundus.formats import read_header
from retigrade.fundus.header import HeaderError
from retigrade.grader import Grader
from retigrade.grading import Grading, Subject
from retigrade.inputs import Input
from retigrade.serve.database import Database
from retigrade.text import shown

_TOGETHER, _LINGER_SECONDS = 64, 0.25
_logger = logging.getLogger(__name__)
T = TypeVar("T")


def grade_upload(grader: Grader, name: str, data: bytes, subject: Subject, *, max_pixels: int) -> Grading:
    """Return the verdict on an uploaded file, the same as the command line gives it.

    max_pixels: beyond which a photograph is not decoded. Raises BundleError where the network fails on it.
    """
    item = Input(Path(name), name, reader=partial(_read, data, max_pixels=max_pixels), subject=subject)
    (grading,) = grader.grade_many([item])
    return grading


def _read(data: bytes, path: Path, *, max_pixels: int, min_side: int | None = None) -> Photo:
    try:
        header = read_header(data)
    except HeaderError:
        pass  # decoding says what is wrong
    else:
        if header.width * header.height > max_pixels:
            raise UnreadablePhoto(
                f"{shown(path.name)}: {header.width} x {header.height} pixels, more than the {max_pixels} that this "
                "server reads; send a smaller one"
            )
    return decode_bytes(data, name=path.name, min_side=min_side)


def sha256_of(data: bytes | bytearray) -> str:
    """Return the hexadecimal digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


class Desk:
    """The threads that grade, at most `workers` photographs at once; they share the one network session."""

    def __init__(self, *, workers: int) -> None:
        """Start no thread before there is work."""
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="grade")

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have this done as soon as a thread is free."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Finish what was submitted."""
        self._pool.shutdown(wait=True)


class _Write(Generic[T]):
    def __init__(self, change: Callable[[Session], T]) -> None:
        self.change, self.future = change, Future[T]()


class Writer:
    """The one thread that changes the database: changes that wait are made in one transaction.

    A change is answered when it is on the disk. One transaction for many costs the disk once, and the audit log's chain
    needs one writer anyhow.
    """

    def __init__(self, database: Database, *, together: Callable[[], int] = lambda: 1) -> None:
        """Start the thread; together: how many changes are worth waiting for, a moment at most, as they will come."""
        self._database, self._wanted = database, together
        self._waiting: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[Session], T]) -> Future[T]:
        """Have this change made; its result comes once it is durable, or its error when nothing of it was kept."""
        write = _Write(change)
        write.future.set_running_or_notify_cancel()  # who asked may give up; the change is made, and has its result
        self._waiting.put(write)
        return write.future

    def close(self) -> None:
        """Finish what was submitted, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            writes = [self._waiting.get()]
            end, wanted = time.monotonic() + _LINGER_SECONDS, self._wanted()
            while len(writes) < _TOGETHER and writes[-1] is not None:
                patience = end - time.monotonic() if len(writes) < wanted else 0
                try:
                    writes.append(self._waiting.get(timeout=max(patience, 0)))
                except queue.Empty:
                    break
            is_open = None not in writes
            changes = [write for write in writes if write is not None]
            if changes:
                self._commit(changes)

    def _commit(self, writes: list[_Write[Any]]) -> None:
        """Make all changes in one transaction; where one of them fails, each in its own: the others are kept."""
        try:
            with self._database.transaction() as session:
                results = [_made(write.change, session) for write in writes]
        except Exception as error:  # nothing was kept
            if len(writes) > 1:
                for write in writes:
                    self._commit([write])
            else:
                writes[0].future.set_exception(error)
        else:
            for write, result in zip(writes, results, strict=True):
                write.future.set_result(result)


def _made(change: Callable[[Session], T], session: Session) -> T:
    """Return a change's result; what it did is in the transaction before the next one begins."""
    result = change(session)
    session.flush()
    return result
