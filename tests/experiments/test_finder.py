"""The command teaches a finder from a segmentation network, and counting takes its maps."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retigrade.data.manifest import read_manifest
from retigrade.data.splits import divide, write_splits
from retigrade.errors import DataError
from retigrade.experiments.finder import FINDER, MAPS, Teaching, average_precision, main
from retigrade.experiments.lesion_sample import LesionSample
from retigrade.training.finder import Finder
from retigrade.training.network import Network
from retigrade.training.segmentation import SegmentationNetwork
from small_data import write_annotated, write_small_data

BACKBONE = "test_efficientnet"


def test_precision_is_one_where_every_lesion_is_found_more_surely_than_anything_else() -> None:
    truth = np.zeros((1, 4, 4, 1), np.uint8)
    truth[0, 1, 1:3] = 1
    found = truth * 100 + 20
    assert average_precision(found, truth) == pytest.approx(1)
    assert average_precision(200 - found, truth) < 0.2


@pytest.mark.slow
def test_it_writes_a_finder_and_maps_of_what_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data, out = write_small_data(tmp_path / "eyes", photos=20, size=400), tmp_path / "out"
    manifest = read_manifest([data])
    splits = divide(manifest, (), shares={"train": 0.6, "validation": 0.2, "test": 0.2}, seed=1)
    write_splits(splits, tmp_path / "splits.json", manifest)
    torch.manual_seed(1)
    SegmentationNetwork(Network(BACKBONE, pretrained=False)).save(tmp_path / "teacher.safetensors")
    given = Teaching(
        teacher=tmp_path / "teacher.safetensors", data=(data,), splits=tmp_path / "splits.json",
        lesions=write_annotated(tmp_path / "lesions"), out=out, steps=3, backbone=BACKBONE,
    )  # fmt: skip
    main(given)
    assert len([record for record in caplog.records if "average precision 0." in record.getMessage()]) == 2
    Finder.read(out / FINDER)
    sample = LesionSample.read([data], tmp_path / "splits.json", out / MAPS)
    assert sample.maps.shape[1:] == (88, 88, 1)
    assert sample.counts(("microaneurysm",)).shape == (len(sample.train), 3)
    small = write_small_data(tmp_path / "small", photos=20, size=240)
    few = read_manifest([small])
    write_splits(divide(few, (), shares={"train": 1.0}, seed=1), tmp_path / "few.json", few)
    with pytest.raises(DataError, match="more than 352 pixels, and others show no small lesion"):
        main(replace(given, data=(small,), splits=tmp_path / "few.json"))
