"""Predictions are corrected by the lesions that were seen, each without its own stage, to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retigrade.data.manifest import read_manifest
from retigrade.data.splits import divide, write_splits
from retigrade.errors import DataError
from retigrade.experiments.lesion_evidence import LesionEvidence, corrected, lesion_features, main
from retigrade.experiments.predictions import out_of_fold
from retigrade.training.dataset import graded_targets
from small_data import write_one_prediction, write_small_data


def test_more_and_surer_lesions_are_told_kind_by_kind() -> None:
    maps = np.zeros((3, 8, 8, 2), np.uint8)
    maps[1, :2, :2, 1] = 255
    maps[2, :4, :4, 1] = 255
    none, few, many = lesion_features(maps)
    assert none.shape == (12,)
    assert (none <= few).all()
    assert (few <= many).all()
    changed = few != none
    assert changed[1::2].any()  # of the second kind
    assert not changed[::2].any()
    assert (many > few).any()


def test_a_correction_knows_nothing_of_the_stage_that_it_corrects() -> None:
    rng = np.random.default_rng(1)
    grades = np.arange(100) % 5
    features = (grades[:, None] + rng.normal(0, 0.3, (100, 1))).astype(np.float32)
    predicted, folds = np.full((100, 5), 0.2), np.split(np.arange(100), 5)
    targets = graded_targets(grades, label_smoothing=0.0)
    answers = corrected(predicted, features, targets, weights=np.ones(100), folds=folds, pull=0.003)
    np.testing.assert_allclose(answers.sum(axis=1), 1)
    assert (answers.argmax(axis=1) == grades).mean() > 0.7
    other = targets.copy()
    other[0] = np.roll(other[0], 1)
    again = corrected(predicted, features, other, weights=np.ones(100), folds=folds, pull=0.003)
    np.testing.assert_allclose(again[0], answers[0])
    assert np.abs(again[30] - answers[30]).max() > 1e-5


def test_what_is_written_is_learned_from_and_other_parts_stay(tmp_path: Path) -> None:
    folder = write_small_data(tmp_path / "eyes", photos=60)
    manifest = read_manifest([folder])
    splits = divide(manifest, (), shares={"train": 0.7, "validation": 0.15, "test": 0.15}, seed=1)
    write_splits(splits, tmp_path / "splits.json", manifest)
    maps = np.zeros((60, 8, 8, 4), np.uint8)
    for index, grade in enumerate(manifest.grades):
        maps[index, : 2 * grade, :, 1] = 255
    np.save(tmp_path / "maps.npy", maps)
    (tmp_path / "run").mkdir()
    write_one_prediction(tmp_path / "run", manifest, (0.3, 0.2, 0.2, 0.15, 0.15))
    given = LesionEvidence(
        maps=tmp_path / "maps.npy",
        predictions=tmp_path / "run",
        data=(folder,),
        splits=tmp_path / "splits.json",
        out=tmp_path / "corrected",
    )
    main(given)
    answers, train = out_of_fold([tmp_path / "corrected"], manifest), splits.part("train")
    assert (answers[train].argmax(axis=1) == manifest.grades[train]).mean() > 0.8
    np.testing.assert_allclose(answers[splits.part("test")], [[0.3, 0.2, 0.2, 0.15, 0.15]] * len(splits.part("test")))
    np.save(tmp_path / "maps.npy", maps[1:])
    with pytest.raises(DataError, match="59 maps, for 60 photographs"):
        main(given)
