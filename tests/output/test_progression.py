from __future__ import annotations

import datetime
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gradings import graded
from retigrade.output.patients import Visit, visit_of
from retigrade.output.progression import Direction, timeline_svg, timelines_of
from retigrade.output.rows import as_row

NOISE = 0.4


def visit(date: str | None, expected: float, *, eye: str = "right") -> Visit:
    """A visit of one eye whose expected grade, between two neighbouring grades, is this."""
    low = int(expected)
    p = [0.0] * 5
    p[low], p[min(low + 1, 4)] = 1 - (expected - low), expected - low
    if low == 4:
        p[4] = 1.0
    grade = max(range(5), key=lambda place: p[place])
    values = dict(zip(("p0", "p1", "p2", "p3", "p4"), p, strict=True))
    row = replace(
        as_row(graded()),
        patient="P1",
        eye=eye,
        date=date,
        grade=grade,
        p_referable=sum(p[2:]),
        referable=grade >= 2,
        **values,
    )  # type: ignore[arg-type]
    return visit_of([row], patient="P1", date=date)


def test_a_change_beyond_the_noise_is_claimed_from_the_first_visit_that_shows_it() -> None:
    visits = [visit("2022-01-01", 0.2), visit("2023-01-01", 0.3), visit("2024-01-01", 1.9), visit("2025-01-01", 2.1)]
    (timeline,) = timelines_of(visits, noise=NOISE)
    assert timeline.direction is Direction.WORSE
    assert timeline.since == datetime.date(2024, 1, 1)
    assert str(timeline) == "worse since 2024-01-01"


def test_a_change_within_the_noise_is_none() -> None:
    (timeline,) = timelines_of([visit("2022-01-01", 1.3), visit("2023-01-01", 1.6)], noise=NOISE)
    assert timeline.direction is Direction.UNCHANGED
    assert str(timeline) == "unchanged"


def test_a_passing_change_is_not_claimed_to_last() -> None:
    visits = [visit("2022-01-01", 0.2), visit("2023-01-01", 2.0), visit("2024-01-01", 0.3), visit("2025-01-01", 2.0)]
    (timeline,) = timelines_of(visits, noise=NOISE)
    assert timeline.since == datetime.date(2025, 1, 1)


def test_an_eye_that_heals_is_better() -> None:
    (timeline,) = timelines_of([visit("2022-01-01", 3.0), visit("2023-01-01", 1.0)], noise=NOISE)
    assert timeline.direction is Direction.BETTER


@pytest.mark.parametrize(
    ("dates", "words"), [(["2022-01-01"], "no earlier visit"), (["2022-01-01", "2023-01-01"], "change not judged")]
)
def test_without_noise_or_earlier_visit_nothing_is_claimed(dates: list[str], words: str) -> None:
    (timeline,) = timelines_of([visit(date, 2.0 * place) for place, date in enumerate(dates)], noise=None)
    assert timeline.direction is None
    assert str(timeline) == words


def test_visits_come_in_any_order_and_undated_ones_are_left_out() -> None:
    visits = [visit("2024-01-01", 2.0), visit(None, 4.0), visit("2022-01-01", 0.0)]
    (timeline,) = timelines_of(visits, noise=NOISE)
    assert [point.grade for point in timeline.points] == [0, 2]


def test_each_eye_has_its_own_timeline_the_right_one_first() -> None:
    timelines = list(timelines_of([visit("2024-01-01", 1.0, eye="left"), visit("2024-01-01", 1.0)], noise=NOISE))
    assert [timeline.eye.value for timeline in timelines] == ["right", "left"]


@pytest.mark.parametrize("dates", [["2024-01-01"], ["2022-01-01", "2023-06-01", "2024-01-01"]])
def test_the_plot_marks_every_visit(dates: list[str]) -> None:
    (timeline,) = timelines_of([visit(date, 1.0) for date in dates], noise=NOISE)
    root = ElementTree.fromstring(timeline_svg(timeline))
    assert len(root.findall("circle")) == len(dates)
    assert dates[0] in ElementTree.tostring(root, encoding="unicode")
