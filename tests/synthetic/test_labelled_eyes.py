"""A labelled data set of drawn eyes, from Python and from the command line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from retigrade.data.manifest import read_manifest
from retigrade.errors import UsageError
from retigrade.synthetic import write_labelled_eyes


def draw(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["retigrade.synthetic", *arguments])
    runpy.run_module("retigrade.synthetic", run_name="__main__")


def test_a_data_set_has_each_grade_in_turn_and_is_read_as_one(tmp_path: Path) -> None:
    paths = write_labelled_eyes(tmp_path / "eyes", photos=7, size=160)
    assert len(paths) == 7
    assert read_manifest(tmp_path / "eyes").grades.tolist().count(0) == 2


def test_one_name_gives_one_set_and_another_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a/clinic", "b/clinic", "abroad"):
        draw(monkeypatch, str(tmp_path / folder), "1")
    first, again, other = (
        (tmp_path / folder / "No_DR" / "0000.png").read_bytes() for folder in ("a/clinic", "b/clinic", "abroad")
    )
    assert first == again != other


@pytest.mark.parametrize("arguments", [(), ("eyes", "many"), ("eyes", "1", "2")])
def test_wrong_usage_is_one_line(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="usage: python -m"):
        draw(monkeypatch, *arguments)


def test_no_photographs_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        write_labelled_eyes(tmp_path, photos=0)
