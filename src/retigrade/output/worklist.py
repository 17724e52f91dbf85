"""The worklist: patients and photographs on one page that searches, filters and sorts itself, without a network.

The rows are data in the page and a small script of ours draws them a screenful at a time, so thousands cost little.
Nothing typed by users reaches the page as markup: the script sets text, and the data hold no character that ends them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from importlib import resources

from markupsafe import Markup

from retigrade.grader import LOW_CONFIDENCE
from retigrade.icdr import GRADES, Status
from retigrade.metadata import Metadata
from retigrade.output.patients import Action, EyeResult, Visit
from retigrade.output.progression import Timeline, timeline_svg
from retigrade.output.rows import Row
from retigrade.report.style import template
from retigrade.text import shown

_PACKAGE = "retigrade.output"
TILES_SCRIPT, WORKLIST_SCRIPT = "worklist_tiles.js", "worklist.js"
"""Draw photographs and visits; and list those that a `source` script between the two finds."""
DATA_STARTS = '{"rows": ['
"""The line after which each photograph has a line of its own."""
_PLOTTED = 200
"""Timelines that are drawn; of more, the words stand alone, or the page would grow too large to open."""
_ACTION_WORDS = {Action.REFER: "refer", Action.REPHOTOGRAPH: "photograph again", Action.RESCREEN: "rescreen"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One photograph on the page.

    name: what it is called there, its path below the folder that was graded; None calls it by the row's path.
    thumbnail: the address of its picture, a file beside the page or the picture itself; heat: of its thermal picture.
    record: what a later run wants to know of it, as plain values; not shown.
    """

    row: Row
    name: str | None = None
    thumbnail: str | None = None
    heat: str | None = None
    record: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two photographs of one eye, laid over each other.

    date: of the later visit. words: what they are, or why there is no picture. picture: its address, or the picture
    itself; file: the address of the large one.
    """

    patient: str
    date: str
    words: str
    picture: str | None = None
    file: str | None = None


def worklist_page(
    tiles: Iterable[Tile],
    *,
    rows: Iterable[Row],
    visits: Sequence[Visit],
    timelines: Sequence[Timeline],
    comparisons: Sequence[Pair] = (),
    metadata: Metadata,
    bundle: str,
    operating_point: str | None = None,
    header: str = "{}",
    total: int | None = None,
    skipped: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the page in pieces.

    tiles: of the photographs in order; rows: theirs. visits, timelines, comparisons: of the patients, empty where none
    is known. bundle: the bundle's identity. header: how the page was made, kept in it for programs. total: the inputs
    that there were; more than there are tiles if the run was interrupted. skipped: one sentence for each file that was
    left out.
    """
    verdicts = [(row.status, row.grade, bool(row.referable)) for row in rows]
    statuses = Counter(status for status, _, _ in verdicts)
    grades = Counter(grade for _, grade, _ in verdicts if grade is not None)
    actions = Counter(visit.action for visit in _latest(visits))
    script, script_hash = _script()
    yield from template(_PACKAGE, "worklist.html.j2").generate(
        metadata=metadata,
        figures=metadata.figures,
        bundle=bundle,
        operating_point=operating_point,
        threshold=metadata.threshold(operating_point),
        header=header,
        done=len(verdicts),
        total=len(verdicts) if total is None else total,
        patients=len({visit.patient for visit in visits}),
        followed=sum(len(timeline.points) > 1 for timeline in timelines),
        compared=len(comparisons),
        actions=[(words, actions[action]) for action, words in _ACTION_WORDS.items()] if visits else [],
        statuses=[(status, statuses[status]) for status in Status],
        filtered=filters(patients=bool(visits), earlier=bool(visits)),
        grades=[(grade, grades[grade]) for grade in GRADES],
        referable=sum(referable for _, _, referable in verdicts),
        skipped=skipped,
        when=datetime.now().astimezone(),
        data=_data(tiles, visits, timelines, comparisons),
        script=script,
        script_hash=script_hash,
    )


