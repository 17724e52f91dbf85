from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retigrade.errors import UsageError
from retigrade.paper.results import read_result, write_result
from retigrade.paper.trainer import CheckpointResult
from retigrade.training.progress import EpochResult

IDENTITY = {"data set": "abc", "recipe": "long " * 40}


def trained() -> CheckpointResult:
    rng = np.random.default_rng(0)
    return CheckpointResult(
        history=(EpochResult(1, 1.5, 0.4, 0.1, 3.0), EpochResult(2, float("nan"), 0.5, 0.2, 3.0)),
        epoch=2,
        logits=rng.normal(size=(7, 5)).astype(np.float32),
        maps=rng.normal(size=(3, 5, 2, 2)).astype(np.float32),
        receptive_field_offset=(0.5, 0.4),
    )


def test_a_finished_training_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    assert read_result(folder, identity=IDENTITY) is None
    write_result(trained(), folder, identity=IDENTITY)
    back = read_result(folder, identity=IDENTITY)
    assert back is not None
    assert np.array_equal(back.logits, trained().logits)
    assert np.array_equal(back.maps, trained().maps)
    assert (back.epoch, back.receptive_field_offset, back.history[0]) == (2, (0.5, 0.4), trained().history[0])
    assert np.isnan(back.history[1].loss)


def test_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    write_result(trained(), tmp_path, identity=IDENTITY)
    with pytest.raises(UsageError, match=r"another data set \(abc, this run has xyz\).*--out"):
        read_result(tmp_path, identity=IDENTITY | {"data set": "xyz"})


@pytest.mark.parametrize("damage", ["result.json", "answers.npz"])
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    write_result(trained(), tmp_path, identity=IDENTITY)
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match="delete it to train again"):
        read_result(tmp_path, identity=IDENTITY)


def test_answers_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite logits"):
        replace(trained(), logits=np.full((2, 5), np.nan, np.float32))
