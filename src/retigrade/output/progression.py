"""Change over time: each eye's grades from visit to visit, and whether they differ by more than taking a picture again.

Two photographs of one eye on one day do not get quite the same answer. A change is claimed only where the expected
grade, the mean of the grades weighted by their probabilities, moved further than it does between such pairs.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from retigrade.grading import Eye
from retigrade.icdr import GRADES
from retigrade.output.patients import EyeResult, Visit
from retigrade.output.rows import Row

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 360, 132, 74, 10, 24  # of the plot, in pixels


class Direction(StrEnum):
    """Which way an eye went."""

    WORSE = "worse"
    BETTER = "better"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """One dated visit of one eye; expected_grade: 0 to 4; row: of the photograph that stands for the eye."""

    date: datetime.date
    grade: int
    p_referable: float
    expected_grade: float
    row: Row


@dataclass(frozen=True, slots=True)
class Timeline:
    """One eye over its dated visits, oldest first.

    direction: of the last visit against the first; None where one visit, or a bundle whose noise nobody measured, says
    nothing. since: the first visit from which on every one shows the change.
    """

    patient: str
    eye: Eye
    points: tuple[TimelinePoint, ...]
    direction: Direction | None
    since: datetime.date | None

    def __str__(self) -> str:
        """In words, as in `worse since 2023-04-01`."""
        if self.direction is None:
            return "no earlier visit" if len(self.points) < 2 else "change not judged"
        return self.direction.value if self.since is None else f"{self.direction} since {self.since.isoformat()}"


def timelines_of(visits: Iterable[Visit], *, noise: float | None) -> Iterator[Timeline]:
    """Yield a timeline for each eye with a grade on a dated visit, by patient, the right eye first.

    noise: the change of the expected grade that photographing again alone exceeds rarely; None claims no change.
    """
    points: dict[tuple[str, Eye], list[TimelinePoint]] = defaultdict(list)
    for visit in visits:
        for eye, result in ((Eye.RIGHT, visit.right), (Eye.LEFT, visit.left)):
            point = _point(visit.date, result)
            if point is not None:
                points[visit.patient, eye].append(point)
    for patient, eye in sorted(points, key=lambda key: (key[0], key[1] is Eye.LEFT)):
        ordered = tuple(sorted(points[patient, eye], key=lambda point: point.date))
        yield Timeline(patient, eye, ordered, *_change(ordered, noise))


def _point(date: str | None, result: EyeResult) -> TimelinePoint | None:
    row = result.best
    if date is None or row is None or row.grade is None or row.p_referable is None:
        return None
    expected = sum(grade * probability for grade, probability in enumerate(row.probabilities))
    return TimelinePoint(datetime.date.fromisoformat(date), row.grade, row.p_referable, expected, row)


def _change(points: Sequence[TimelinePoint], noise: float | None) -> tuple[Direction | None, datetime.date | None]:
    if len(points) < 2 or noise is None:
        return None, None
    first, last = points[0].expected_grade, points[-1].expected_grade
    if abs(last - first) <= noise:
        return Direction.UNCHANGED, None
    sign = 1 if last > first else -1
    since = points[-1].date
    for point in reversed(points[1:]):
        if sign * (point.expected_grade - first) <= noise:
            break
        since = point.date
    return Direction.WORSE if sign > 0 else Direction.BETTER, since


def timeline_svg(timeline: Timeline) -> str:
    """Return a plot of the grades by date: SVG that takes its colours from the page and holds no text of users."""
    points = timeline.points
    days = [point.date.toordinal() for point in points]
    span = max(days[-1] - days[0], 1)
    room = _WIDTH - _LEFT - 26

    def across(day: int) -> float:
        return round(_LEFT + 10 + (room / 2 if len(days) == 1 else (day - days[0]) / span * room), 1)

    def down(grade: float) -> float:
        return round(_TOP + (len(GRADES) - 1 - grade) / (len(GRADES) - 1) * (_HEIGHT - _TOP - _BOTTOM), 1)

    lines = [
        f'<line class="rule" x1="{_LEFT}" y1="{down(grade)}" x2="{_WIDTH}" y2="{down(grade)}"/>'
        f'<text x="{_LEFT - 6}" y="{down(grade) + 4}" text-anchor="end">{grade.stage}</text>'
        for grade in GRADES
    ]
    path = " ".join(f"{across(day)},{down(point.expected_grade)}" for day, point in zip(days, points, strict=True))
    marks = [
        f'<circle class="g{point.grade}" cx="{across(day)}" cy="{down(point.grade)}" r="4">'
        f"<title>{point.date}: {GRADES[point.grade].stage}, referable {point.p_referable:.2f}</title></circle>"
        for day, point in zip(days, points, strict=True)
    ]
    ends = [
        f'<text x="{across(day)}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{point.date.isoformat()}</text>'
        for day, point, anchor in zip(
            days[:: max(len(days) - 1, 1)], points[:: max(len(days) - 1, 1)], ("start", "end"), strict=False
        )
    ]
    label = f"{timeline.eye.value} eye: {timeline}"
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(lines)}'
        f'<polyline points="{path}"/>{"".join(marks)}{"".join(ends)}</svg>'
    )
