from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from retigrade.bundle import Bundle, reseal
from retigrade.cli import main
from retigrade.data.manifest import read_manifest
from retigrade.errors import BundleError, DataError
from retigrade.icdr import Grade
from retigrade.metadata import Training
from retigrade.synthetic import draw_eye
from retigrade.training import quantize as module
from retigrade.training.quantize import Point, Quantized, quantize
from tiny_bundle import tiny_card, tiny_model

pytest.importorskip("onnxruntime.quantization", reason="this ONNX Runtime has no quantization")
LEARNED, OTHERS = 16, 50


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small drawn eyes, in two brightnesses, for the tiny network sees colour alone."""
    root = tmp_path_factory.mktemp("labelled")
    drawn = [draw_eye(grade=Grade(grade), size=160, rng=np.random.default_rng(grade)).pixels for grade in range(5)]
    rng = np.random.default_rng(0)
    for number in range(LEARNED + OTHERS):
        grade = number % 5
        pixels = np.clip(drawn[grade] * rng.uniform(0.8, 1.1, 3), 0, 255).astype(np.uint8)
        path = root / str(grade) / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return root


@pytest.fixture(scope="module")
def bundle(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, which says that it learned from the first photographs."""
    entries = sorted(read_manifest(labelled).entries, key=lambda entry: Path(entry.path).name)
    card = tiny_card()
    training = Training(
        **{
            **card.training.model_dump(),
            "photos": LEARNED,
            "grades": (4, 3, 3, 3, 3),
            "sources": {"drawn": LEARNED},
            "photo_hashes": Training.pack_hashes(entry.sha256 for entry in entries[:LEARNED]),
        }
    )
    path = tmp_path_factory.mktemp("bundle") / "tiny.onnx"
    path.write_bytes(reseal(tiny_model(), card.model_copy(update={"training": training})))
    return path


def test_a_bundle_in_eight_bits(
    bundle: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOST_KAPPA", 2.0)
    monkeypatch.setattr(module, "LOST_RATE", 1.0)
    out = tmp_path / "int8.onnx"
    assert main(["quantize", str(bundle), str(labelled), "--out", str(out), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "times as fast" in printed
    kinds = {node.op_type for node in onnx.load(str(out)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    before, after = Bundle.load(bundle), Bundle.load(out)
    assert after.metadata.name == "tiny-int8"
    assert after.metadata.figures == ()
    assert "eight bits" in after.metadata.limits
    assert after.metadata.training == before.metadata.training
    photo = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(after.run(photo).logits, before.run(photo).logits, atol=0.1)


def test_thresholds_reach_the_old_sensitivity_again(
    bundle: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOST_KAPPA", 2.0)
    monkeypatch.setattr(module, "LOST_RATE", 1.0)
    quantized = quantize(bundle, labelled, out=tmp_path / "int8.onnx")
    (point,) = quantized.points
    assert point.sensitivity[1] >= point.sensitivity[0]
    assert Bundle.load(tmp_path / "int8.onnx").metadata.threshold("screening") == point.threshold[1]
    assert quantized.photographs == OTHERS
    assert not quantized.measured


def test_a_network_that_grades_worse_is_refused(
    bundle: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "to_int8", lambda _model, _pictures: tiny_model(gain=-30.0))
    monkeypatch.setattr(module, "_kappa", lambda graded: float(graded.sample.probabilities.max() < 0.9))
    with pytest.raises(BundleError, match=r"worse: quadratic weighted kappa falls from 1.000 to 0.000"):
        quantize(bundle, labelled, out=tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_too_few_photographs(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for grade in "01":
        shutil.copytree(labelled / grade, tmp_path / "few" / grade)
    with pytest.raises(DataError, match="are needed to calibrate and 50 to compare"):
        quantize(bundle, tmp_path / "few", out=tmp_path / "int8.onnx")


GOOD = Quantized(
    photographs=100,
    bytes=(10, 3),
    milliseconds=(10.0, 5.0),
    kappa=(0.9, 0.896),
    agreement=0.97,
    graded=(100, 100),
    points=(Point(name="screening", threshold=(0.2, 0.3), sensitivity=(0.95, 0.95), specificity=(0.9, 0.895)),),
    measured=False,
)


def test_what_is_allowed() -> None:
    assert GOOD.complaints == ()
    assert GOOD.speedup == 2.0
    assert "kappa falls from 0.900 to 0.894" in replace(GOOD, kappa=(0.9, 0.894)).complaints[0]
    assert len(replace(GOOD, kappa=(0.9, float("nan"))).complaints) == 1
    assert "98 have one" in replace(GOOD, graded=(100, 98)).complaints[0]
    moved = replace(GOOD.points[0], specificity=(0.9, 0.88))
    assert "screening moves" in replace(GOOD, points=(moved,)).complaints[0]
