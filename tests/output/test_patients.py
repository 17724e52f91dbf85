from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from gradings import graded, refused
from retigrade.grader import LOW_CONFIDENCE
from retigrade.grading import Grading
from retigrade.icdr import Grade, Status
from retigrade.output.patients import (
    COLUMNS,
    Action,
    EyeStatus,
    action_of,
    patients_csv,
    patients_jsonl,
    visit_of,
    visits_of,
)
from retigrade.output.rows import Row, as_row

G, U, M = EyeStatus.GRADED, EyeStatus.UNGRADABLE, EyeStatus.MISSING


def row(
    eye: str | None,
    grade: int | None = 0,
    *,
    patient: str | None = "P1",
    date: str | None = "2024-05-02",
    path: str = "eye.jpg",
    quality: float = 0.9,
    p_referable: float | None = None,
    reasons: tuple[str, ...] = (),
) -> Row:
    """A row of one photograph; grade None is one that is ungradable."""
    verdict: Grading = refused(Status.UNGRADABLE) if grade is None else graded()
    plain = as_row(verdict)
    if grade is not None:
        plain = replace(
            plain,
            grade=grade,
            stage=Grade(grade).stage,
            referable=grade >= 2,
            p_referable=(0.8 if grade >= 2 else 0.1) if p_referable is None else p_referable,
            quality=quality,
            reasons=reasons,
        )
    return replace(plain, path=path, patient=patient, eye=eye, date=date)


@pytest.mark.parametrize(
    ("referable", "right", "left", "action"),
    [
        *((True, right, left, Action.REFER) for right, left in itertools.product(EyeStatus, EyeStatus)),
        (False, G, G, Action.RESCREEN),
        (False, G, U, Action.REPHOTOGRAPH),
        (False, G, M, Action.REPHOTOGRAPH),
        (False, U, G, Action.REPHOTOGRAPH),
        (False, U, U, Action.REPHOTOGRAPH),
        (False, U, M, Action.REPHOTOGRAPH),
        (False, M, G, Action.REPHOTOGRAPH),
        (False, M, U, Action.REPHOTOGRAPH),
        (False, M, M, Action.REPHOTOGRAPH),
    ],
)
def test_the_rule(referable: bool, right: EyeStatus, left: EyeStatus, action: Action) -> None:
    assert action_of(referable=referable, right=right, left=left) is action


def test_the_worst_photograph_of_an_eye_stands_for_it_the_clearest_of_equals() -> None:
    visit = visit_of(
        [
            row("right", 1, path="a.jpg", quality=0.9),
            row("right", 2, path="b.jpg", quality=0.3),
            row("right", 2, path="c.jpg", quality=0.8),
            row("right", None, path="d.jpg"),
            row("left", 0, path="e.jpg"),
        ],
        patient="P1",
        date=None,
    )
    assert visit.right.best is not None
    assert visit.right.best.path == "c.jpg"
    assert (visit.right.grade, visit.left.grade, visit.worst_grade) == (2, 0, 2)
    assert visit.action is Action.REFER
    assert visit.files == ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")


def test_an_ungradable_or_missing_eye_is_photographed_again_and_named() -> None:
    missing = visit_of([row("right", 0)], patient="P1", date=None)
    assert missing.action is Action.REPHOTOGRAPH
    assert missing.reasons == ("left eye missing",)
    ungradable = visit_of([row("right", 0), row("left", None)], patient="P1", date=None)
    assert ungradable.action is Action.REPHOTOGRAPH
    assert ungradable.reasons[0].startswith("left eye without a grade: ")


def test_a_photograph_of_unknown_side_refers_but_never_makes_negative() -> None:
    healthy = visit_of([row(None, 0), row(None, 0)], patient="P1", date=None)
    assert healthy.action is Action.REPHOTOGRAPH
    assert "2 photographs of an eye whose side is not known" in healthy.reasons
    diseased = visit_of([row(None, 3), row("right", 0), row("left", 0)], patient="P1", date=None)
    assert diseased.action is Action.REFER
    assert diseased.worst_grade == 3


