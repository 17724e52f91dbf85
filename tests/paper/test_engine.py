"""The real trainer, on a network so small that it takes seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file

from retigrade.cli import main
from retigrade.data.manifest import read_manifest
from retigrade.errors import UsageError
from retigrade.icdr import Grade
from retigrade.paper.config import Preparation, Protocol, TrainingRun, recipe_for
from retigrade.paper.engine import Engine, match_weights
from retigrade.paper.pictures import View, pictures
from retigrade.paper.protocols import published
from retigrade.paper.trainer import TrainingTask
from retigrade.synthetic import draw_eye
from retigrade.training.device import open_fabric
from retigrade.training.network import Network
from retigrade.training.progress import EpochResult, Progress

TINY = "test_efficientnet"
FOLDERS = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engine") / "clinic"
    for number in range(40):
        eye = draw_eye(grade=Grade(number % 5), size=160, rng=np.random.default_rng(number)).pixels
        path = root / FOLDERS[number % 5] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), cv2.cvtColor(eye, cv2.COLOR_RGB2BGR))
    return root


def engine(weights: dict[str, Path] | None = None) -> Engine:
    return Engine(open_fabric(accelerator="cpu"), weights=weights or {}, random_start=True)


def stored(path: Path, *, share: float) -> Path:
    """The first tensors of a network of random weights."""
    state = {
        name: value.contiguous()
        for name, value in Network(TINY, pretrained=False).backbone.state_dict().items()
        if value.is_floating_point()
    }
    save_file(dict(list(state.items())[: round(share * len(state))]), path)
    return path


@pytest.mark.slow
def test_the_command_trains_and_reports_and_a_second_call_trains_nothing(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["paper", str(clinic), "--out", str(tmp_path), "--networks", TINY, "--folds", "1", "--epochs", "1"]
    arguments += ["--size", "64", "--random-start", "--accelerator", "cpu", "--preparation", "colour"]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "training 2 of 2: honest, colour, test_efficientnet, fold 1, epoch 1 of 1: loss" in said
    assert f"report: {tmp_path / 'report.html'}" in said
    first = (tmp_path / "report.html").read_bytes()
    assert b"random weights" in first
    assert not list(tmp_path.rglob("checkpoint*"))
    assert main(arguments) == 0
    assert "epoch" not in capsys.readouterr().err
    assert (tmp_path / "report.html").read_bytes() == first


def test_an_unknown_network_is_refused_with_the_nearest_names(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", str(clinic), "--out", str(tmp_path / "out"), "--networks", "mobilenetv2_10"]) == 2
    assert "mobilenetv2_100" in capsys.readouterr().err


def test_wrong_numbers_are_refused(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["paper", str(clinic), "--out", str(tmp_path / "out"), "--networks", TINY, "--random-start"]
    assert main([*arguments, "--epochs", "0"]) == 2
    assert "--epochs must be 1 or more, got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_go_to_the_network_that_they_are_named_after(tmp_path: Path) -> None:
    files = [tmp_path / "vgg16.tv_in1k.safetensors", tmp_path / "resnetv2_50.safetensors"]
    assert match_weights(files, ("resnetv2_50", "vgg16", "other")) == {"vgg16": files[0], "resnetv2_50": files[1]}
    with pytest.raises(UsageError, match="begins with none of the networks other"):
        match_weights(files, ("other",))
    with pytest.raises(UsageError, match="two files for vgg16"):
        match_weights([files[0], tmp_path / "vgg16.mine.safetensors"], ("vgg16",))


@pytest.mark.parametrize(("share", "words"), [(1.0, "ImageNet weights"), (0.8, "ImageNet weights for ")])
def test_a_start_is_described_by_what_the_file_holds(tmp_path: Path, share: float, words: str) -> None:
    described = engine({TINY: stored(tmp_path / f"{TINY}.safetensors", share=share)}).describe(TINY, size=64)
    assert described.start.startswith(words)
    assert described.complete == (share == 1)
    assert len(described.digest) == 64
    assert described.feature_map == (256, 2, 2)


def test_a_random_start_is_described_as_such() -> None:
    described = engine().describe(TINY, size=64)
    assert (described.start, described.share, described.digest) == ("random weights", 0.0, "")
    assert described.parameters == sum(p.numel() for p in Network(TINY, pretrained=False).parameters())


class StopAfter(Progress):
    """Lets a number of epochs pass, then interrupts."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def epoch(self, result: EpochResult) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_training_that_was_stopped_ends_as_an_unbroken_one(clinic: Path, tmp_path: Path) -> None:
    manifest = read_manifest(clinic)
    job = TrainingRun(protocol=Protocol.HONEST, preparation=Preparation.COLOUR, network=TINY, fold=1, epochs=3)
    fold = published(len(manifest), folds=1, seed=0)[0]
    photos = pictures(
        manifest, view=View.CANONICAL, preparation=Preparation.COLOUR, size=64, folder=tmp_path / "pictures"
    )
    task = TrainingTask(
        network=TINY,
        recipe=recipe_for(job, size=64),
        seed=5,
        photos=photos,
        grades=manifest.grades,
        fold=fold,
        shown=fold.test[:2],
        identity="one",
    )
    unbroken = engine().train(task, folder=tmp_path / "a", progress=StopAfter(9))
    with pytest.raises(KeyboardInterrupt):
        engine().train(task, folder=tmp_path / "b", progress=StopAfter(1))
    resumed = engine().train(task, folder=tmp_path / "b", progress=StopAfter(9))
    assert len(resumed.history) == 3
    assert resumed.epoch == unbroken.epoch
    assert np.array_equal(resumed.logits, unbroken.logits)
    assert np.array_equal(resumed.maps, unbroken.maps)
    assert [line.loss for line in resumed.history] == [line.loss for line in unbroken.history]
    assert np.allclose(resumed.maps.mean(axis=(2, 3)), resumed.logits[task.shown], atol=1e-4)
