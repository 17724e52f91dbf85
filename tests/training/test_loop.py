"""Training resumes to the same result, refuses another run's checkpoint, and stops where the loss is no number."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from retigrade.cli import main
from retigrade.errors import UsageError
from retigrade.icdr import Grade
from retigrade.training.checkpoint import CHECKPOINT, read_checkpoint
from retigrade.training.copy_paste import LesionBank
from retigrade.training.cpu import cpu_precision
from retigrade.training.dataset import TrainingData, soft_targets
from retigrade.training.device import open_fabric
from retigrade.training.log import LOG
from retigrade.training.loop import Start, Trainer, fit, predict
from retigrade.training.losses import lesion_loss, training_loss
from retigrade.training.network import NetworkOutput
from retigrade.training.progress import EpochResult, Progress
from retigrade.training.recipe import BEST, PAPER, AugmentationConfig, Recipe
from small_data import write_small_data

BACKBONE = "test_efficientnet"
SHORT = replace(BEST, epochs=3, batch=4, size=32, small_size=32)
START = Start(backbone=BACKBONE, pretrained=False, seed=1)
SILENT = Progress()


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return open_fabric(accelerator="cpu")


def training_data() -> TrainingData:
    rng = np.random.default_rng(0)
    grades = np.arange(20) % 5
    return TrainingData(
        photos=(rng.integers(20, 120, (20, 32, 32, 3)) + 25 * grades[:, None, None, None]).astype(np.uint8),
        grades=grades,
        targets=soft_targets(grades, (), label_smoothing=0.05),
        subsets=np.zeros(20, np.int64),
        rejected=np.zeros(20, bool),
        train=np.arange(15),
        validation=np.arange(15, 20),
        fingerprint="drawn",
    )


def trainer(fabric: Fabric, recipe: Recipe = SHORT, start: Start = START) -> Trainer:
    return Trainer(training_data(), recipe, start, fabric=fabric)


def test_resume_equals_an_unbroken_run(fabric: Fabric, tmp_path: Path) -> None:
    unbroken = trainer(fabric)
    for _ in range(3):
        unbroken.epoch(SILENT)
    first = trainer(fabric)
    first.epoch(SILENT)
    first.save(tmp_path / CHECKPOINT)
    second = trainer(fabric)
    second.resume(tmp_path / CHECKPOINT)
    second.epoch(SILENT)
    second.epoch(SILENT)
    for resumed, whole in zip(second.history, unbroken.history, strict=True):
        assert replace(resumed, seconds=0) == replace(whole, seconds=0)
    for name, value in unbroken.network_at("best").state_dict().items():
        assert torch.equal(value, second.network_at("best").state_dict()[name]), name


@pytest.mark.parametrize(
    ("grade", "share"), [(Grade.MODERATE, {"copy_paste": 1.0}), (Grade.MILD, {"copy_paste_mild": 1.0})]
)
def test_healthy_photographs_that_are_given_lesions_are_learned_as_ill(
    fabric: Fabric, grade: Grade, share: dict[str, float]
) -> None:
    spot = np.full((3, 3, 3), 0.5, np.float32)
    data = replace(training_data(), lesions=LesionBank({grade: ((spot,),)}))
    recipe = replace(SHORT, batch=15, augmentation=AugmentationConfig(**share))
    pasting = Trainer(data, recipe, START, fabric=fabric)
    random: dict[str, Any] = {"rng": np.random.default_rng(1), "generator": torch.Generator().manual_seed(1)}
    (batch,) = pasting.batches(np.arange(15), size=32, **random)
    targets = batch.targets
    healthy = data.grades[:15] == 0
    made = soft_targets(np.array([grade]), (), label_smoothing=SHORT.label_smoothing)
    np.testing.assert_allclose(targets.numpy()[healthy], np.repeat(made, 3, axis=0), atol=1e-6)
    np.testing.assert_array_equal(targets.numpy()[~healthy], data.targets[:15][~healthy])
    with pytest.raises(ValueError, match="pastes lesions"):
        Trainer(training_data(), recipe, START, fabric=fabric)


def test_a_network_learns_where_lesions_are_and_goes_on_alike(fabric: Fabric, tmp_path: Path) -> None:
    maps = np.zeros((20, 8, 8, 4), np.uint8)
    maps[:, :4, :4, 0] = 255
    data = replace(training_data(), photos=training_data().photos.repeat(2, 1).repeat(2, 2), lesion_maps=maps)
    still = AugmentationConfig(rotate=0, zoom=0, shift=0, aspect=0, horizontal_flip=0, vertical_flip=0)
    recipe = replace(SHORT, epochs=6, batch=15, lr=0.02, size=64, small_size=64, lesions=5.0, augmentation=still)
    learning = Trainer(data, recipe, START, fabric=fabric)
    for _ in range(6):
        learning.epoch(SILENT)
    learning.save(tmp_path / CHECKPOINT)
    x = torch.from_numpy(data.photos).permute(0, 3, 1, 2).float()
    found = learning.network.train()(x).lesions[0].mean(0).detach()
    assert found[0, :4, :4].mean() > found[0].mean() > found[1:].mean()
    Trainer(data, recipe, START, fabric=fabric).resume(tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="places of lesions"):
        Trainer(training_data(), recipe, START, fabric=fabric)


def test_a_place_has_the_most_of_its_cells_and_lesions_count_more() -> None:
    maps = torch.zeros(1, 4, 8, 8)
    maps[0, 0, 3, 3] = 1
    right = torch.full((1, 4, 4, 4), -9.0)
    right[0, 0, 1, 1] = 9
    missed, false = right.clone(), right.clone()
    missed[0, 0, 1, 1], false[0, 0, 0, 0] = -9, 9
    good, missing, more = (float(lesion_loss((logits,), maps)) for logits in (right, missed, false))
    assert good < 0.01
    assert missing == pytest.approx(4 * more, rel=0.01)
    assert float(lesion_loss((right, right[:, :, :1, :1]), maps)) > good


def test_fit_goes_on_from_its_folder_and_logs_every_epoch(fabric: Fabric, tmp_path: Path) -> None:
    options: dict[str, Any] = {"fabric": fabric, "folder": tmp_path, "progress": SILENT}
    first = fit(training_data(), replace(SHORT, epochs=2), START, **options)
    (tmp_path / LOG).unlink()
    again = fit(training_data(), replace(SHORT, epochs=2), START, **options)
    assert again.history == first.history
    assert len(again.history) == 2
    data = training_data()
    ours, theirs = (predict(each.network, data.photos, data.validation, fabric=fabric) for each in (again, first))
    np.testing.assert_array_equal(ours, theirs)
    assert (tmp_path / LOG).read_text().splitlines()[0] == "epoch,loss,accuracy,kappa,seconds"


@pytest.mark.slow
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
    _, state = read_checkpoint(folder / CHECKPOINT)
    return [{name: value for name, value in line.items() if name != "seconds"} for line in state["history"]]


@pytest.mark.parametrize(
    ("key", "recipe", "start"),
    [
        ("backbone", SHORT, replace(START, backbone="test_resnet")),
        ("seed", SHORT, replace(START, seed=2)),
        ("recipe", replace(SHORT, lr=0.1), START),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    fabric: Fabric, tmp_path: Path, key: str, recipe: Recipe, start: Start
) -> None:
    trainer(fabric).save(tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match=f"is of another {key}"):
        trainer(fabric, recipe, start).resume(tmp_path / CHECKPOINT)


@pytest.mark.parametrize("part", [30, 0.1, 0.5, 0.999])
def test_one_flipped_bit_in_a_checkpoint_is_an_error(fabric: Fabric, tmp_path: Path, part: float) -> None:
    path = tmp_path / CHECKPOINT
    trainer(fabric).save(path)
    data = bytearray(path.read_bytes())
    data[int(part if part > 1 else part * len(data))] ^= 4
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is damaged: its checksum differs; delete it"):
        trainer(fabric).resume(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 of an earlier version"])
def test_what_is_no_checkpoint_of_this_version_is_refused(fabric: Fabric, tmp_path: Path, data: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(data)
    with pytest.raises(UsageError, match="not a checkpoint of this version"):
        trainer(fabric).resume(tmp_path / CHECKPOINT)


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / CHECKPOINT
    running = trainer(fabric)
    running.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UsageError, match=r"No space left on device; .* make room"):
        running.save(path)
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [(CHECKPOINT, before)]


def test_a_loss_that_is_no_number_stops_at_once_and_keeps_the_last_good_checkpoint(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BreakAfterOne(Progress):
        def epoch(self, result: EpochResult) -> None:
            monkeypatch.setattr("retigrade.training.loop.training_loss", broken)

    def broken(*arguments: Any) -> torch.Tensor:
        return training_loss(*arguments) * float("nan")

    with pytest.raises(UsageError, match=r"in epoch 2; .* checkpoint of epoch 1 is kept: .* --lr 6e-05"):
        fit(training_data(), SHORT, START, fabric=fabric, folder=tmp_path, progress=BreakAfterOne())
    assert len(history(tmp_path)) == 1


def test_it_learns(fabric: Fabric) -> None:
    recipe = replace(SHORT, epochs=10, match_crops=False, lr=5e-3, augmentation=PAPER.augmentation)
    running = trainer(fabric, recipe)
    losses = [running.epoch(SILENT).loss for _ in range(10)]
    assert losses[-1] < losses[0] * 0.95


def test_the_average_that_grades_follows_the_weights(fabric: Fabric) -> None:
    running = trainer(fabric, replace(SHORT, ema_decay=0.5))
    running.epoch(SILENT)
    trained, averaged = running.network.module.classify.weight, running.network_at("last").classify.weight
    start = trainer(fabric).network.module.classify.weight
    assert 0 < (averaged - trained).abs().max() < (averaged - start).abs().max()


def test_the_papers_recipe_is_table_3() -> None:
    assert (PAPER.epochs, PAPER.lr, PAPER.optimizer, PAPER.size, PAPER.batch) == (100, 1e-4, "adam", 224, 32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "--lr must be a positive"),
        ({"lr": -1.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"epochs": 0}, "1 or more"),
    ],
)
def test_a_recipe_refuses_what_cannot_train(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(BEST, **changes)


def test_a_recipe_needs_no_torch() -> None:
    program = "import sys, retigrade.training.recipe, retigrade.paper.trainer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", "bf16-mixed"),
        ("Features\t: fp asimd bf16\n", "bf16-mixed"),
        ("model name\t: bf16\nflags\t\t: fpu avx2\n", "32-true"),
    ],
)
def test_bfloat16_only_where_the_processor_has_it(tmp_path: Path, cpuinfo: str, precision: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert cpu_precision(path) == precision
    assert cpu_precision(tmp_path / "none") == "32-true"


def test_the_loss_is_cross_entropy_plus_the_squared_error_of_the_grade() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
    targets = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    p = logits.softmax(1)[0]
    expected = -p[1].log() + 0.5 * ((p * torch.arange(5)).sum() - 1) ** 2
    output = NetworkOutput(logits, logits[..., None, None], logits, high_resolution=torch.zeros_like(logits))
    torch.testing.assert_close(training_loss(output, targets, replace(PAPER, ordinal=0.5)), expected)
    doubled = replace(PAPER, ordinal=0.5, high_resolution=1.0)
    torch.testing.assert_close(training_loss(output._replace(high_resolution=logits), targets, doubled), 2 * expected)
