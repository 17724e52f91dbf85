"""What a running server is: its network, its record, its threads, and who may use them."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Annotated, Self

from fastapi import Depends, Request

from retigrade.grader import Grader, load
from retigrade.icdr import Status
from retigrade.serve import record
from retigrade.serve.config import ServeConfig
from retigrade.serve.database import Database
from retigrade.serve.security import Guard, Tokens
from retigrade.serve.uploads import Admission
from retigrade.serve.workers import Desk, Writer, grade_upload, sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retigrade.grading import Grading, Subject
    from retigrade.serve.tables import GradingRecord
    from retigrade.serve.uploads import File


class Service:
    """The state of one server; `app.state.service`."""

    def __init__(self, config: ServeConfig, grader: Grader, database: Database) -> None:
        """Take what is open already; `open` opens it."""
        self.config, self.grader, self.database = config, grader, database
        self.guard = Guard(None if config.token_file is None else Tokens(config.token_file), origins=config.origins)
        self.admission = Admission(config)
        self.desk, self.writer = Desk(workers=config.workers), Writer(database)
        self.is_closing = False

    @classmethod
    def open(cls, config: ServeConfig, *, grader: Grader | None = None) -> Self:
        """Open bundle and database. Raises BundleError or UsageError where one cannot be used."""
        if grader is None:
            grader = load(config.bundle, threads=1, operating_point=config.operating_point)
        return cls(config, grader, Database(config.database))

    def close(self) -> None:
        """Finish what was accepted, and give everything back."""
        self.is_closing = True
        self.desk.close()
        self.writer.close()
        self.database.close()

    async def grade(self, files: Sequence[File], subjects: Sequence[Subject], *, actor: str) -> list[GradingRecord]:
        """Return the gradings of some files in their order, once all are durable in the database."""
        waiting = [
            asyncio.wrap_future(self._grade(file, subject, actor=actor))
            for file, subject in zip(files, subjects, strict=True)
        ]
        return list(await asyncio.gather(*waiting))

    def _grade(self, file: File, subject: Subject, *, actor: str) -> Future[GradingRecord]:
        """Have a file graded and written, unless the same was before."""
        answer: Future[GradingRecord] = Future()

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
                with self.database.reading() as session:
                    known = record.find_content(session, content)
                if known is not None:
                    answer.set_result(known)
                    return
                grading = grade_upload(self.grader, file.name, data, subject, max_pixels=self.config.max_pixels)
                if grading.status is Status.ERROR:  # it may be for want of memory: another time it is tried again
                    content = secrets.token_hex(32)
                self.writer.submit(
                    partial(self._write, grading, sha256=sha256, content=content, actor=actor)
                ).add_done_callback(finish)
            except BaseException as error:
                answer.set_exception(error)

        self.desk.submit(work)
        return answer

    def _write(
        self, grading: Grading, session: record.Session, *, sha256: str, content: str, actor: str
    ) -> GradingRecord:
        return record.add_grading(
            session, grading, sha256=sha256, content=content, operating_point=self.grader.operating_point, actor=actor
        )


def service_of(request: Request) -> Service:
    """Return the server's state."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(service_of)]