def filters(
    *, patients: bool, readings: bool = False, earlier: bool = False, unsorted: str = "as listed"
) -> dict[str, object]:
    """Return what `filters.html.j2`, the controls of a worklist, needs as `filtered`.

    patients: whether visits are listed too. readings: whether readers' answers are known. earlier: whether visits
    before a patient's last are left out until they are asked for. unsorted: the words for the order of no sorting.
    """
    return {
        "statuses": list(Status),
        "grades": GRADES,
        "patients": patients,
        "readings": readings,
        "earlier": earlier,
        "unsorted": unsorted,
    }


def script_text(name: str) -> str:
    """Return one of this page's scripts."""
    return resources.files(_PACKAGE).joinpath("templates", name).read_text("utf-8")


def _latest(visits: Sequence[Visit]) -> Iterator[Visit]:
    """Yield what is known last of each patient: the last dated visit, and an undated one, which may be later."""
    dated: dict[str, Visit] = {}
    for visit in visits:
        if visit.date is None:
            yield visit
        elif visit.patient not in dated or visit.date > (dated[visit.patient].date or ""):
            dated[visit.patient] = visit
    yield from dated.values()


@cache
def _script() -> tuple[Markup, str]:
    """Return the page's script, and the hash by which the page allows it and no other (W3C CSP 3)."""
    text = "\n".join(map(script_text, (TILES_SCRIPT, "worklist_data.js", WORKLIST_SCRIPT)))
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"sha256-{digest}"


def _data(
    tiles: Iterable[Tile], visits: Iterable[Visit], timelines: Sequence[Timeline], comparisons: Sequence[Pair]
) -> Iterator[Markup]:
    yield Markup(f"{DATA_STARTS}\n")
    yield from _joined(map(tile_values, tiles))
    yield Markup('\n], "visits": [\n')
    yield from _joined(map(visit_values, visits))
    yield Markup('\n], "timelines": ')
    yield json_text(timeline_values(timelines))
    yield Markup(', "comparisons": ')
    yield json_text([asdict(pair) | {"words": shown(pair.words)} for pair in comparisons])
    yield Markup("}")


def _joined(values: Iterable[object]) -> Iterator[Markup]:
    for place, value in enumerate(values):
        yield Markup(",\n" if place else "") + json_text(value)


def json_text(value: object) -> Markup:
    """Return a value as JSON that no HTML parser can end before its end."""
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def tile_values(tile: Tile) -> dict[str, object]:
    """Return a photograph as the scripts draw it."""
    row = tile.row
    return {
        "path": shown(row.path),
        "name": shown(row.path if tile.name is None else tile.name),
        "status": row.status,
        "grade": row.grade,
        "p": [round(p, 4) for p in row.probabilities],
        "pReferable": row.p_referable,
        "referable": row.referable,
        "set": row.prediction_set,
        "quality": row.quality,
        "reasons": [shown(reason) for reason in row.reasons],
        "second": LOW_CONFIDENCE in row.reasons,
        "patient": row.patient,
        "eye": row.eye,
        "date": row.date,
        "thumbnail": tile.thumbnail,
        "heat": tile.heat,
        "record": tile.record,
    }


def visit_values(visit: Visit) -> dict[str, object]:
    """Return a visit as the scripts draw it, without its photographs."""
    return {
        "patient": visit.patient,
        "date": visit.date,
        "right": _eye(visit.right),
        "left": _eye(visit.left),
        "pReferable": visit.p_referable,
        "action": visit.action.value,
        "secondReader": visit.second_reader,
        "reasons": [shown(reason) for reason in visit.reasons],
    }


def _eye(eye: EyeResult) -> dict[str, object]:
    return {"status": eye.status.value, "grade": eye.grade}


def timeline_values(timelines: Sequence[Timeline]) -> dict[str, list[dict[str, str]]]:
    """Return the timelines of more than one visit by patient."""
    several = [timeline for timeline in timelines if len(timeline.points) > 1]
    by_patient: dict[str, list[dict[str, str]]] = {}
    for timeline in several:
        svg = timeline_svg(timeline) if len(several) <= _PLOTTED else ""
        by_patient.setdefault(timeline.patient, []).append(
            {"eye": timeline.eye.value, "words": str(timeline), "svg": svg}
        )
    return by_patient
