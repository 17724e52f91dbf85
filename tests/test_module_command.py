from __future__ import annotations

import sys

import pytest

from retigrade.errors import DataError
from retigrade.evaluation.model_card import Arguments, main
from retigrade.module_command import run_module


def test_what_the_user_can_mend_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["model_card", "--report", "none.json", "--out", "card.md"])
    with pytest.raises(SystemExit) as left:
        run_module(main, Arguments)
    assert left.value.code == DataError.exit_code == 2
    assert "none.json" in (told := capsys.readouterr().err)
    assert told.count("\n") == 1
