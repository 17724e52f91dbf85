"""The last head fitted again: the best linear answer to the features, as near to the old one as it is held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from retigrade.bundle import Bundle
from retigrade.cli import main as retigrade
from retigrade.metrics.decision import softmax
from retigrade.training.head import FITTED, Head, fit_head, main
from small_data import write_small_data


def test_a_spoilt_head_is_found_again_and_the_pull_holds_it() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((400, 12), np.float32)
    head = rng.normal(0, 3, (5, 12)).astype(np.float32)
    right = features @ head.T
    targets = softmax(right).astype(np.float32)
    spoilt = right + features @ rng.normal(0, 2, (12, 5)).astype(np.float32) + np.float32([1, 0, 0, 0, -1])
    free, held = (fit_head(spoilt, features, targets, weights=np.ones(400), pull=pull) for pull in (1e-9, 1e3))
    answers = spoilt + features @ free[:, :-1].T + free[:, -1]
    np.testing.assert_allclose(softmax(answers), targets, atol=0.01)
    assert np.abs(held[:, :-1]).max() < 0.01 * np.abs(free[:, :-1]).max()


@pytest.mark.slow
def test_the_command_makes_a_bundle_of_the_same_network_with_another_head(tmp_path: Path) -> None:
    data, run, out = write_small_data(tmp_path / "eyes", photos=60), tmp_path / "run", tmp_path / "head"
    options = ["--recipe", "paper", "--size", "64", "--epochs", "1", "--backbone", "mobilenetv2_100", "--random-start"]
    assert retigrade(["train", str(data), "--out", str(run), *options]) == 0
    weights, splits = run / "network.safetensors", run / "splits.json"
    main(Head(weights=weights, data=(data,), splits=splits, out=out, recipe="paper", size=64, pull=(0.01, 1.0)))
    before, after = load_file(weights), load_file(out / FITTED)
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    assert changed == {"classify.weight", "classify.bias"}
    assert Bundle.load(out / "bundle.onnx").metadata.input_size == 64
