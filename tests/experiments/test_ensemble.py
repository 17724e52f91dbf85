from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import retigrade
from retigrade.bundle import Bundle, read_metadata
from retigrade.cli import main
from retigrade.data.manifest import read_manifest
from retigrade.errors import BundleError, DataError
from retigrade.experiments.ensemble import merge
from retigrade.fundus.quality import QualityLimits
from retigrade.metadata import QualityHead, Training
from retigrade.metrics.decision import softmax
from small_data import write_small_data
from tiny_bundle import CHANNELS, SIZE, tiny_card, tiny_model, write_tiny_bundle


def learned(*digests: str) -> Training:
    """Training data of ten drawn photographs, among them those with these digests."""
    known = [*digests, *(f"{number:08x}" for number in range(10 - len(digests)))]
    return tiny_card().training.model_copy(update={"photo_hashes": Training.pack_hashes(known)})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small") / "eyes", photos=50)


@pytest.fixture
def members(tmp_path: Path) -> list[Path]:
    head = QualityHead.pack(weights=np.zeros(CHANNELS), gate=0, offset=-1, limit=0)
    limits = QualityLimits().model_copy(update={"reject_limit": None})
    return [
        write_tiny_bundle(tmp_path / "first.onnx", name="first", training=learned(), quality_head=head, quality=limits),
        write_tiny_bundle(tmp_path / "second.onnx", name="second", temperature=0.5, training=learned()),
    ]


def test_the_merged_network_is_the_mean_of_its_members(members: list[Path], tmp_path: Path) -> None:
    from retigrade.bundle import reseal

    path = tmp_path / "merged.onnx"
    path.write_bytes(reseal(merge([member.read_bytes() for member in members]), tiny_card(temperature=1.0)))
    merged, alone = Bundle.load(path), [Bundle.load(member) for member in members]
    photos = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    outputs, expected = merged.run(photos), [each.run(photos) for each in alone]
    mean = sum(out.logits / each.metadata.temperature for out, each in zip(expected, alone, strict=True)) / 2
    np.testing.assert_allclose(outputs.logits, mean, rtol=1e-5)
    np.testing.assert_allclose(outputs.maps.mean(axis=(2, 3)), outputs.logits, rtol=1e-4, atol=1e-4)
    assert outputs.features.shape[1] == 2 * expected[0].features.shape[1]
    np.testing.assert_allclose(softmax(outputs.logits).sum(axis=1), 1)


def test_the_command_calibrates_on_one_half_and_measures_on_the_other(
    members: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "both.onnx", tmp_path / "report"
    assert main(["ensemble", *map(str, members), str(data), "--out", str(out), "--report", str(report)]) == 0
    assert "accuracy" in capsys.readouterr().out
    metadata = read_metadata(out.read_bytes())
    assert metadata.name == "ensemble-of-first-second"
    assert metadata.quality_head is None  # the first member's reads its own features
    assert metadata.quality == QualityLimits()
    assert "an ensemble of 2 bundles" in metadata.training.protocol
    assert metadata.figures[0].photos == 25
    assert (report / "report.html").exists()
    grading = retigrade.load(out).grade(data / "0.png")
    assert grading.bundle.startswith("ensemble-of-first-second@")


def test_photographs_that_a_member_learned_from_take_no_part(members: list[Path], data: Path, tmp_path: Path) -> None:
    digests = [entry.sha256[:8] for entry in read_manifest(data).entries][:10]
    write_tiny_bundle(members[1], name="second", training=learned(*digests))
    made = retigrade.ensemble(members, data, out=tmp_path / "both.onnx")
    assert made.result.photographs.count == 20
    assert not made.result.photographs.learned_from
    assert len(made.members) == 2


@pytest.mark.parametrize(
    ("case", "error", "sentence"),
    [
        ("sizes", BundleError, "different sizes"),
        ("silent", DataError, "does not say which photographs it learned from"),
        ("few", DataError, "new to all members"),
    ],
)
def test_what_cannot_be_combined_is_one_sentence(
    members: list[Path], data: Path, tmp_path: Path, case: str, error: type[Exception], sentence: str
) -> None:
    from retigrade.bundle import reseal

    if case == "sizes":
        members[1].write_bytes(reseal(tiny_model(size=128), tiny_card(input_size=128, training=learned())))
    elif case == "silent":
        write_tiny_bundle(members[1])
    else:
        photos = [entry.sha256[:8] for entry in read_manifest(data).entries]
        counts = {"photos": 50, "grades": (10,) * 5, "sources": {"drawn": 50}}
        training = tiny_card().training.model_copy(update=counts | {"photo_hashes": Training.pack_hashes(photos)})
        write_tiny_bundle(members[1], training=training)
    with pytest.raises(error, match=sentence):
        retigrade.ensemble(members, data, out=tmp_path / "both.onnx")


def test_one_bundle_is_no_ensemble(
    members: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ensemble", str(members[0]), str(data), "--out", str(tmp_path / "x.onnx")]) == 2
    assert "at least two bundles" in capsys.readouterr().err
    assert main(["ensemble", *map(str, members), "--out", str(tmp_path / "x.onnx")]) == 2
    assert "name the photographs" in capsys.readouterr().err
