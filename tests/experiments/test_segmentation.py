"""Segmentation networks and their maps are made by themselves, from weights that know no eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retigrade.data.manifest import read_manifest
from retigrade.data.splits import divide, write_splits
from retigrade.experiments.lesion_sample import LesionSample
from retigrade.experiments.segmentation import Segmentation, main
from retigrade.training.network import Network
from retigrade.training.segmentation import SegmentationNetwork
from small_data import write_annotated, write_small_data

BACKBONE = "test_efficientnet"


@pytest.mark.slow
def test_its_maps_are_what_evidence_of_lesions_is_fitted_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.training.lesion_maps.STEPS", 2)
    data, out = write_small_data(tmp_path / "eyes", photos=20), tmp_path / "out"
    manifest = read_manifest([data])
    splits = divide(manifest, (), shares={"train": 0.6, "validation": 0.2, "test": 0.2}, seed=1)
    write_splits(splits, tmp_path / "splits.json", manifest)
    torch.manual_seed(1)
    Network(BACKBONE, pretrained=False, high_resolution=True).save(tmp_path / "start.safetensors", trained="not at all")
    main(
        Segmentation(
            weights=tmp_path / "start.safetensors", data=(data,), splits=tmp_path / "splits.json",
            lesions=write_annotated(tmp_path / "lesions"), out=out, backbone=BACKBONE,
        )
    )  # fmt: skip
    (maps,) = out.glob("lesion-maps-*.npy")
    sample = LesionSample.read([data], tmp_path / "splits.json", maps)
    assert sample.maps.reshape(len(sample.train), -1).max(axis=1).all()
    others = np.setdiff1d(np.arange(len(manifest)), sample.train)
    assert not np.load(maps)[others].any()
    for number in (1, 2):
        SegmentationNetwork.read(out / f"segmentation-{number}.safetensors", backbone=BACKBONE)
