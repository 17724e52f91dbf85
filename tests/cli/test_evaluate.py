from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

import retigrade
from retigrade.bundle import read_metadata
from retigrade.cli import main
from retigrade.data.manifest import read_manifest
from retigrade.data.splits import hold_out, write_splits
from retigrade.evaluation import tuning
from retigrade.icdr import GRADES, Grade
from retigrade.metrics.decision import Decision
from retigrade.synthetic import Phantom, draw_eye
from tiny_bundle import write_tiny_bundle

FOLDERS = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Grade, Phantom]]:
    return [
        (grade, draw_eye(grade=grade, size=160, rng=np.random.default_rng([seed, grade])))
        for grade in GRADES
        for seed in range(3)
    ]


@pytest.fixture
def data(drawn: list[tuple[Grade, Phantom]], photo_path: Callable[..., Path]) -> Path:
    """Fifteen eyes in class folders, three of each grade."""
    for number, (grade, phantom) in enumerate(drawn):
        path = photo_path(phantom, f"eyes/{FOLDERS[grade]}/{number}.png")
    return path.parents[1]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny.onnx")


@pytest.fixture
def doubting(tmp_path: Path) -> Path:
    """A bundle whose stage alone refers nobody: the threshold does."""
    return write_tiny_bundle(tmp_path / "doubting.onnx", decision=Decision(rule="mean", cuts=(0.5, 3.97, 3.98, 3.99)))


@pytest.fixture
def annotated(eyes: Mapping[Grade, Phantom], photo_path: Callable[..., Path]) -> Path:
    phantom = eyes[Grade.SEVERE]
    folder = photo_path(phantom, "marked/photos/a.png").parents[1]
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "a.png"), np.eye(phantom.pixels.shape[0], dtype=np.uint8))
    return folder


