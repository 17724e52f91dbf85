"""The report of a run: the worklist page, and what is written in it for the next run.

The page says of which bytes each row tells, so that a later run need not grade them again.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retigrade.input_names import picture_name, picture_names
from retigrade.metadata import Metadata
from retigrade.output.comparisons import Comparison
from retigrade.output.journal import JournalRecord, Stamp
from retigrade.output.patients import visits_of
from retigrade.output.progression import timelines_of
from retigrade.output.rows import row_of
from retigrade.output.worklist import DATA_STARTS, Pair, Tile, worklist_page

_HEAD_LINES = 12  # among which the header is
_HEADER = re.compile(r'<meta name="retigrade" content="([^"]*)">')
_THUMBNAILS, _ALIGNED, _EMBEDDED = "thumbnails", "aligned", "data:image/jpeg;base64,"


def thumbnail_name(name: str) -> str:
    """Return the small picture's path below the output folder; `name` is the input's own name."""
    return f"{_THUMBNAILS}/{name}.jpg"


def aligned_name(name: str) -> str:
    """Return the path below the output folder of an eye's aligned pictures; `name` is the later photograph's own."""
    return f"{_ALIGNED}/{picture_name(name, suffix='.jpg').partition('/')[2]}"


def report(
    records: Callable[[], Iterator[JournalRecord]],
    *,
    header: Mapping[str, Any],
    metadata: Metadata,
    bundle: str,
    operating_point: str | None,
    total: int,
    skipped: Sequence[str],
    noise: float | None,
    comparisons: Sequence[Comparison] = (),
    embed: bool = True,
) -> Iterator[str]:
    """Yield the parts of the page.

    records: yields those of the run from the first, as often as it is called. header: what `read_report` compares.
    bundle: its identity; operating_point: the one that was asked for. total: the inputs that there were; more than
    records if the run was interrupted. skipped: one sentence for each file that was left out. noise: see
    `timelines_of`. comparisons: of eyes at two visits, whose pictures lie below the folder; embed: whether they stand
    in the page too.
    """
    visits = list(visits_of(record.row for record in records()))
    names = {record.row.path: record.name for record in records()} if comparisons else {}
    return worklist_page(
        map(_tile, records()),
        rows=(record.row for record in records()),
        visits=visits,
        timelines=list(timelines_of(visits, noise=noise)),
        comparisons=[_pair(comparison, names[comparison.later.row.path], embed=embed) for comparison in comparisons],
        metadata=metadata,
        bundle=bundle,
        operating_point=operating_point,
        header=json.dumps(header),
        total=total,
        skipped=skipped,
    )


def read_report(page: Path, gradings: Path, *, header: Mapping[str, Any] | None = None) -> Iterator[JournalRecord]:
    """Yield the records of an earlier report and its gradings.jsonl; none where they are not there.

    header: what the report must have been written with; None takes any.
    """
    try:
        with page.open(encoding="utf-8", errors="replace") as lines, gradings.open("rb") as rows:
            found = _HEADER.search("".join(islice(lines, _HEAD_LINES)))
            if found is None or (header is not None and json.loads(html.unescape(found[1])) != dict(header)):
                return
            yield from _records(lines, rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # another program's, or another version's
        return


def _records(lines: Iterator[str], rows: Iterator[bytes]) -> Iterator[JournalRecord]:
    for line in lines:
        if line.rstrip() == DATA_STARTS:
            break
    for line, graded in zip(lines, rows, strict=False):  # either may have been cut short by hand
        if not line.startswith("{"):
            return
        values = json.loads(line.rstrip().removesuffix(","))
        record, thumbnail = values["record"], values["thumbnail"] or ""
        yield JournalRecord(
            row=row_of(json.loads(graded)),
            name=record["name"],
            stamp=Stamp(**record["stamp"]),
            files=tuple(record["files"]),
            thumbnail=thumbnail.removeprefix(_EMBEDDED) if thumbnail.startswith(_EMBEDDED) else None,
        )


def _tile(record: JournalRecord) -> Tile:
    thumbnail = None if record.thumbnail is None else _EMBEDDED + record.thumbnail
    heat = None
    for name in record.files:
        if name == thumbnail_name(record.name):
            thumbnail = _address(name)
        elif name in picture_names(record.name):
            heat = _address(name)
    hidden = {"name": record.name, "stamp": asdict(record.stamp), "files": record.files}
    return Tile(row=record.row, name=record.name, thumbnail=thumbnail, heat=heat, record=hidden)


def _pair(comparison: Comparison, name: str, *, embed: bool) -> Pair:
    timeline = comparison.timeline
    address = None if comparison.picture is None else _address(aligned_name(name))
    inside = embed and comparison.small is not None
    return Pair(
        patient=timeline.patient,
        date=comparison.later.date.isoformat(),
        words=f"{timeline.eye.value} eye: {comparison.words}",
        picture=_EMBEDDED + base64.b64encode(comparison.small or b"").decode() if inside else address,
        file=address,
    )


def _address(name: str) -> str:
    return quote(os.fsencode(name))
