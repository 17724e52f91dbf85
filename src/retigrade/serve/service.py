"""What a running server is: its network, its record, its threads, and who may use them."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from retigrade import __version__
from retigrade.bundle import bundle_file
from retigrade.errors import UsageError
from retigrade.grader import Grader
from retigrade.icdr import Status
from retigrade.serve import audit, record
from retigrade.serve.config import ServeConfig
from retigrade.serve.counters import Counters
from retigrade.serve.database import Database
from retigrade.serve.photos import PhotoStore
from retigrade.serve.problems import busy
from retigrade.serve.security import Guard, Tokens
from retigrade.serve.uploads import Admission
from retigrade.serve.workers import Desk, Writer, grade_upload, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retigrade.grading import Subject
    from retigrade.serve.tables import GradingRecord
    from retigrade.serve.uploads import File


_PATIENT = 8  # of so many requests that wait, one more may wait for another's change to be written with its own


class Service:
    """The state of one server; `app.state.service`."""

    def __init__(self, config: ServeConfig, grader: Grader, database: Database) -> None:
        """Take what is open already; `open` opens it."""
        self.config, self.grader, self.database = config, grader, database
        tokens = None if config.token_file is None else Tokens(config.token_file)
        self.guard = Guard(tokens, origins=config.origins, note=self.note)
        self.admission = Admission(config)
        self.counters = Counters(waiting=lambda: self.admission.waiting, held=lambda: self.admission.held)
        self.photos = (
            None if config.keep_photos is None else PhotoStore(config.keep_photos, retention_days=config.retention_days)
        )
        self.desk = Desk(workers=config.workers)
        self.writer = Writer(database, together=lambda: self.admission.waiting // _PATIENT)
        self.keys_under_way: set[str] = set()
        self._bundle_path = bundle_file(config.bundle)
        self._bundle_stamp = _stamp(self._bundle_path)
        self.is_closing = False
        details = {"version": __version__, "bundle": grader.bundle.identity, "operating_point": grader.operating_point}
        self.note("server", "start", details).result()

    @classmethod
    def open(cls, config: ServeConfig, *, grader: Grader | None = None) -> Self:
        """Open bundle and database. Raises BundleError or UsageError where one cannot be used."""
        if grader is None:
            grader = config.load_grader()
        return cls(config, grader, Database(config.database))

    def bundle_note(self) -> str | None:
        """Return a sentence where the bundle's file is not the one any more that was read at the start."""
        if self._bundle_stamp == _stamp(self._bundle_path):
            return None
        return (
            "the bundle's file has changed since the start: this server goes on with the one that it read, "
            f"{self.grader.bundle.identity}; start it again to use the other"
        )

    def close(self) -> None:
        """Finish what was accepted, and give everything back."""
        self.is_closing = True
        self.desk.close()
        self.note("server", "stop", {})
        self.writer.close()
        self.database.close()

    def note(self, actor: str, action: str, details: dict[str, Any]) -> Future[None]:
        """Have a line written into the audit log."""
        return self.writer.submit(partial(audit.append, actor=actor, action=action, details=details))

    def tidy(self) -> None:
        """Delete what was kept for long enough: photographs, and the keys of answered requests."""
        self.writer.submit(record.forget_requests)
        if self.photos is not None and (count := self.photos.purge()):
            self.note("server", "purge photographs", {"count": count})

    def forget_photos(self, digests: Iterable[str]) -> None:
        """Delete the photographs that no grading is left of."""
        if self.photos is None:
            return
        for sha256 in set(digests):
            with self.database.reading() as session:
                in_use = record.is_in_use(session, sha256)
            if not in_use:
                self.photos.delete(sha256)

    async def grade(self, files: Sequence[File], subjects: Sequence[Subject], *, actor: str) -> list[GradingRecord]:
        """Return the gradings of some files in their order, once all are durable in the database."""
        waiting = [
            asyncio.wrap_future(self._grade(file, subject, actor=actor))
            for file, subject in zip(files, subjects, strict=True)
        ]
        records = list(await asyncio.gather(*waiting))
        if self.photos is not None:
            await run_in_threadpool(self._keep, self.photos, files, records)
        return records

    def _keep(self, photos: PhotoStore, files: Sequence[File], records: Sequence[GradingRecord]) -> None:
        """Keep the photographs of gradings that are written; not of those that somebody has deleted already."""
        for file, known in zip(files, records, strict=True):
            if known.sha256 is not None and known.row["sha256"] is not None:  # it is a photograph
                try:
                    photos.keep(known.sha256, file.data)
                except (UsageError, OSError) as error:
                    raise busy(
                        "a graded photograph cannot be kept", needed="a folder --keep-photos that can be written"
                    ) from error
        self.forget_photos(known.sha256 for known in records if known.sha256 is not None)

    def _grade(self, file: File, subject: Subject, *, actor: str) -> Future[GradingRecord]:
        """Have a file graded and written, unless the same was before."""
        answer: Future[GradingRecord] = Future()
        answer.set_running_or_notify_cancel()  # who asked may give up; the grading is written, and has its result

        def finish(written: Future[GradingRecord]) -> None:
            if (error := written.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(written.result())

        def work() -> None:
            try:
                data = bytes(file.data)
                sha256 = sha256_of(data)
                point = self.grader.operating_point
                content = record.content_of(
                    sha256, bundle=self.grader.bundle.identity, operating_point=point, subject=subject
                )
                known = self._find(content)
                if known is not None:
                    answer.set_result(known)
                    return
                grading = grade_upload(self.grader, file.name, data, subject, max_pixels=self.config.max_pixels)
                self.counters.count_grading(grading)
                if grading.status is Status.ERROR:  # memory may have been short: another time it is tried again
                    content = secrets.token_hex(32)
                write = partial(
                    record.add_grading,
                    grading=grading,
                    sha256=sha256,
                    content=content,
                    operating_point=point,
                    actor=actor,
                )
                self.writer.submit(write).add_done_callback(finish)
            except BaseException as error:
                answer.set_exception(error)

        self.desk.submit(work)
        return answer

    def _find(self, content: str) -> GradingRecord | None:
        """Return the grading of a photograph that was graded before."""
        with self.database.reading() as session:
            return record.find_content(session, content)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def service_of(request: Request) -> Service:
    """Return the server's state."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def _service(request: Request) -> Service:  # async, for it waits for nothing and needs no thread of its own
    return service_of(request)


ServiceDep = Annotated[Service, Depends(_service)]
