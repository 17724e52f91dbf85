from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from retigrade.errors import DataError, UnreadablePhoto, UsageError
from retigrade.grading import NOBODY, Eye, Subject
from retigrade.identity import identify
from retigrade.inputs import Input, Inputs, expand
from retigrade.subjects import NamePattern

DAY = datetime.date(2024, 5, 2)


def of_names(*names: str) -> Inputs:
    return Inputs(tuple(Input(Path(name), name) for name in names))


def listed(folder: Path, text: str) -> Inputs:
    """The inputs of a list, whose files need not be there."""
    (folder / "list.csv").write_text(text, "utf-8")
    return expand([folder / "list.csv"])


def test_names_say_whose_eye_it_is_where_the_list_does_not(tmp_path: Path) -> None:
    inputs = listed(tmp_path, "path,patient,eye\nP1_OD_2024-05-02.jpg,P9,\n")
    (item,) = identify(inputs, pattern=NamePattern.of("patient-eye-date")).items
    assert item.subject == Subject("P9", Eye.RIGHT, DAY)


def test_names_that_do_not_fit_are_of_nobody_and_that_is_said() -> None:
    inputs = identify(of_names("1_left.jpg", "healthy.jpg"), pattern=NamePattern.of("eyepacs"))
    assert [item.subject for item in inputs.items] == [Subject("1", Eye.LEFT), NOBODY]
    assert inputs.notes == (
        "1 names do not fit the name pattern: healthy.jpg",
        "1 of 2 are of no known patient, and in no list of them: healthy.jpg",
    )


def test_a_name_whose_date_cannot_be_read_keeps_patient_and_eye_and_warns() -> None:
    pattern = NamePattern.of(r"(?P<patient>\w+?)_(?P<eye>OD|OS)_(?P<date>.+)")
    (item,) = identify(of_names("P1_OD_03-04-2024.jpg"), pattern=pattern).items
    assert item.subject == Subject("P1", Eye.RIGHT)
    (warning,) = item.warnings
    assert warning.startswith("date unknown: date '03-04-2024' can be read with the day or the month first")


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="matches no name"):
        identify(of_names("a.jpg"), pattern=NamePattern.of("eyepacs"))


@pytest.mark.parametrize(
    ("names", "fitting"),
    [
        (["1_left.jpg", "1_right.jpg"], "eyepacs"),
        (["P1_OD_2024-05-02.jpg", "P2_OS_2024-05-02.jpg"], "patient-eye-date"),
        (["a.jpg", "b.jpg"], None),
        (["1_left.jpg", "b.jpg"], None),
    ],
)
def test_names_that_a_ready_made_pattern_would_read_are_said_to(names: list[str], fitting: str | None) -> None:
    notes = identify(of_names(*names)).notes
    words = f"the names look as if they say whose eye it is: --name-pattern {fitting} reads them"
    assert notes == (() if fitting is None else (words,))


def test_one_file_listed_for_two_patients_is_of_neither(tmp_path: Path) -> None:
    inputs = identify(listed(tmp_path, "path,patient\na.jpg,P1\nb.jpg,P2\na.jpg,P3\n"))
    assert [item.subject.patient for item in inputs.items] == [None, "P2", None]
    with pytest.raises(UnreadablePhoto, match="is listed for the patients P1 and P3"):
        inputs.items[0].read()


def test_pseudonyms_stand_for_patients_and_for_them_alone(tmp_path: Path) -> None:
    inputs = listed(tmp_path, "path,patient\na.jpg,Ada Lovelace\nb.jpg,\n")
    named, unnamed = identify(inputs, key=b"secret").items
    assert named.subject.patient is not None
    assert "Ada" not in named.subject.patient
    assert unnamed.subject.patient is None


@pytest.mark.parametrize(
    "date", ["2024-05-02", "20240502", "2 May 2024", "May 2, 2024", "2024/05/02", "02-May-2024", "2024-05-02T10:30:00"]
)
def test_dates_in_many_forms_are_one_day(tmp_path: Path, date: str) -> None:
    (item,) = listed(tmp_path, f'path,patient,date\na.jpg,P1,"{date}"\n').items
    assert item.subject.date == DAY
    assert item.warnings == ()


@pytest.mark.parametrize(
    ("date", "why"),
    [("03/04/2024", "day or the month first"), ("30/02/2024", "does not exist"), ("02.05.24", "in no form")],
)
def test_other_dates_are_unknown_and_each_photograph_says_so(tmp_path: Path, date: str, why: str) -> None:
    inputs = listed(tmp_path, f"path,patient,date\na.jpg,P1,{date}\n")
    assert inputs.items[0].subject.date is None
    assert inputs.items[0].warnings[0].startswith(f"date unknown: date '{date}'")
    assert why in inputs.items[0].warnings[0]
    assert f"line 2: date '{date}'" in inputs.notes[0]


def test_an_eye_that_is_none_is_unknown_and_said(tmp_path: Path) -> None:
    (item,) = listed(tmp_path, "path,patient,eye\na.jpg,P1,both\n").items
    assert item.subject.eye is None
    assert item.warnings == ("eye unknown: eye 'both' is neither right (R, OD, RE) nor left (L, OS, LE)",)


def test_odd_headers_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    text = "Patient ID;Laterality;Exam Date;File Name;Camera\nP1;OD;2024-05-02;a.jpg;Topcon\n"
    inputs = listed(tmp_path, text)
    assert inputs.items[0].subject == Subject("P1", Eye.RIGHT, DAY)
    assert "list.csv: columns not used: camera" in inputs.notes
    assert "list.csv: read file_name as path, patient_id as patient, laterality as eye, exam_date as date" in (
        inputs.notes
    )


def test_two_headers_for_one_thing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="patient_id and mrn may both be the patient"):
        listed(tmp_path, "path,mrn,patient id\na.jpg,1,2\n")
    (item,) = listed(tmp_path, "path,patient,mrn\na.jpg,P1,2\n").items
    assert item.subject.patient == "P1"
