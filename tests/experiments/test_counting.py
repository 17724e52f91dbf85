"""A bundle that counts lesions at twice the size: what counts are worth is learned beside other networks' answers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retigrade.bundle import Bundle
from retigrade.cli import main as retigrade
from retigrade.data.manifest import read_manifest
from retigrade.errors import DataError, UsageError
from retigrade.experiments.counting import SHARES, Counting, evidence_of_counts, main
from retigrade.grader import load
from retigrade.metrics.decision import softmax
from retigrade.training.dataset import graded_targets
from retigrade.training.network import Network
from retigrade.training.segmentation import SegmentationNetwork
from retigrade.training.warm_start import settle_from_bundle
from small_data import write_one_prediction, write_small_data

BACKBONE = "test_efficientnet"


def test_evidence_is_in_the_counts_own_units_and_held_by_the_pull() -> None:
    rng = np.random.default_rng(1)
    grades = np.arange(300) % 5
    counts = np.stack([3 * grades + 7, rng.normal(0, 1, 300)], 1).astype(np.float32)
    logits, targets = np.zeros((300, 5), np.float32), graded_targets(grades, label_smoothing=0.05)
    free, held = (evidence_of_counts(logits, counts, targets, weights=np.ones(300), pull=pull) for pull in (1e-4, 1e3))
    answers = softmax(logits + counts @ free[:, :-1].T + free[:, -1])
    assert (answers.argmax(axis=1) == grades).mean() > 0.95
    assert np.abs(held[:, :-1]).max() < 0.05 * np.abs(free[:, :-1]).max()


@pytest.mark.slow
def test_the_command_makes_a_bundle_of_twice_the_size_that_grades(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    large = write_small_data(tmp_path / "eyes", photos=60, size=240)
    data = (large, write_small_data(tmp_path / "smaller", photos=20))
    run, out = tmp_path / "run", tmp_path / "counting.onnx"
    options = ["--recipe", "further", "--size", "224", "--epochs", "1", "--backbone", BACKBONE, "--random-start"]
    assert retigrade(["train", *map(str, data), "--out", str(run), *options]) == 0
    manifest = read_manifest(data)
    maps = np.zeros((80, 16, 16, 4), np.uint8)
    for index, grade in enumerate(manifest.grades):
        maps[index, : 2 * grade, :, 0] = 255
    np.save(tmp_path / "maps.npy", maps)
    (tmp_path / "out-of-fold").mkdir()
    write_one_prediction(tmp_path / "out-of-fold", manifest, (0.3, 0.2, 0.2, 0.15, 0.15))
    torch.manual_seed(1)
    SegmentationNetwork(Network(BACKBONE, pretrained=False)).save(tmp_path / "finder.safetensors")
    given = Counting(
        bundle=run / "bundle.onnx", weights=run / "network.safetensors",
        finders=(tmp_path / "finder.safetensors",), maps=tmp_path / "maps.npy", predictions=tmp_path / "out-of-fold",
        data=data, splits=run / "splits.json", out=out, name="counting",
    )  # fmt: skip
    main(given)
    told = [record.getMessage() for record in caplog.records if "of the evidence" in record.getMessage()]
    assert len(told) == len(SHARES)
    assert [record for record in caplog.records if "of fine detail" in record.getMessage()]
    metadata, before = Bundle.load(out).metadata, Bundle.load(run / "bundle.onnx").metadata
    assert (metadata.input_size, before.input_size) == (448, 224)
    assert metadata.name == "counting"
    assert metadata.training == before.training
    assert load(out).grade(large / "4.png").probabilities is not None
    photos = np.random.default_rng(1).integers(0, 256, (40, 224, 224, 3), np.uint8)
    networks = [Network(BACKBONE, high_resolution=True, weights=path) for path in (given.weights, out)]
    settle_from_bundle(networks[1], out, photos, np.arange(40))
    with torch.inference_mode():
        one, other = (each.eval()(torch.from_numpy(photos).permute(0, 3, 1, 2).float()).logits for each in networks)
    assert (other - one).std(0).max() < 1e-2 * one.std(0).min()  # but for the bias that undoes class balancing
    with pytest.raises(UsageError, match="above 0, got 0"):
        main(replace(given, share=0))
    np.save(tmp_path / "maps.npy", maps[1:])
    with pytest.raises(DataError, match="79 maps, for 80 photographs"):
        main(given)
