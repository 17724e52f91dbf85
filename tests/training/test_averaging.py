"""Several trainings' weights to one network, and that to a bundle."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from retigrade.bundle import Bundle
from retigrade.cli import main
from retigrade.errors import UsageError
from retigrade.evaluation.result import EvaluationResult
from retigrade.training.averaging import Averaging, mean_weights, measure_norms
from retigrade.training.averaging import main as average
from retigrade.training.network import Network
from small_data import write_small_data

BACKBONE = "test_efficientnet"


def test_the_mean_of_weights_is_that_of_each_tensor(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for number, file in enumerate(files):
        tensors = {"w": torch.full((2,), 4.0 * number), "batches": torch.tensor(number + 3)}
        save_file(tensors, file, {"origin": f"run {number}"})
    mean, notes = mean_weights(files)
    assert (mean["w"].tolist(), mean["batches"].item()) == ([2.0, 2.0], 3)
    assert notes["origin"] == "the mean of the weights of 2 networks: run 0; run 1"


def test_the_mean_with_its_start_repeats_no_history(tmp_path: Path) -> None:
    start, went_on = "run 0, from ImageNet", "run 1, from run 0, from ImageNet"
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file, origin in zip(files, (start, went_on, went_on), strict=True):
        save_file({"w": torch.zeros(1)}, file, {"origin": origin})
    expected = f"the mean of the weights of 3 networks: 2 x {went_on}; the weights before it"
    assert mean_weights(files)[1]["origin"] == expected


def test_weights_that_have_no_mean_are_one_sentence(tmp_path: Path) -> None:
    one, other, none = (tmp_path / f"{name}.safetensors" for name in ("one", "other", "none"))
    save_file({"w": torch.zeros(2)}, one)
    save_file({"w": torch.zeros(3)}, other)
    none.write_bytes(b"none")
    for files, sentence in (
        ([one], "at least two"),
        ([one, other], "give networks of one architecture"),
        ([one, none], r"none\.safetensors: cannot be read as weights"),
        ([one, tmp_path / "absent"], "absent: cannot be read as weights"),
    ):
        with pytest.raises(UsageError, match=sentence):
            mean_weights(files)


def test_norms_are_measured_on_the_photographs(tmp_path: Path) -> None:
    network = Network(BACKBONE, pretrained=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    photos = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    fabric = Fabric(accelerator="cpu", precision="32-true")
    measure_norms(network, photos, np.arange(20), fabric=fabric, batch=20)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    x = torch.from_numpy(photos).permute(0, 3, 1, 2).float()
    seen: list[torch.Tensor] = []
    norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x)
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)))
    measure_norms(network, photos, np.arange(20), fabric=fabric, batch=5)
    assert not network.training
    assert norm.momentum is not None
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)))  # the mean over all batches


@pytest.mark.slow
def test_networks_of_one_split_become_one_bundle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data, run, out = write_small_data(tmp_path / "eyes", photos=50), tmp_path / "run", tmp_path / "mean"
    options = ["--backbone", BACKBONE, "--random-start", "--epochs", "1", "--batch", "8", "--recipe", "paper"]
    assert main(["train", str(data), "--out", str(run), *options, "--size", "64"]) == 0
    members = (run / "network.safetensors", tmp_path / "other.safetensors")
    tensors = load_file(members[0])
    save_file({name: value * 3 if "classify" in name else value for name, value in tensors.items()}, members[1])
    average(
        Averaging(
            weights=members, data=(data,), splits=run / "splits.json", out=out, recipe="paper", size=64,
            backbone=BACKBONE, name="mean",
        )
    )  # fmt: skip
    told = [record.getMessage() for record in caplog.records if "on validation" in record.getMessage()]
    assert [sentence.partition(" on ")[0] for sentence in told] == [*map(str, members), str(out / "mean.safetensors")]
    mean = load_file(out / "network.safetensors")
    torch.testing.assert_close(mean["classify.weight"], 2 * tensors["classify.weight"])
    metadata = Bundle.load(out / "bundle.onnx").metadata
    assert (metadata.name, metadata.input_size) == ("mean", 64)
    tested = EvaluationResult.read(out / "evaluation.json").statuses
    assert sum(tested.values()) == 5
