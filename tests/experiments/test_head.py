"""The last head fitted again: the best linear answer to the features, as near to the old one as it is held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from retigrade.bundle import Bundle
from retigrade.cli import main as retigrade
from retigrade.data.manifest import read_manifest
from retigrade.errors import UsageError
from retigrade.experiments.head import FITTED, Head, fit_head, main
from retigrade.metrics.decision import softmax
from retigrade.training.recipe import recipe_named
from small_data import write_one_prediction, write_small_data


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


@pytest.mark.slow
def test_predictions_are_learned_from_as_much_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = write_small_data(tmp_path / "eyes", photos=60), tmp_path / "run"
    options = [
        "--recipe",
        "further",
        "--size",
        "64",
        "--epochs",
        "1",
        "--backbone",
        "mobilenetv2_100",
        "--random-start",
    ]
    assert retigrade(["train", str(data), "--out", str(run), *options]) == 0
    write_one_prediction(tmp_path, read_manifest([data]), (0, 0, 0, 0, 1))
    given = Head(
        weights=run / "network.safetensors", data=(data,), splits=run / "splits.json", out=tmp_path / "plain",
        recipe="further", size=64, pull=(0.001,),
    )  # fmt: skip
    seen: list[np.ndarray] = []

    def spied(logits: np.ndarray, features: np.ndarray, targets: np.ndarray, **how: Any) -> np.ndarray:
        seen.append(targets)
        return fit_head(logits, features, targets, **how)

    monkeypatch.setattr("retigrade.experiments.head.fit_head", spied)
    main(given)
    main(replace(given, out=tmp_path / "predicted", predictions=(tmp_path,)))
    plain, predicted = seen
    share = recipe_named("further").teacher_weight
    np.testing.assert_allclose(predicted, (1 - share) * plain + share * np.eye(5)[4], atol=1e-6)
    with pytest.raises(UsageError, match="no weight"):
        main(replace(given, recipe="paper", predictions=(tmp_path,)))
