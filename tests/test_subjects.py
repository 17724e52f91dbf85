from __future__ import annotations

import datetime
from pathlib import PurePath

import pytest

from retigrade.errors import UsageError
from retigrade.grading import Eye, Subject
from retigrade.subjects import NamePattern, parse_date, parse_eye, pseudonym

DAY = datetime.date(2024, 5, 2)


@pytest.mark.parametrize("word", ["right", "R", "od", "RE", " Right "])
def test_the_right_eye_by_any_name(word: str) -> None:
    assert parse_eye(word) is Eye.RIGHT


@pytest.mark.parametrize("word", ["left", "l", "OS", "le"])
def test_the_left_eye_by_any_name(word: str) -> None:
    assert parse_eye(word) is Eye.LEFT


def test_no_word_is_an_unknown_eye_and_another_word_an_error() -> None:
    assert parse_eye(" ") is None
    with pytest.raises(ValueError, match="'both' is neither right"):
        parse_eye("both")


@pytest.mark.parametrize(
    "text", ["2024-05-02", "20240502", "2024/05/02", "2024-05-02T10:30:00", "2 May 2024", "May 2, 2024", "02-May-2024"]
)
def test_dates_that_can_be_read_in_one_way(text: str) -> None:
    assert parse_date(text) == DAY


@pytest.mark.parametrize(
    ("text", "day"), [("25/04/2024", "2024-04-25"), ("04/25/2024", "2024-04-25"), ("3.3.2024", "2024-03-03")]
)
def test_day_and_month_where_only_one_order_is_possible(text: str, day: str) -> None:
    assert parse_date(text) == datetime.date.fromisoformat(day)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("02/05/2024", "day or the month first"),
        ("2023-02-29", "does not exist"),
        ("30/02/2024", "does not exist"),
        ("02/05/24", "in no form"),
        ("yesterday", "in no form"),
    ],
)
def test_other_dates_are_errors_that_say_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_date(text)


@pytest.mark.parametrize(
    ("pattern", "name", "subject"),
    [
        ("eyepacs", "10_left.jpeg", Subject("10", Eye.LEFT)),
        ("patient-eye", "P001_OD.jpg", Subject("P001", Eye.RIGHT)),
        ("patient-eye", "P001-OS-2.jpg", Subject("P001", Eye.LEFT)),
        ("patient-eye-date", "P001_OD_2024-05-02.jpg", Subject("P001", Eye.RIGHT, DAY)),
        ("patient-eye-date", "id_7_R_20240502_1.tif", Subject("id_7", Eye.RIGHT, DAY)),
        ("patient-date-eye", "P001_2024-05-02_os.png", Subject("P001", Eye.LEFT, DAY)),
        (r"(?P<patient>\d+)\.(?P<eye>[LR])", "12.L.jpg", Subject("12", Eye.LEFT)),
    ],
)
def test_names_are_read_by_patterns(pattern: str, name: str, subject: Subject) -> None:
    assert NamePattern.of(pattern).subject(PurePath("folder") / name) == (subject, {})


def test_a_name_that_does_not_match_is_of_nobody() -> None:
    assert NamePattern.of("eyepacs").subject(PurePath("healthy.png")) is None


def test_what_cannot_be_read_in_a_name_costs_nothing_else_of_it() -> None:
    found = NamePattern.of(r"(?P<patient>\w+?)_(?P<eye>\w+)_(?P<date>.+)").subject(PurePath("P1_middle_30-02-2024.jpg"))
    assert found is not None
    subject, unread = found
    assert subject == Subject("P1")
    assert "'middle' is neither right" in unread["eye"]
    assert "'30-02-2024' does not exist" in unread["date"]


@pytest.mark.parametrize("pattern", ["(", r"(?P<eye>left)", r"(?P<patient>.)(?P<visit>.)", "no-such-name"])
def test_a_pattern_without_a_patient_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="name pattern"):
        NamePattern.of(pattern)


def test_a_pattern_that_matches_nothing_names_a_file() -> None:
    with pytest.raises(UsageError, match=r"not 'a\.png'"):
        NamePattern.of("eyepacs").check_any([PurePath("a.png"), PurePath("b.png")])
    NamePattern.of("eyepacs").check_any([PurePath("a.png"), PurePath("1_left.png")])
    with pytest.raises(UsageError, match="patient-eye-date fits it"):
        NamePattern.of("eyepacs").check_any([PurePath("P1_OD_2024-05-02.png")])


def test_a_pseudonym_is_steady_for_one_key_and_tells_nothing() -> None:
    assert pseudonym("Ada Lovelace", key=b"k") == pseudonym("Ada Lovelace", key=b"k")
    assert pseudonym("Ada Lovelace", key=b"k") != pseudonym("Ada Lovelace", key=b"other")
    assert "Ada" not in pseudonym("Ada Lovelace", key=b"k")
