"""`retigrade train` from a folder to a bundle that grades, and the bundle's law: the same numbers as torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retigrade.bundle import Bundle
from retigrade.cli import main
from retigrade.data.cache import canonical, prepared
from retigrade.data.manifest import read_manifest
from retigrade.grader import load
from retigrade.icdr import Status
from retigrade.metrics.decision import softmax
from retigrade.training.export import Photographed, answer, receptive_field_offset, to_onnx
from retigrade.training.network import Ensemble, Network, NetworkOutput
from small_data import write_small_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small") / "eyes")


@pytest.mark.parametrize("backbone", ["mobilenetv2_100", "resnetv2_50", "vgg16"])
def test_onnx_equals_torch_and_maps_average_to_logits(backbone: str) -> None:
    torch.manual_seed(0)
    network = Network(backbone, start=False, fine=True).eval()
    model = to_onnx(network, size=64, mirror=backbone == "mobilenetv2_100")
    photos = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    found = answer(model, photos, np.arange(3))
    with torch.inference_mode():
        logits, _, features = Photographed(network, mirror=backbone == "mobilenetv2_100")(torch.from_numpy(photos))
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    np.testing.assert_allclose(found.features, features, atol=1e-3)
    np.testing.assert_allclose(found.maps.mean((2, 3)), found.logits, atol=1e-4)


def test_an_ensemble_is_the_mean_of_its_networks() -> None:
    networks = [Network("test_efficientnet", start=False).eval() for _ in range(2)]
    x = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        both = [network(x).logits for network in networks]
        torch.testing.assert_close(
            Ensemble(networks, origin="none")(x).logits, (both[0] + both[1]) / 2, atol=1e-5, rtol=1e-4
        )


def test_the_heat_centre_of_a_symmetric_network_is_the_middle() -> None:
    torch.manual_seed(0)
    photos = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    across, down = receptive_field_offset(Network("test_resnet", start=False), photos)
    assert -1 < across < 2
    assert -1 < down < 2


def test_heat_is_shown_no_further_than_beside_its_cell() -> None:
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


def train(data: Path, out: Path, *extra: str) -> int:
    options = ["--backbone", "test_efficientnet", "--random-start", "--epochs", "1", "--batch", "8"]
    return main(["train", str(data), "--out", str(out), *options, *extra])


def test_train_writes_a_bundle_that_grades(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run") == 0
    bundle = Bundle.load(tmp_path / "run" / "bundle.onnx")
    assert bundle.metadata.backbone == "test_efficientnet"
    assert bundle.metadata.training.photos == sum(bundle.metadata.training.grades) > 20
    grading = load(tmp_path / "run" / "bundle.onnx").grade(data / "0.png")
    assert grading.status in set(Status) - {Status.ERROR}
    for log in (Path("log.csv"), *(Path(f"opinion{number}", "log.csv") for number in range(1, 5))):
        lines = (tmp_path / "run" / log).read_text().splitlines()
        assert lines[0] == "epoch,loss,accuracy,kappa,seconds"
        assert len(lines) == 2
    assert train(data, tmp_path / "run") == 2
    assert train(data, tmp_path / "run", "--resume") == 0


def test_folds_become_one_ensemble(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run", "--folds", "2", "--name", "two-folds") == 0
    metadata = Bundle.load(tmp_path / "run" / "bundle.onnx").metadata
    assert metadata.name == "two-folds"
    assert "ensemble of 2" in metadata.training.protocol
    assert 40 < metadata.training.photos <= 60  # all that any of the networks trained on


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--backbone", "mobilnetv2_100"], "did you mean"),
        (["--folds", "1"], "at least 2"),
        (["--folds", "30"], "fewer than 30 folds"),
        (["--epochs", "0"], "1 or more"),
    ],
)
def test_wrong_wishes_exit_2_with_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    assert train(data, tmp_path / "run", *extra) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_two_processes_train_together(data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "-m",
        "retigrade",
    ]
    # Slow, so that no decision hangs on how two sums of bfloat16 are rounded.
    slowly = ["--epochs", "1", "--batch", "8", "--rate", "2e-5"]
    options = ["--backbone", "test_convnext", "--random-start", *slowly]
    done = subprocess.run(
        [*command, "train", str(data), "--out", str(tmp_path / "two"), *options],
        capture_output=True, text=True, timeout=120,
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
