"""The report: one HTML page that needs no network, no script and no other file.

It also says, where no reader sees it, of which bytes each row tells, so that a later run need not grade them again.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from retigrade.icdr import GRADES, Status
from retigrade.inputs import picture_name
from retigrade.metadata import Metadata
from retigrade.output.journal import Record, Stamp
from retigrade.output.rows import row_of
from retigrade.report.style import template

_PACKAGE = "retigrade.output"
_HEAD_LINES = 12  # among which the header is
_HEADER = re.compile(r'<meta name="retigrade" content="([^"]*)">')
_ROW = re.compile(r'<tr class="[^"]*" data-record="([^"]*)">')
_THUMBNAIL = re.compile(r'src="data:image/jpeg;base64,([^"]*)"')


def report(
    records: Callable[[], Iterator[Record]],
    *,
    header: Mapping[str, Any],
    metadata: Metadata,
    bundle: str,
    operating_point: str | None,
    total: int,
    skipped: Sequence[str],
) -> Iterator[str]:
    """Yield the parts of the page.

    records: yields those of the run from the first, as often as it is called. header: what `read_report` compares.
    bundle: its identity; operating_point: the one that was asked for. total: the inputs that there were; more than
    records if the run was interrupted. skipped: one sentence for each file that was left out.
    """
    rows = [(record.row.status, record.row.grade, bool(record.row.referable)) for record in records()]
    statuses, grades = Counter(status for status, _, _ in rows), Counter(grade for _, grade, _ in rows)
    return template(_PACKAGE, "report.html.j2").generate(
        metadata=metadata,
        bundle=bundle,
        header=json.dumps(header),
        done=len(rows),
        operating_point=operating_point,
        grades=[(grade, grades[grade]) for grade in GRADES],
        referable=sum(referable for _, _, referable in rows),
        rows=map(_row, records()),
        skipped=skipped,
        statuses=[(status, statuses[status]) for status in Status],
        threshold=metadata.threshold(operating_point),
        total=total,
        when=datetime.now().astimezone(),
    )


def read_report(page: Path, gradings: Path, *, header: Mapping[str, Any] | None = None) -> Iterator[Record]:
    """Yield the records of an earlier report and its gradings.jsonl; none where they are not there.

    header: what the report must have been written with; None takes any.
    """
    try:
        with page.open(encoding="utf-8", errors="replace") as lines, gradings.open("rb") as rows:
            found = _HEADER.search("".join(islice(lines, _HEAD_LINES)))
            if found is None or (header is not None and json.loads(html.unescape(found[1])) != dict(header)):
                return
            yield from _records(lines, rows)
    except (OSError, ValueError, KeyError, TypeError):  # another program's, or another version's
        return


def _records(lines: Iterator[str], rows: Iterator[bytes]) -> Iterator[Record]:
    for line in lines:
        if (found := _ROW.match(line)) is None:
            continue
        values, thumbnail = json.loads(html.unescape(found[1])), None
        for cell in lines:
            if (picture := _THUMBNAIL.search(cell)) is not None:
                thumbnail = picture[1]
            if picture is not None or cell.strip() == "</td>":
                break
        yield Record(
            row=row_of(json.loads(next(rows))),
            name=values["name"],
            stamp=Stamp(**values["stamp"]),
            files=tuple(values["files"]),
            thumbnail=thumbnail,
        )


def _row(record: Record) -> Markup:
    picture = picture_name(record.name)
    return Markup(  # the template has escaped all that it was given
        template(_PACKAGE, "row.html.j2").render(
            row=record.row,
            record=json.dumps({"name": record.name, "stamp": asdict(record.stamp), "files": record.files}),
            grades=GRADES,
            thumbnail=record.thumbnail,
            link=quote(os.fsencode(picture)) if picture in record.files else None,
        )
    )
