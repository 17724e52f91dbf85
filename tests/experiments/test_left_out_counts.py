"""What counts of lesions add abroad is asked of each source in turn, by what the others say that they are worth."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retigrade.data.manifest import read_manifest
from retigrade.data.splits import divide, write_splits
from retigrade.errors import DataError, UsageError
from retigrade.experiments.left_out_counts import SHARES, LeftOutCounts, main
from small_data import write_one_prediction, write_small_data


def test_counts_are_told_worth_what_the_other_source_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = tuple(write_small_data(tmp_path / name, photos=40) for name in ("here", "there"))
    manifest = read_manifest(data)
    splits = divide(manifest, (), shares={"train": 0.8, "validation": 0.1, "test": 0.1}, seed=1)
    write_splits(splits, tmp_path / "splits.json", manifest)
    maps = np.zeros((len(manifest), 8, 8, 4), np.uint8)
    for index, (grade, source) in enumerate(zip(manifest.grades, manifest.sources, strict=True)):
        maps[index, : 2 * grade if source == "here" else 0, :, 0] = 255
    np.save(tmp_path / "maps.npy", maps)
    write_one_prediction(tmp_path, manifest, (0.3, 0.2, 0.2, 0.15, 0.15))
    given = LeftOutCounts(
        maps=tmp_path / "maps.npy", predictions=tmp_path, left_out=(tmp_path,), data=data,
        splits=tmp_path / "splits.json", side=100,
    )  # fmt: skip
    main(given)
    told = [record.getMessage() for record in caplog.records if "of the evidence" in record.getMessage()]
    assert len(told) == 2 * len(SHARES)
    areas = [float(line.rpartition(" ")[2]) for line in told]
    # There are no lesions in the maps of the one source, so nothing is learned from it, and nothing can be told of it.
    assert areas == pytest.approx([0.5] * len(told), abs=1e-3)
    for index, grade in enumerate(manifest.grades):
        maps[index, : 2 * grade, :, 0] = 255
    np.save(tmp_path / "maps.npy", maps)
    caplog.clear()
    main(given)
    told = [record.getMessage() for record in caplog.records if "of the evidence" in record.getMessage()]
    for line in told:
        area = float(line.rpartition(" ")[2])
        assert area == (0.5 if " 0 of the evidence" in line else 1.0), line
    with pytest.raises(UsageError, match="no lesion is called 'drusen': count of 'microaneurysm'"):
        main(replace(given, kinds=("drusen",)))
    with pytest.raises(DataError, match="larger than 1000 pixels"):
        main(replace(given, side=1000))
    np.save(tmp_path / "maps.npy", maps[1:])
    with pytest.raises(DataError, match="79 maps, for 80 photographs"):
        main(given)


def test_a_single_source_cannot_be_left_out(tmp_path: Path) -> None:
    folder = write_small_data(tmp_path / "eyes", photos=20)
    manifest = read_manifest([folder])
    splits = divide(manifest, (), shares={"train": 0.8, "validation": 0.1, "test": 0.1}, seed=1)
    write_splits(splits, tmp_path / "splits.json", manifest)
    np.save(tmp_path / "maps.npy", np.zeros((20, 8, 8, 4), np.uint8))
    write_one_prediction(tmp_path, manifest, (0.2, 0.2, 0.2, 0.2, 0.2))
    given = LeftOutCounts(
        maps=tmp_path / "maps.npy", predictions=tmp_path, left_out=(tmp_path,), data=(folder,),
        splits=tmp_path / "splits.json", side=100,
    )  # fmt: skip
    with pytest.raises(DataError, match="all photographs are of eyes"):
        main(given)
