"""`retigrade train` from a folder to a bundle that grades, and the bundle's law: the same numbers as torch."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from retigrade.bundle import Bundle
from retigrade.cli import main
from retigrade.data.annotations import KINDS
from retigrade.data.cache import canonical, prepared
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import TEST, read_splits
from retigrade.errors import UsageError
from retigrade.evaluation.measure import measure
from retigrade.evaluation.predictions import LabelledSet, predict_labelled
from retigrade.evaluation.result import EvaluationResult
from retigrade.experiments.predictions import read_predictions
from retigrade.experiments.run import train
from retigrade.grader import load
from retigrade.icdr import Status
from retigrade.metrics.decision import softmax
from retigrade.training.export import BundleModel, receptive_field_offset, run_model, to_onnx
from retigrade.training.network import Ensemble, Network, NetworkOutput
from retigrade.training.progress import EpochResult, Progress
from retigrade.training.recipe import BEST, FURTHER
from small_data import write_annotated, write_small_data

pytestmark = pytest.mark.slow  # every test here waits for a training

TINY = replace(BEST, epochs=2, batch=8, size=64, small_size=32, teachers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small") / "eyes", photos=50)


class Heard(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.results: list[EpochResult] = []
        self.sentences: list[str] = []

    def begin(self, name: str, *, epochs: int) -> None:
        self.names.append(name)

    def epoch(self, result: EpochResult) -> None:
        self.results.append(result)

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def trained(data: Path, heard: Heard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished training."""
    out = tmp_path_factory.mktemp("run") / "run"
    bundle = train(
        data,
        out=out,
        recipe=TINY,
        backbone="test_efficientnet",
        random_start=True,
        accelerator="cpu",
        license="CC0-1.0",
        progress=heard,
    )
    assert bundle == out / "bundle.onnx"
    return out


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobilenetv2_100", "resnetv2_50", "vgg16"])
def test_onnx_equals_torch_and_maps_average_to_logits(backbone: str) -> None:
    torch.manual_seed(0)
    mirror = backbone == "mobilenetv2_100"
    network = Network(backbone, pretrained=False, high_resolution=True).eval()
    model = to_onnx(network, size=64, mirror=mirror)
    photos = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    outputs = run_model(model, photos, np.arange(3))
    with torch.inference_mode():
        logits, _, features = BundleModel(network, mirror=mirror)(torch.from_numpy(photos))
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-4)
    np.testing.assert_allclose(outputs.features, features, atol=1e-3)
    np.testing.assert_allclose(outputs.maps.mean((2, 3)), outputs.logits, atol=1e-4)


def test_an_ensemble_is_the_mean_of_its_networks() -> None:
    networks = [Network("test_efficientnet", pretrained=False).eval() for _ in range(2)]
    x = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        both = [network(x).logits for network in networks]
        together = Ensemble(networks, origin="none")(x).logits
    torch.testing.assert_close(together, (both[0] + both[1]) / 2, atol=1e-5, rtol=1e-4)


def test_the_receptive_field_of_a_symmetric_network_is_about_the_middle() -> None:
    torch.manual_seed(0)
    photos = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    across, down = receptive_field_offset(Network("test_resnet", pretrained=False), photos)
    assert -1 < across < 2
    assert -1 < down < 2


def test_the_heatmap_is_shown_no_further_than_beside_its_cell() -> None:
    photos = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)

    class Corner(torch.nn.Module):
        """Answers every cell from the picture's first pixels alone."""

        def forward(self, photos: torch.Tensor) -> NetworkOutput:
            maps = photos[:, :1, :4, :4].mean() * torch.ones(1, 5, 8, 8)
            return NetworkOutput(maps.mean((2, 3)), maps, maps[:, :, 0, 0], maps.mean((2, 3)))

    assert receptive_field_offset(Corner(), photos) == (-1.0, -1.0)


def test_training_and_grading_see_the_same_pixels(data: Path, tmp_path: Path) -> None:
    manifest = read_manifest([data])
    photos = prepared(manifest, size=64, folder=tmp_path)
    again = prepared(manifest, size=64, folder=tmp_path)
    np.testing.assert_array_equal(photos, again)
    for index in (0, 7):
        np.testing.assert_array_equal(photos[index], canonical(manifest.entries[index], size=64))


def test_train_writes_a_bundle_that_grades(data: Path, trained: Path, heard: Heard) -> None:
    bundle = Bundle.load(trained / "bundle.onnx")
    assert bundle.metadata.backbone == "test_efficientnet"
    assert bundle.metadata.training.photos == sum(bundle.metadata.training.grades) > 20
    assert (bundle.metadata.licence, bundle.metadata.intended_use) == ("CC0-1.0", "unstated")
    grading = load(trained / "bundle.onnx").grade(data / "0.png")
    assert grading.status in set(Status) - {Status.ERROR}
    for log, epochs in ((Path("log.csv"), 2), (Path("teacher1", "log.csv"), 1), (Path("teacher2", "log.csv"), 1)):
        lines = (trained / log).read_text().splitlines()
        assert lines[0] == "epoch,loss,accuracy,kappa,seconds"
        assert len(lines) == 1 + epochs
    assert heard.names == ["teacher1", "teacher2", ""]
    assert [result.epoch for result in heard.results] == [1, 1, 1, 2]
    assert any("evaluating on" in sentence for sentence in heard.sentences)


