"""What a person reads while a training runs, on a terminal and in a file."""

from __future__ import annotations

import io

import pytest

from retigrade.training.progress import EpochResult, Progress, TerminalProgress

RESULT = EpochResult(epoch=1, loss=1.25, accuracy=0.5, kappa=0.25, seconds=3.2)


def test_piped_it_tells_a_plain_line_each_epoch_and_each_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("retigrade.training.progress.monotonic", lambda: now)
    out = io.StringIO()
    with TerminalProgress(out) as progress:
        progress.note("no photographs of grade 4")
        progress.begin("fold1", epochs=2)
        progress.step(epoch=1, step=1, steps=90, loss=1.5)
        now += 31
        progress.step(epoch=1, step=50, steps=90, loss=1.4)
        progress.step(epoch=1, step=60, steps=90, loss=1.3)
        progress.epoch(RESULT)
    assert out.getvalue().splitlines() == [
        "no photographs of grade 4",
        "fold1, 2 epochs",
        "fold1, epoch 1 of 2, step 50 of 90: loss 1.400",
        "fold1, epoch 1 of 2: loss 1.250, validation accuracy 0.500, kappa 0.250, 3 s",
    ]


def test_the_base_keeps_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.begin("", epochs=1)
    progress.step(epoch=1, step=1, steps=1, loss=1.0)
    progress.epoch(RESULT)
    progress.note("sentence")
    assert capsys.readouterr() == ("", "")