def test_evaluate_writes_its_four_files(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(data), "--bundle", str(bundle), "--out", str(out), "--jobs", "2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["predictions.csv", "report.html", "report.json", "report.md"]
    report = json.loads((out / "report.json").read_text())
    assert report["photographs"]["grades"] == [3] * 5
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    grader = retigrade.load(bundle)
    for row in rows[::5]:
        grading = grader.grade(row["path"])
        assert (row["status"], row["grade"]) == (grading.status, str(int(grading.grade)))  # type: ignore[arg-type]
    page = (out / "report.html").read_text(encoding="utf-8")
    wrong = sum(row["status"] == "graded" and row["grade"] != row["true_grade"] for row in rows)
    assert page.count("data:image/jpeg;base64,") == min(wrong, 20)
    assert not re.search(r"https?://|<script", page)
    said = capsys.readouterr()
    assert "quadratic weighted kappa" in said.out
    assert str(out / "report.html") in said.err


def test_evaluate_all_that_can_be_asked_for(data: Path, bundle: Path, annotated: Path, tmp_path: Path) -> None:
    manifest = read_manifest(data)
    write_splits(hold_out(manifest, (), fraction=0.34, seed=0), tmp_path / "splits.json", manifest)
    metadata = tmp_path / "MODEL_CARD.md"
    arguments = ["evaluate", str(data), "--bundle", str(bundle), "--out", str(tmp_path / "out"), "--corruptions"]
    arguments += ["--splits", str(tmp_path / "splits.json"), "--part", "test", "--lesions", str(annotated)]
    assert main([*arguments, "--model-card", str(metadata), "--operating-point", "screening"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["photographs"]["count"], report["photographs"]["part"]) == (5, "test")
    assert report["operating_point"] == "screening"
    assert len(report["robustness"]["cells"]) == 60
    assert set(report["faithfulness"]["maps"]) == {"heatmap", "random map"}
    assert any("fewer than 10" in remark for remark in report["remarks"])
    text = metadata.read_text()
    assert "rotation" in text
    assert "pointing game" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--part", "test"], "--splits and --part go together"),
        (["--operating-point", "fast"], "there are: screening"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--bundle", "absent.onnx"], "no such file"),
        (["--out", "eyes/No_DR/0.png"], "not a folder"),
        (["--lesions", "eyes"], "no photographs in"),
    ],
)
def test_wrong_usage_of_evaluate(
    data: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(data.parent)
    given = ["evaluate", "eyes", *arguments]
    given += [] if "--bundle" in arguments else ["--bundle", str(bundle)]
    given += [] if "--out" in arguments else ["--out", "out"]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said


def test_an_unknown_part_lists_those_there_are(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(data)
    write_splits(hold_out(manifest, (), fraction=0.34, seed=0), tmp_path / "splits.json", manifest)
    arguments = ["evaluate", str(data), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--splits", str(tmp_path / "splits.json"), "--part", "tset"]) == 2
    assert "there are: train, test" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(data: Path, bundle: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from retigrade.cli import main\n"
        f"sys.exit(main(['evaluate', {str(data)!r}, '--bundle', {str(bundle)!r}, '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs the package matplotlib" in done.stderr
    assert "pip install '.[report]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_neither_needs_torch(data: Path, doubting: Path, tmp_path: Path, command: str) -> None:
    more = [] if command == "evaluate" else ["--sensitivity", "0.4"]
    arguments = [command, str(data), "--bundle", str(doubting), "--out", str(tmp_path / "out"), *more]
    script = (
        "import sys; from retigrade.cli import main; from retigrade.evaluation import tuning; tuning.FEWEST = 1\n"
        f"code = main({arguments!r})\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tune_writes_a_bundle_that_uses_its_point(
    data: Path, doubting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "FEWEST", 1)  # fifteen eyes are not enough otherwise
    out = tmp_path / "tuned.onnx"
    arguments = ["tune", str(data), "--bundle", str(doubting), "--sensitivity", "0.4", "--out", str(out)]
    assert main([*arguments, "--prevalence", "0.25"]) == 0
    said = capsys.readouterr().out
    assert "250 of them referable" in said
    assert "95 % intervals" in said
    metadata = read_metadata(out.read_bytes())
    assert metadata.referable_threshold == metadata.operating_points["tuned"].threshold
    assert metadata.operating_points["tuned"].sensitivity.value >= 0.4
    photo = next(data.rglob("*.png"))
    plain, tuned = retigrade.load(doubting).grade(photo), retigrade.load(out).grade(photo)
    assert tuned.p_referable == plain.p_referable
    assert tuned.bundle != plain.bundle


@pytest.mark.parametrize(
    ("folders", "sensitivity", "sentence"),
    [
        (FOLDERS, "1.2", "--sensitivity must lie above 0 and at most at 1"),
        (FOLDERS, "0.9", "20 are needed to choose a threshold"),
        (FOLDERS[:2], "0.9", "of 0 independent eyes or patients"),
    ],
)
def test_a_sensitivity_that_cannot_be_met_is_one_sentence(
    data: Path,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folders: tuple[str, ...],
    sensitivity: str,
    sentence: str,
) -> None:
    for folder in set(FOLDERS) - set(folders):
        for photo in (data / folder).iterdir():
            photo.unlink()
        (data / folder).rmdir()
    out = tmp_path / "tuned.onnx"
    code = main(["tune", str(data), "--bundle", str(bundle), "--sensitivity", sensitivity, "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_grade_at_an_operating_point(data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(next(data.rglob("*.png")))
    assert main(["grade", photo, "--bundle", str(bundle), "--operating-point", "screening", "--format", "jsonl"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["referable"] == (row["p_referable"] >= 0.2)
    assert main(["grade", photo, "--bundle", str(bundle), "--operating-point", "sreening"]) == 2
    assert "there are: screening" in capsys.readouterr().err


def test_the_report_says_at_which_point_it_refers(data: Path, bundle: Path, tmp_path: Path) -> None:
    photo, out = str(next(data.rglob("*.png"))), tmp_path / "out"
    arguments = ["grade", photo, "--bundle", str(bundle), "--no-heat", "--out", str(out)]
    assert main([*arguments, "--operating-point", "screening"]) == 0
    assert "operating point screening: probability 0.2" in (out / "report.html").read_text(encoding="utf-8")
    assert main(arguments) == 0
    assert "operating point" not in (out / "report.html").read_text(encoding="utf-8")