def test_the_bundles_figures_are_those_of_evaluating_it(data: Path, trained: Path) -> None:
    grader, manifest = load(trained / "bundle.onnx"), read_manifest([data])
    splits = read_splits(trained / "splits.json", manifest)
    predictions = predict_labelled(grader, LabelledSet.of(manifest, splits, part=TEST))
    result = measure(predictions, grader, manifest=manifest, part=TEST)
    assert result.stored_figures() == grader.bundle.metadata.figures
    written = EvaluationResult.read(trained / "evaluation.json")
    assert (written.headline, written.statuses) == (result.headline, result.statuses)


def test_what_it_writes_others_may_read(trained: Path) -> None:
    written = [path for path in trained.rglob("*") if path.suffix in (".onnx", ".safetensors", ".pt", ".csv", ".json")]
    assert {path.name for path in written} >= {"bundle.onnx", "network.safetensors", "checkpoint.pt", "splits.json"}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) & 0o044 for path in written} == dict.fromkeys(
        (path.name for path in written), 0o044
    )


def test_a_finished_training_is_continued_only_when_asked(
    data: Path, trained: Path, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(data), "--out", str(trained), "--random-start"]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    with pytest.raises(UsageError, match="is of another recipe"):
        train(
            data,
            out=trained,
            recipe=replace(TINY, lr=1e-3),
            backbone="test_efficientnet",
            random_start=True,
            resume=True,
        )


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--backbone", "mobilnetv2_100"], "did you mean"),
        (["--folds", "1"], "at least 2"),
        (["--folds", "30"], "fewer than 30 folds"),
        (["--epochs", "0"], "1 or more"),
        (["--lr", "0"], "--lr must be a positive number, got 0"),
        (["--lesions", "nowhere"], "no photographs in"),
        (["--backbone", "crossvit_tiny_240"], "gives no feature map that can be graded; take one of beit,"),
        (["--recipe", "paper", "--weights", "none.safetensors"], "need a safetensors file"),
        (["--recipe", "brief", "--distill", "none.onnx"], "take --recipe further"),
        (["--recipe", "further-paste"], "give their folder by --lesions"),
        (["--recipe", "best", "--teachers", "1"], "teachers must be 0 or at least 2"),
        (["--recipe", "brief", "--teachers", "4"], "recipe brief gives teachers no weight"),
        (["--leave-source-out", "--splits", "splits.json"], "leave --splits out"),
        (["--refit"], "give --folds"),
        (["--refit", "--folds", "2", "--recipe", "paper"], "take another recipe"),
        (["--splits", "splits.json", "--test", "0.3"], "leave --validation and --test out"),
        (["--splits", "none.json"], "none.json: cannot be read"),
    ],
)
def test_wrong_options_exit_2_with_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    options = ["--backbone", "test_efficientnet", "--random-start", "--epochs", "1"]
    assert main(["train", str(data), "--out", str(tmp_path / "run"), *options, *extra]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def command(data: Path, out: Path, *extra: str) -> list[str]:
    options = ["--backbone", "test_efficientnet", "--random-start", "--epochs", "1", "--batch", "8"]
    return ["train", str(data), "--out", str(out), *options, *extra]


@pytest.mark.slow
def test_folds_become_one_ensemble(data: Path, tmp_path: Path) -> None:
    assert main(command(data, tmp_path / "run", "--folds", "2", "--name", "two-folds")) == 0
    metadata = Bundle.load(tmp_path / "run" / "bundle.onnx").metadata
    assert metadata.name == "two-folds"
    assert "ensemble of 2" in metadata.training.protocol
    assert 35 < metadata.training.photos <= 50  # all that any of the networks trained on
    result = EvaluationResult.read(tmp_path / "run" / "evaluation.json")
    assert sum(result.statuses.values()) == 50  # each once, by the network that never saw it


@pytest.mark.slow
def test_a_refit_network_learns_from_all_and_is_calibrated_out_of_fold(data: Path, tmp_path: Path) -> None:
    teachers, out = tmp_path / "teachers", tmp_path / "run"
    options = ("--folds", "2", "--recipe", "sharp", "--size", "64", "--validation", "0.2")
    assert main(command(data, teachers, *options)) == 0
    splits = ("--splits", str(teachers / "splits.json"), "--distill", str(teachers), str(teachers / "bundle.onnx"))
    assert main(command(data, out, *options, *splits, "--refit", "--name", "refitted")) == 0
    metadata = Bundle.load(out / "bundle.onnx").metadata
    assert (metadata.name, metadata.training.photos) == ("refitted", 50)
    assert "learned from every photograph" in metadata.training.protocol
    result = EvaluationResult.read(out / "evaluation.json")
    assert sum(result.statuses.values()) == 50
    assert result.photographs.part == "out of fold"
    assert result.bundle == Bundle.load(out / "bundle.onnx").identity
    manifest = read_manifest([data])
    folds = read_splits(out / "splits.json", manifest)
    np.testing.assert_array_equal(folds.part_of, read_splits(teachers / "splits.json", manifest).part_of)
    predicted = {row.sha256: row.probabilities for row in read_predictions(out)}
    photos = prepared(manifest, size=64, folder=out)
    for name in ("fold1", "fold2"):
        own = Bundle.load(out / name / "bundle.onnx")
        unseen = folds.part(name)
        assert not any(own.metadata.training.has_seen(manifest.entries[index].sha256) for index in unseen)
        assert own.metadata.temperature == metadata.temperature
        first = manifest.entries[unseen[0]].sha256
        logits = own.run(np.ascontiguousarray(photos[unseen[:1]])).logits
        assert softmax(logits, temperature=own.metadata.temperature)[0] == pytest.approx(predicted[first], abs=1e-4)
    weights = load_file(out / "refit" / "network.safetensors")
    assert not torch.equal(
        weights["classify.weight"], load_file(out / "fold1" / "network.safetensors")["classify.weight"]
    )


@pytest.mark.slow
def test_a_network_that_grades_learns_further_from_bundles(data: Path, trained: Path, tmp_path: Path) -> None:
    heard = Heard()
    bundle = train(
        data,
        out=tmp_path / "further",
        recipe=replace(FURTHER, epochs=1, batch=8, size=64, small_size=32),
        backbone="test_efficientnet",
        weights=trained / "network.safetensors",
        distill=(trained / "bundle.onnx",),
        seed=2,
        accelerator="cpu",
        progress=heard,
    )
    first, then = (load_file(path.parent / "network.safetensors") for path in (trained / "bundle.onnx", bundle))
    assert torch.equal(first["backbone.conv_stem.weight"], then["backbone.conv_stem.weight"])
    assert not torch.equal(first["classify.weight"], then["classify.weight"])
    known = [sentence for sentence in heard.sentences if "bundle.onnx learned from" in sentence]
    assert len(known) == 1  # another seed, another split
    assert "flatter" in known[0]


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    return write_annotated(tmp_path / "lesions")


@pytest.mark.parametrize("recipe", ["further-paste", "further-fine"])
def test_lesions_are_pasted_and_the_bundle_says_whose(data: Path, annotated: Path, tmp_path: Path, recipe: str) -> None:
    assert main(command(data, tmp_path / "run", "--recipe", recipe, "--size", "160", "--lesions", str(annotated))) == 0
    training = Bundle.load(tmp_path / "run" / "bundle.onnx").metadata.training
    files = sorted((annotated / "photos").iterdir())
    assert set(training.annotated) == {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_where_lesions_are_is_learned_and_kept_for_a_run_that_goes_on(
    data: Path, annotated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retigrade.training.lesion_maps.STEPS", 2)
    recipe = ("--recipe", "further-lesions", "--size", "160")
    assert main(command(data, tmp_path / "run", *recipe)) == 2
    assert "give their folder by --lesions" in capsys.readouterr().err
    again = command(data, tmp_path / "run", *recipe, "--lesions", str(annotated))
    assert main(again) == 0
    (kept,) = (tmp_path / "run").glob("lesion-maps-*.npy")
    first, bundle = kept.read_bytes(), (tmp_path / "run" / "bundle.onnx").read_bytes()
    assert len(Bundle.from_bytes(bundle).metadata.training.annotated) == 4
    monkeypatch.setattr("retigrade.training.lesion_maps.fit_segmentation", None)
    assert main([*again, "--resume"]) == 0
    assert kept.read_bytes() == first


def test_nothing_to_paste_is_said_in_one_sentence(
    data: Path, annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (annotated / "masks").iterdir():
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(file), np.where(mask, KINDS["microaneurysm"], 0).astype(np.uint8))
    recipe = ("--recipe", "further-paste", "--size", "160", "--lesions", str(annotated))
    assert main(command(data, tmp_path / "run", *recipe)) == 2
    assert "no haemorrhage or exudate" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_together(data: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "retigrade"]
    # Slow, so that no decision hangs on how two sums are rounded.
    slowly = ["--epochs", "1", "--batch", "8", "--lr", "2e-5"]
    options = ["--backbone", "test_convnext", "--random-start", *slowly]
    done = subprocess.run(
        [*torchrun, "train", str(data), "--out", str(tmp_path / "two"), *options],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert main(["train", str(data), "--out", str(tmp_path / "one"), *options]) == 0
    alone, together = (
        [float(value) for value in (tmp_path / name / "log.csv").read_text().splitlines()[1].split(",")[:4]]
        for name in ("one", "two")
    )
    assert together == pytest.approx(alone, abs=0.02)
    photos = np.stack([canonical(entry, size=224) for entry in read_manifest([data]).entries[:8]])
    single, double = (
        softmax(Bundle.load(tmp_path / name / "bundle.onnx").run(photos).logits) for name in ("one", "two")
    )
    np.testing.assert_allclose(double, single, atol=0.002)
