"""The report: one HTML page that needs no network, no script and no other file, written row by row."""

from __future__ import annotations

import base64
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from markupsafe import Markup

from retigrade.files import Draft, writing
from retigrade.icdr import GRADES, Status
from retigrade.metadata import Metadata
from retigrade.output.illustrate import Illustrated
from retigrade.report.style import template

_PACKAGE = "retigrade.output"
_CHUNK = 1 << 20  # characters


class Report:
    """The page of one run; its rows wait in an unnamed file, as the counts above them are known last."""

    def __init__(self, target: Path, *, metadata: Metadata, bundle: str, operating_point: str | None = None) -> None:
        """Open the page; `bundle` is the bundle's identity, `operating_point` the one that was asked for.

        Raises UsageError where the folder cannot be written.
        """
        self._card, self._bundle, self._operating_point = metadata, bundle, operating_point
        self._statuses: Counter[str] = Counter()
        self._grades: Counter[int] = Counter()
        self._referable = 0
        self._target = target
        self._page = Draft(target)
        with writing(target):
            self._rows = tempfile.TemporaryFile("w+", dir=target.parent, encoding="utf-8")  # noqa: SIM115 - see close

    def add(self, verdict: Illustrated, *, picture: PurePosixPath | None) -> None:
        """Add one row; `picture` is its thermal picture's file, relative to the page."""
        row = verdict.row
        self._statuses[row.status] += 1
        if row.grade is not None:
            self._grades[row.grade] += 1
        self._referable += bool(row.referable)
        html = template(_PACKAGE, "row.html.j2").render(
            row=row,
            grades=GRADES,
            thumbnail=None if verdict.thumbnail is None else base64.b64encode(verdict.thumbnail).decode(),
            link=None if picture is None else quote(os.fsencode(str(picture))),
        )
        with writing(self._target):
            self._rows.write(html)

    def publish(self, *, total: int, skipped: tuple[str, ...]) -> None:
        """Give the page its name.

        total: the inputs that there were; more than rows were added if the run was interrupted. skipped: one sentence
        for each file that was passed over.
        """
        with writing(self._target):
            self._rows.seek(0)
        done = self._statuses.total()
        page = template(_PACKAGE, "report.html.j2").generate(
            metadata=self._card,
            bundle=self._bundle,
            done=done,
            operating_point=self._operating_point,
            grades=[(grade, self._grades[grade]) for grade in GRADES],
            referable=self._referable,
            rows=self._stored(),
            skipped=skipped,
            statuses=[(status, self._statuses[status]) for status in Status],
            threshold=self._card.threshold(self._operating_point),
            total=total,
            when=datetime.now().astimezone(),
        )
        for part in page:
            self._page.write(part)
        self._page.publish()

    def close(self) -> None:
        """Remove what was not published."""
        with suppress(OSError):  # what was still in memory did not fit on the disk; it goes anyway
            self._rows.close()
        self._page.discard()

    def _stored(self) -> Iterator[Markup]:
        while part := self._rows.read(_CHUNK):
            yield Markup(part)
