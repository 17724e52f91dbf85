from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.arrays import Pixels
from retigrade.data import shortcut as shortcut_room
from retigrade.data.audit import audit, check
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.shortcut import FEATURES, audit_shortcut, frame_features
from retigrade.data.splits import divide
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye

FOLDERS = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")


def save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred trees tell no more of a dozen photographs than twenty."""
    monkeypatch.setattr(shortcut_room, "_TREES", 20)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two grades from two cameras, one of which leaves wide black borders; one photograph twice, with both grades."""
    root = tmp_path_factory.mktemp("data") / "clinic"
    for number in range(12):
        grade, aspect = (0, 1.0) if number % 2 else (2, 1.8)
        eye = draw_eye(grade=Grade(grade), size=160, aspect=aspect, rng=np.random.default_rng(number)).pixels
        save(eye, root / FOLDERS[grade] / f"{number // 4}_{'left' if number % 4 < 2 else 'right'}{number % 2}.png")
        if number == 0:
            save(eye, root / FOLDERS[0] / "twin.png")
    return root


@pytest.fixture(scope="module")
def manifest(clinic: Path) -> Manifest:
    return read_manifest(clinic)


def disc(size: int = 100, *, rx: int = 30, ry: int = 30, cut: int = 0) -> Pixels:
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    cv2.ellipse(pixels, (size // 2, size // 2), (rx, ry), 0, 0, 360, (180, 90, 40), -1)
    pixels[:cut] = 0
    return pixels


def test_frame_features_follow_the_frame_and_not_the_retina() -> None:
    names = {name: number for number, name in enumerate(FEATURES)}
    plain, wide, cut = (frame_features(pixels) for pixels in (disc(), disc(rx=45), disc(cut=40)))
    assert plain[names["black margin left"]] == pytest.approx(0.2, abs=0.02)
    assert wide[names["black margin left"]] == pytest.approx(0.05, abs=0.02)
    assert wide[names["black margin top"]] == pytest.approx(0.2, abs=0.02)
    assert cut[names["black margin top"]] == pytest.approx(0.4, abs=0.02)
    assert cut[names["straight edge top"]] > 0.8 > 0.5 > cut[names["straight edge bottom"]]
    assert plain[names["black share"]] == pytest.approx(1 - np.pi * 0.09, abs=0.03)
    textured = disc()
    textured[40:60, 40:60] = (250, 240, 30)
    assert frame_features(textured).tolist() == plain.tolist()


def test_a_black_picture_has_features_too() -> None:
    features = frame_features(np.zeros((50, 50, 3), dtype=np.uint8))
    assert features.shape == (len(FEATURES),)
    assert features[-1] == 1


def test_the_frame_tells_the_grade_less_after_the_canonical_field(manifest: Manifest) -> None:
    pytest.importorskip("sklearn")
    found = audit_shortcut(manifest, ((0, 12),), size=64)
    assert found.before.accuracy > 0.9
    assert found.before.quadratic_kappa > 0.8
    assert found.canonical.quadratic_kappa < found.before.quadratic_kappa - 0.1
    assert found.drop == found.before.quadratic_kappa - found.after.quadratic_kappa
    assert (found.photographs, found.folds) == (13, 5)


def test_a_cut_that_goes_with_the_grade_survives_the_canonical_field_and_not_the_training_cut(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for number in range(24):
        grade, cut = (0, 0.0) if number % 2 else (2, 0.12)
        eye = draw_eye(grade=Grade(grade), size=160, aspect=1.4, cut=cut, rng=np.random.default_rng(number)).pixels
        save(eye, tmp_path / FOLDERS[grade] / f"{number}.png")
    found = audit_shortcut(read_manifest(tmp_path), (), size=64)
    assert found.canonical.quadratic_kappa > 0.9
    assert found.after.quadratic_kappa < 0.5
    assert found.after.quadratic_kappa < found.canonical.quadratic_kappa


def test_a_mask_is_cut_by_rows() -> None:
    mask = np.ones((10, 10), dtype=bool)
    cut = shortcut_room._cut(mask, np.array([0.2, 0.31]))
    assert cut.any(axis=1).tolist() == [False, False, True, True, True, True, True, False, False, False]


def test_the_audit_counts_and_finds(manifest: Manifest) -> None:
    pytest.importorskip("sklearn")
    found = audit(manifest, size=64)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert list(told) == ["counts", "unreadable", "unusable", "duplicates", "conflicts", "shortcut"]
    assert told["counts"]["photographs"] == 13
    assert told["counts"]["grades"] == {"0": 7, "1": 0, "2": 6, "3": 0, "4": 0}
    assert told["counts"]["sources"] == {"clinic": told["counts"]["grades"]}
    assert told["counts"]["sizes"] == {"288x160": 7, "160x160": 6}
    assert told["duplicates"] == told["conflicts"]
    assert sorted(Path(path).name for path in told["duplicates"][0]) == ["0_left0.png", "twin.png"]
    assert told["shortcut"]["before"]["quadratic_kappa"] > told["shortcut"]["majority_accuracy"]
    text = found.as_text()
    assert "Duplicates: 1 groups of 2 photographs; of these equal in bytes or pixels: 1 groups of 2" in text
    assert all(stage in text for stage in ("whole frame", "canonical field ", "canonical field, crops matched"))
    assert "Note: no photographs of grades 1, 3, 4" in text


def test_leaks_of_a_given_split_are_listed(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.data.audit.audit_shortcut", lambda *_, **__: None)
    one_each = Manifest(tuple(replace(item, patient=item.name) for item in manifest.entries[:12]))
    splits = divide(one_each, (), shares={"a": 0.5, "b": 0.5}, seed=0)
    together = Manifest(tuple(replace(item, patient="one") for item in one_each.entries))
    found = audit(together, splits=splits)
    assert {leak.shared for leak in found.leaks or ()} == {"patient"}
    assert found.as_json()["leaks"][0]["shared"] == "patient"
    assert "the same patient: " in found.as_text()
    assert audit(one_each, splits=splits).leaks == ()


def test_without_scikit_learn_the_rest_is_told(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(shortcut_room, "import_module", absent)
    found = audit(manifest)
    assert found.shortcut is None
    assert found.as_json()["shortcut"] is None
    assert "pip install scikit-learn" in found.as_text()
    assert len(found.duplicates) == 1


def test_one_grade_alone_has_no_shortcut_but_is_audited(manifest: Manifest) -> None:
    pytest.importorskip("sklearn")
    healthy = Manifest(tuple(item for item in manifest.entries if item.grade == 0))
    found = audit(healthy, size=64)
    assert found.shortcut is None
    assert "one grade only" in found.as_text()


def test_photographs_without_a_field_are_named(manifest: Manifest, clinic: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "noise" / "Mild" / "dark.png"
    save(np.zeros((64, 64, 3), dtype=np.uint8), path)
    found = check([clinic, path.parents[1]], size=64)
    assert [item["path"] for item in found.as_json()["unusable"]] == [str(path)]
    assert "Without a retinal disc: 1" in found.as_text()
    assert f"{path}: no retinal disc" in found.as_text()
    assert found.shortcut is not None
    assert len(manifest) == found.shortcut.photographs


def test_unreadable_files_are_told(clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retigrade.data.audit.audit_shortcut", lambda *_, **__: None)
    broken = tmp_path / "more" / "Mild" / "broken.png"
    save(np.zeros((64, 64, 3), dtype=np.uint8), broken.with_name("fine.png"))
    broken.write_bytes(b"\x89PNG")
    found = audit(read_manifest([clinic, tmp_path / "more"], skip_unreadable=True))
    assert [item["path"] for item in found.as_json()["unreadable"]] == [str(broken)]
    assert "Missing or unreadable: 1" in found.as_text()
    assert str(broken) in found.as_text()


def test_checking_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, retigrade.data.audit as _; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'matplotlib', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
