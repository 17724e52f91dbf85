"""Training resumes to the same result, refuses another run's checkpoint, and needs no more than it is told."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from retigrade.cli import main
from retigrade.errors import UsageError
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.loop import CHECKPOINT, Run, fit, open_fabric, predict
from retigrade.training.losses import loss_of
from retigrade.training.network import NetworkOutput
from retigrade.training.recipe import BEST, PAPER, Recipe
from small_data import write_small_data

BACKBONE = "test_efficientnet"
SHORT = replace(BEST, epochs=3, batch=4, size=32, small_size=32)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return open_fabric(accelerator="cpu")


def lesson() -> TrainingData:
    rng = np.random.default_rng(0)
    grades = np.arange(20) % 5
    return TrainingData(
        photos=(rng.integers(20, 120, (20, 32, 32, 3)) + 25 * grades[:, None, None, None]).astype(np.uint8),
        grades=grades,
        targets=soft_targets(grades, (), neighbours=0.05),
        sources=np.zeros(20, np.int64),
        train=np.arange(15),
        validation=np.arange(15, 20),
        fingerprint="drawn",
    )


def run(fabric: Fabric, recipe: Recipe = SHORT, **changes: object) -> Run:
    options = {"backbone": BACKBONE, "weights": None, "start": False, "seed": 1, **changes}
    return Run(lesson(), recipe, fabric=fabric, **options)  # type: ignore[arg-type]


def test_resume_equals_an_unbroken_run(fabric: Fabric, tmp_path: Path) -> None:
    unbroken = run(fabric)
    for _ in range(3):
        unbroken.epoch()
    first = run(fabric)
    first.epoch()
    first.save(tmp_path / CHECKPOINT)
    second = run(fabric)
    second.resume(tmp_path / CHECKPOINT)
    second.epoch()
    second.epoch()
    for ours, theirs in zip(second.history, unbroken.history, strict=True):
        assert replace(ours, seconds=0) == replace(theirs, seconds=0)
    for name, value in unbroken.network_at("best").state_dict().items():
        assert torch.equal(value, second.network_at("best").state_dict()[name]), name


def test_fit_goes_on_from_its_folder(fabric: Fabric, tmp_path: Path) -> None:
    options = {"backbone": BACKBONE, "weights": None, "start": False, "seed": 1, "fabric": fabric, "folder": tmp_path}
    done = fit(lesson(), replace(SHORT, epochs=1), **options)
    assert len(done.history) == 1
    again = fit(lesson(), replace(SHORT, epochs=1), **options)
    assert again.history == done.history
    x = lesson()
    ours, theirs = (predict(one.network, x.photos, x.validation, fabric=fabric) for one in (again, done))
    np.testing.assert_array_equal(ours, theirs)


def test_a_training_that_was_killed_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "eyes", photos=40)
    options = ["--backbone", BACKBONE, "--random-start", "--epochs", "4", "--batch", "8"]
    killed, unbroken = (
        ["train", str(data), "--out", str(tmp_path / name), *options] for name in ("killed", "unbroken")
    )
    with subprocess.Popen([sys.executable, "-m", "retigrade", *killed], stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "killed" / "log.csv").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert 1 <= len(history(tmp_path / "killed")) < 4
    assert main([*killed, "--resume"]) == main(unbroken) == 0
    assert history(tmp_path / "killed") == history(tmp_path / "unbroken")
    bundles = [(tmp_path / name / "bundle.onnx").read_bytes() for name in ("killed", "unbroken")]
    assert bundles[0] == bundles[1]


def history(folder: Path) -> list[dict[str, float]]:
    lines = torch.load(folder / CHECKPOINT, weights_only=True)["history"]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("backbone", {"backbone": "test_resnet"}),
        ("seed", {"seed": 2}),
        ("recipe", {"recipe": replace(SHORT, rate=0.1)}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    fabric: Fabric, tmp_path: Path, key: str, other: dict[str, object]
) -> None:
    first = run(fabric)
    first.save(tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match=key):
        run(fabric, **other).resume(tmp_path / CHECKPOINT)


def test_a_damaged_checkpoint_is_refused(fabric: Fabric, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UsageError, match="cannot read the checkpoint"):
        run(fabric).resume(tmp_path / CHECKPOINT)


def test_a_full_disk_is_one_sentence(fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UsageError, match="No space left on device; make room"):
        run(fabric).save(tmp_path / CHECKPOINT)
    assert not list(tmp_path.iterdir())


def test_it_learns(fabric: Fabric) -> None:
    trained = run(fabric, replace(SHORT, epochs=10, cuts=False, rate=5e-3, strength=PAPER.strength))
    losses = [trained.epoch().loss for _ in range(10)]
    assert losses[-1] < losses[0] * 0.95


def test_the_papers_recipe_is_table_3() -> None:
    assert (PAPER.epochs, PAPER.rate, PAPER.optimizer, PAPER.size, PAPER.batch) == (100, 1e-4, "adam", 224, 32)


def test_the_loss_is_cross_entropy_plus_the_squared_error_of_the_grade() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
    targets = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    p = logits.softmax(1)[0]
    expected = -p[1].log() + 0.5 * ((p * torch.arange(5)).sum() - 1) ** 2
    answer = NetworkOutput(logits, logits[..., None, None], logits, fine=torch.zeros_like(logits))
    torch.testing.assert_close(loss_of(answer, targets, replace(PAPER, ordinal=0.5)), expected)
    doubled = replace(PAPER, ordinal=0.5, fine=1.0)
    torch.testing.assert_close(loss_of(answer._replace(fine=logits), targets, doubled), 2 * expected)
