from __future__ import annotations

import csv
import io
import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradings import graded, refused
from retigrade.icdr import GRADES, Grade, Status
from retigrade.output.rows import COLUMNS, as_row, csv_header, csv_line, json_line

CONTRACT = "path,status,grade,stage,p0,p1,p2,p3,p4,p_referable,referable,quality,reasons,sha256,bundle,seconds"

any_name = st.text(st.characters(exclude_characters="\0"), min_size=1)  # surrogates too: names that are not UTF-8


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_the_columns_are_the_contract() -> None:
    assert ",".join(COLUMNS) == CONTRACT
    assert csv_header() == CONTRACT + "\n"


def test_a_graded_photo_fills_every_cell() -> None:
    (row,) = read_csv(csv_header() + csv_line(as_row(graded())))
    assert row == {
        "path": "eye.jpg",
        "status": "graded",
        "grade": "2",
        "stage": "moderate",
        "p0": "0.05",
        "p1": "0.1",
        "p2": "0.6",
        "p3": "0.2",
        "p4": "0.05",
        "p_referable": "0.85",
        "referable": "true",
        "quality": "0.9123",
        "reasons": "dark rim; low confidence: a second reader is advised",
        "sha256": "ab" * 32,
        "bundle": "tiny@0123456789ab",
        "seconds": "0.0123",
    }


@pytest.mark.parametrize("status", [Status.UNGRADABLE, Status.NOT_FUNDUS, Status.ERROR])
def test_only_graded_photos_have_a_grade_in_their_row(status: Status) -> None:
    (row,) = read_csv(csv_header() + csv_line(as_row(refused(status=status))))
    answers = ("grade", "stage", "p0", "p1", "p2", "p3", "p4", "p_referable", "referable")
    assert {row[name] for name in answers} == {""}
    assert (row["status"], row["reasons"]) == (status.value, "no retinal disc")


def test_json_has_the_same_keys_with_typed_values() -> None:
    found = json.loads(json_line(as_row(graded())))
    assert tuple(found) == (
        *COLUMNS,
        "prediction_set",
        "patient",
        "eye",
        "date",
        "device",
        "field_of_view",
        "pixel_spacing",
        "schema",
        "version",
    )
    assert (found["grade"], found["referable"], found["p2"]) == (2, True, 0.6)
    assert found["reasons"] == ["dark rim", "low confidence: a second reader is advised"]
    assert json.loads(json_line(as_row(refused())))["grade"] is None


def test_possible_grades_are_in_the_json_alone() -> None:
    row = as_row(graded(prediction_set=(Grade.MODERATE, Grade.SEVERE)))
    assert json.loads(json_line(row))["prediction_set"] == [2, 3]
    assert csv_line(row) == csv_line(as_row(graded()))


def as_programs_read(cell: str) -> str:
    return cell.removeprefix("'")


@given(any_name, any_name)
def test_any_name_survives_csv_and_json(path: str, reason: str) -> None:
    row = as_row(refused(path, reason=reason))
    lines = csv_header() + csv_line(row) + csv_line(row)
    plain = "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" and c not in "\t\r\n" else c for c in path)
    assert [as_programs_read(found["path"]) for found in read_csv(lines)] == [plain, plain]
    line = json_line(row)
    assert len(line.splitlines()) == 1
    assert json.loads(line.encode("ascii"))["path"] == path
    assert json.loads(line)["reasons"] == [reason]


@pytest.mark.parametrize("text", ["=1+1.jpg", "-x.jpg", "@SUM(A1).jpg", "+.png", "\t=1", "'=1", "\uff1d1"])
def test_no_text_starts_a_formula_in_a_spreadsheet(text: str) -> None:
    (row,) = read_csv(csv_header() + csv_line(as_row(refused(text, reason=text))))
    assert (row["path"], row["reasons"]) == (f"'{text}", f"'{text}")
    assert as_programs_read(row["path"]) == text
    assert json.loads(json_line(as_row(refused(text))))["path"] == text


def test_a_name_cannot_speak_to_the_terminal_through_csv() -> None:
    line = csv_line(as_row(refused("\x1b]0;title\x07\x9b31m.jpg", reason="\x1b[2J")))
    assert "\\x1b]0;title\\x07\\x9b31m.jpg" in line
    assert not {"\x1b", "\x07", "\x9b"} & set(line)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda weights: sum(weights) > 1e-3))
def test_written_probabilities_still_sum_to_one_and_have_no_exponent(weights: list[float]) -> None:
    probabilities = np.array(weights) / sum(weights)
    p_referable = min(float(probabilities[2:].sum()), 1.0)
    line = csv_line(as_row(graded(probabilities=probabilities, p_referable=p_referable)))
    (row,) = read_csv(csv_header() + line)
    written = [row[f"p{grade.value}"] for grade in GRADES]
    assert sum(map(float, written)) == pytest.approx(1, abs=1e-7)
    assert not any("e" in number for number in written)
