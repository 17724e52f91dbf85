from __future__ import annotations

from pathlib import Path

import pytest

from retigrade.cli import main


def test_small_goes_without_what_it_settles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["paper", str(tmp_path), "--out", str(out), "--small", "--epochs", "5", "--folds", "3"]) == 2
    assert "--small goes without --folds and --epochs" in capsys.readouterr().err
    assert not out.exists()
