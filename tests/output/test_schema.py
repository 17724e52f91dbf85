from __future__ import annotations

import json

import jsonschema
import pytest

from gradings import graded, refused
from retigrade.cli import main
from retigrade.icdr import Status
from retigrade.output.patients import patients_jsonl, visits_of
from retigrade.output.rows import Row, as_row, json_line, row_of
from retigrade.output.schema import json_schema

VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def of_patient(row: Row, **subject: str) -> Row:
    return row_of(json.loads(json_line(row)) | subject)


@pytest.mark.parametrize("status", list(Status))
def test_every_line_of_gradings_is_valid(status: Status) -> None:
    row = as_row(graded() if status is Status.GRADED else refused(status=status))
    VALIDATOR.validate(json.loads(json_line(row)))
    VALIDATOR.validate(json.loads(json_line(of_patient(row, patient="P1", eye="left", date="2024-05-02"))))


def test_every_line_of_patients_is_valid() -> None:
    rows = [of_patient(as_row(graded()), patient="P1", eye="left"), of_patient(as_row(refused()), patient="P2")]
    lines = patients_jsonl(visits_of(rows)).splitlines()
    assert len(lines) == 2
    for line in lines:
        VALIDATOR.validate(json.loads(line))


@pytest.mark.parametrize("change", [{"grade": 5}, {"p0": 1.5}, {"status": "fine"}, {"version": 2}, {"more": 1}])
def test_another_line_is_not(change: dict[str, object]) -> None:
    line = json.loads(json_line(as_row(graded()))) | change
    assert list(VALIDATOR.iter_errors(line))


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
