from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import retigrade
from retigrade.cli import main
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import hold_out, write_splits
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye

KEYS = ["counts", "unreadable", "unusable", "duplicates", "conflicts", "shortcut"]


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Six photographs of two stages, one of them there twice with both."""
    root = tmp_path / "clinic"
    for number in range(6):
        grade = number % 2 * 2
        eye = draw_eye(grade=Grade(grade), size=160, rng=np.random.default_rng(number)).pixels
        names = [root / ("No_DR", "", "Moderate")[grade] / f"{number}.png"]
        if number == 0:
            names.append(root / "Moderate" / "twin.png")
        for path in names:
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), cv2.cvtColor(eye, cv2.COLOR_RGB2BGR))
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut audit has tests of its own."""
    monkeypatch.setattr("retigrade.data.audit.audit_shortcut", lambda *_, **__: None)


def test_json_has_the_findings_and_nothing_else(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clinic), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == KEYS
    assert found["counts"]["photographs"] == 7
    assert found["duplicates"] == [[str(clinic / "Moderate" / "twin.png"), str(clinic / "No_DR" / "0.png")]]
    assert found["conflicts"] == found["duplicates"]


def test_text_is_for_people(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clinic)]) == 0
    text = capsys.readouterr().out
    assert "7 photographs, fingerprint" in text
    assert f"{clinic}/Moderate/twin.png (grade 2)  {clinic}/No_DR/0.png (grade 0)" in text  # not wrapped


def test_unreadable_files_are_listed_and_end_with_2_unless_accepted(
    clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = clinic / "No_DR" / "broken.png"
    broken.write_bytes(b"\x89PNG")
    assert main(["check", str(clinic), "--format", "json"]) == 2
    said = capsys.readouterr()
    assert [item["path"] for item in json.loads(said.out)["unreadable"]] == [str(broken)]
    assert "--skip-unreadable" in said.err
    assert main(["check", str(clinic), "--skip-unreadable"]) == 0
    assert str(broken) in capsys.readouterr().out


def test_photographs_without_a_disc_are_found_beforehand(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(27):
        assert cv2.imwrite(str(clinic / "No_DR" / f"black{number:02}.png"), np.zeros((64, 64, 3), np.uint8))
    assert main(["check", str(clinic)]) == 2
    captured = capsys.readouterr()
    assert "7 photographs, fingerprint" in captured.out
    assert "Without a retinal disc: 27" in captured.out
    assert f"{clinic}/No_DR/black00.png: no retinal disc" in captured.out
    assert "\n  and 22 more\n" in captured.out
    assert "0 photographs are missing or unreadable, 27 show no retinal disc" in captured.err
    assert main(["check", str(clinic), "--format", "json", "--skip-unreadable"]) == 0
    assert len(json.loads(capsys.readouterr().out)["unusable"]) == 27


def test_the_public_function_gives_what_the_command_prints(clinic: Path) -> None:
    found = retigrade.check(clinic)
    assert len(found.manifest) == 7
    assert "7 photographs, fingerprint" in found.as_text()


def test_a_split_is_searched_for_leaks(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(clinic)
    path = tmp_path / "split.json"
    write_splits(hold_out(manifest, ((0, 4),), fraction=0.4, seed=0), path, manifest)
    assert main(["check", str(clinic), "--splits", str(path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [*KEYS, "leaks"]


def test_several_folders_are_audited_together(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    (other / "Mild").mkdir(parents=True)
    (other / "Mild" / "copy.png").write_bytes((clinic / "No_DR" / "2.png").read_bytes())
    assert main(["check", str(clinic), str(other), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["counts"]["sources"]) == {"clinic", "other"}
    assert len(found["duplicates"]) == 2


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert "no layout recognised" in capsys.readouterr().err


@pytest.mark.slow
def test_byte_identical_pairs_of_real_photographs_are_all_found(
    real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = real_data / "idrid"
    by_bytes: dict[bytes, list[str]] = {}
    for path in sorted((folder / "photos").iterdir()):
        by_bytes.setdefault(path.read_bytes(), []).append(str(path))
    equal = [paths for paths in by_bytes.values() if len(paths) > 1]
    assert main(["check", str(folder), "--format", "json"]) == 0
    groups = [set(group) for group in json.loads(capsys.readouterr().out)["duplicates"]]
    assert equal
    assert all(any(set(paths) <= group for group in groups) for paths in equal)