def test_two_photographs_of_one_eye_that_disagree_by_two_stages_ask_for_a_second_reader() -> None:
    visit = visit_of([row("right", 0), row("right", 2), row("left", 0)], patient="P1", date=None)
    assert visit.second_reader
    assert "right eye: its photographs of one visit disagree, none and moderate" in visit.reasons[0]
    assert not visit_of([row("right", 0), row("right", 1), row("left", 0)], patient="P1", date=None).second_reader


def test_a_doubtful_photograph_asks_for_a_second_reader() -> None:
    visit = visit_of([row("right", 0, reasons=(LOW_CONFIDENCE,)), row("left", 0)], patient="P1", date=None)
    assert visit.second_reader
    assert visit.action is Action.RESCREEN


def test_photographs_without_a_date_are_never_taken_together_silently() -> None:
    alone = visit_of([row("right", 0)], patient="P1", date=None)
    assert not any("no date" in reason for reason in alone.reasons)
    together = visit_of([row("right", 0), row("left", 0)], patient="P1", date=None)
    assert together.reasons == ("no date: its 2 photographs are taken together and may be of several visits",)
    assert not together.second_reader


def test_an_undated_visit_beside_dated_ones_says_that_its_place_is_not_known() -> None:
    undated, dated = visits_of([row("right", 0, date="2024-05-02"), row("right", 3, date=None)])
    assert undated.date is None
    assert undated.action is Action.REFER
    assert "no date: it may be earlier or later than the patient's dated visits" in undated.reasons
    assert dated.reasons == ("left eye missing",)


def test_a_date_that_could_not_be_read_asks_for_a_person() -> None:
    why = "date unknown: date '03/04/2024' can be read with the day or the month first; write 2024-MM-DD"
    visit = visit_of([row("right", 0, reasons=(why,)), row("left", 0)], patient="P1", date=None)
    assert visit.second_reader
    assert why in visit.reasons


def test_a_programme_of_300_patients_against_a_table_computed_independently() -> None:
    rng = np.random.default_rng(0)
    rows, expected = [], []
    for number in range(300):
        for date in ("2023-05-02", "2024-05-02"):
            patient, cells, photos = f"P{number:03d}", {}, []
            for eye in ("right", "left"):
                draw = rng.random()
                grade = int(rng.integers(5))
                if draw < 0.05:
                    cells[eye] = ("missing", "")
                elif draw < 0.15:
                    photos.append(row(eye, None, patient=patient, date=date))
                    cells[eye] = ("ungradable", "")
                else:
                    photos.append(row(eye, grade, patient=patient, date=date))
                    cells[eye] = ("graded", str(grade))
            rows += photos
            grades = [int(grade) for _, grade in cells.values() if grade]
            if any(grade >= 2 for grade in grades):
                action = "refer"
            elif len(grades) == 2:
                action = "rescreen"
            else:
                action = "rephotograph"
            if photos:
                worst = str(max(grades)) if grades else ""
                expected.append((patient, date, *cells["right"], *cells["left"], worst, action))
    rng.shuffle(rows)  # type: ignore[arg-type]
    table = list(csv.DictReader(io.StringIO(patients_csv(visits_of(rows)))))
    names = ("patient", "date", "right_status", "right_grade", "left_status", "left_grade", "worst_grade", "action")
    assert [tuple(line[name] for name in names) for line in table] == expected


def test_both_files_have_the_columns_of_the_contract() -> None:
    visits = [
        visit_of([row("right", 0, path="a b.jpg"), row("left", 1, path="c.jpg")], patient="P1", date="2024-05-02")
    ]
    header, line = patients_csv(visits).splitlines()
    assert header.split(",") == list(COLUMNS)
    assert line == "P1,2024-05-02,graded,0,graded,1,1,0.1,rescreen,false,,a b.jpg;c.jpg"
    assert json.loads(patients_jsonl(visits))["files"] == ["a b.jpg", "c.jpg"]


def test_rows_of_nobody_are_no_visit() -> None:
    assert list(visits_of([row("right", 0, patient=None)])) == []
