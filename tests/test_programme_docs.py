"""docs/programme.md names every column, pattern and row of the rule, and no other."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path, PurePath

import pytest

from retigrade.inputs import COLUMNS as LISTED
from retigrade.output import patients, rows
from retigrade.output.comparisons import COMPARED
from retigrade.output.patients import EyeStatus, action_of
from retigrade.output.run import EMBEDDED
from retigrade.output.schema import json_schema
from retigrade.subjects import PATTERNS, NamePattern

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "programme.md").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the first table whose header starts like this, row by row."""
    lines = TEXT[TEXT.index(f"| {heading}") :].splitlines()
    body = lines[2 : next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def columns_below(heading: str) -> list[str]:
    return [re.findall(r"\| `(\w+)`", line)[0] for line in _section(heading) if line.startswith("| `")]


def _section(heading: str) -> list[str]:
    return TEXT.split(f"### {heading}")[1].split("\n#")[0].splitlines()


@pytest.mark.parametrize(
    ("heading", "columns", "kind"),
    [("patients.csv", patients.COLUMNS, "visit"), ("gradings.csv", rows.COLUMNS, "grading")],
)
def test_every_column_and_key_is_documented_in_order(heading: str, columns: tuple[str, ...], kind: str) -> None:
    found = columns_below(heading)
    assert tuple(found[: len(columns)]) == columns
    assert found == list(json_schema()["$defs"][kind]["properties"])


def test_the_rule_is_that_of_the_program() -> None:
    said = {}
    for referable, right, left, action in table("a photograph is referable"):
        for statuses in product(*(_statuses(words) for words in (right, left))):
            said[referable == "yes", *statuses] = action
    assert said == {
        (referable, right, left): action_of(referable=referable, right=right, left=left).value
        for referable, right, left in product((True, False), EyeStatus, EyeStatus)
    }


def _statuses(words: str) -> list[EyeStatus]:
    return list(EyeStatus) if words == "any" else [EyeStatus(word) for word in words.split(" or ")]


def test_the_patterns_read_the_names_beside_them() -> None:
    names = {cells[0].strip("`"): re.findall(r"`([^`]+)`", cells[1]) for cells in table("pattern |")}
    assert list(names) == list(PATTERNS)
    for pattern, examples in names.items():
        for example in examples:
            assert NamePattern.of(pattern).subject(PurePath(example)) is not None, example


def test_the_columns_of_a_list_are_those_that_are_read() -> None:
    assert {name: tuple(re.findall(r"`(\w+)`", others)) for name, others, _ in _listed()} == LISTED


def _listed() -> list[tuple[str, str, str]]:
    return [(cells[0].strip("`"), cells[1], cells[2]) for cells in table("column | may also")]


def test_its_numbers_are_those_of_the_program() -> None:
    assert f"More than {EMBEDDED} photographs" in TEXT
    assert f"For the {COMPARED} eyes" in TEXT
