from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from retigrade.synthetic import write_eyes

ROOT = Path(__file__).resolve().parents[1]


def test_the_session_in_the_readme_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_eyes(tmp_path / "eyes")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 4
    assert failed == 0
