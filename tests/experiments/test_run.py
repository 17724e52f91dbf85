"""`retigrade train` with its record: sizes, shares, external photographs, a data set left out, MLflow, warm starts."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import retigrade
from retigrade.bundle import Bundle, read_metadata
from retigrade.cli import main
from retigrade.errors import LeakError, UsageError
from retigrade.evaluation.result import EvaluationResult
from retigrade.experiments.predictions import read_predictions
from retigrade.experiments.record import RunRecord
from retigrade.experiments.tracking import open_tracker
from retigrade.icdr import GRADES
from retigrade.synthetic import draw_eye
from small_data import write_small_data

pytestmark = pytest.mark.slow  # every test here waits for a training

QUICK = ("--backbone", "test_efficientnet", "--epochs", "1", "--batch", "8", "--size", "64", "--recipe", "paper")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty eyes of two data sets, `east` and `west`."""
    folder = write_small_data(tmp_path_factory.mktemp("small") / "eyes", photos=60)
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["path", "grade", "patient", "source"])
        writer.writeheader()
        writer.writerows({**row, "source": "east" if number % 8 < 4 else "west"} for number, row in enumerate(rows))
    return folder


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten eyes that no training sees."""
    root = tmp_path_factory.mktemp("external") / "abroad"
    for number in range(10):
        eye = draw_eye(grade=GRADES[number % 5], size=160, rng=np.random.default_rng(900 + number))
        path = root / str(number % 5) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))
    return root


@pytest.fixture(scope="module")
def run(data: Path, abroad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, measured abroad, told to MLflow's file store."""
    folder = tmp_path_factory.mktemp("runs")
    out = folder / "folds"
    options = ["--folds", "2", "--validation", "0.2", "--external", str(abroad), "--mlflow", str(folder / "mlruns")]
    assert main(["train", str(data), "--out", str(out), "--random-start", *QUICK, *options]) == 0
    return out


def test_the_record_says_what_ran_on_what_and_where(run: Path, data: Path) -> None:
    record = RunRecord.read(run)
    assert record.status == "finished"
    assert (record.options["folds"], record.options["size"], record.options["validation"]) == (2, 64, 0.2)
    assert (record.recipe["name"], record.recipe["size"], record.recipe["epochs"]) == ("paper", 64, 1)
    assert (record.data.photographs, record.data.sources) == (60, {"east": 32, "west": 28})
    assert record.data.fingerprint == read_metadata((run / "bundle.onnx").read_bytes()).training.fingerprint
    assert record.machine.cpus >= 1
    assert {"python", "retigrade", "torch", "timm"} <= set(record.versions)
    assert record.figures == EvaluationResult.read(run / "evaluation.json").headline
    assert Bundle.load(run / "bundle.onnx").metadata.input_size == 64


def test_every_photograph_is_predicted_once_out_of_fold(run: Path, data: Path) -> None:
    rows = read_predictions(run)
    assert len({row.sha256 for row in rows}) == len(rows) == 60
    assert {(row.fold, row.part) for row in rows} == {("fold1", "test"), ("fold2", "test")}
    np.testing.assert_allclose([sum(row.probabilities) for row in rows], 1, atol=1e-5)
    parts = json.loads((run / "splits.json").read_text())["parts"]
    assert {row.name for row in rows if row.fold == "fold1"} == set(parts["fold1"])
    with (data / "labels.csv").open(newline="") as file:
        labels = {line["path"]: int(line["grade"]) for line in csv.DictReader(file)}
    assert all(row.target == labels[Path(row.path).name] for row in rows)


def test_the_folds_table_has_each_fold_their_mean_and_all_pooled(run: Path) -> None:
    with (run / "folds.csv").open(newline="") as file:
        lines = {line["fold"]: line for line in csv.DictReader(file)}
    assert list(lines) == ["fold1", "fold2", "mean", "standard deviation", "pooled"]
    mean = (float(lines["fold1"]["accuracy"]) + float(lines["fold2"]["accuracy"])) / 2
    assert float(lines["mean"]["accuracy"]) == pytest.approx(mean, abs=1e-5)
    rows = read_predictions(run)
    right = sum(row.predicted == row.target for row in rows) / len(rows)
    assert float(lines["pooled"]["accuracy"]) == pytest.approx(right, abs=1e-5)


def test_history_and_figures_are_there(run: Path) -> None:
    with (run / "history.csv").open(newline="") as file:
        assert [line["training"] for line in csv.DictReader(file)] == ["fold1", "fold2"]
    assert {path.name for path in (run / "figures").iterdir()} == {"training.svg", "confusion.svg", "reliability.svg"}


def test_external_photographs_are_measured_and_not_learned_from(run: Path, abroad: Path) -> None:
    measured = RunRecord.read(run).external["abroad"]
    assert measured.photographs == 10
    report = EvaluationResult.read(run / "external" / "abroad" / "report.json")
    assert report.photographs.learned_from == ()
    assert report.headline == measured.figures


def test_mlflow_is_told_options_epochs_figures_and_files(run: Path) -> None:
    record = RunRecord.read(run)
    (folder,) = (path for path in (run.parent / "mlruns").glob(f"*/{record.mlflow}") if path.is_dir())
    assert (folder / "params" / "folds").read_text() == "2"
    assert (folder / "params" / "fingerprint").read_text() == record.data.fingerprint
    assert (folder / "metrics" / "fold2" / "loss").exists()
    assert (folder / "artifacts" / "run.json").exists()


def test_an_external_photograph_that_is_learned_from_is_a_leak(data: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied" / "Severe" / "again.png"
    copied.parent.mkdir(parents=True)
    copied.write_bytes((data / "3.png").read_bytes())
    with pytest.raises(LeakError, match=r"again\.png is external and the same file as eyes/3\.png"):
        retigrade.train(data, out=tmp_path / "run", external=[copied.parents[1]], random_start=True)
    shrunk = cv2.resize(cv2.imread(str(data / "3.png")), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(copied), shrunk)
    with pytest.raises(LeakError, match="the same duplicate"):
        retigrade.train(data, out=tmp_path / "run", external=[copied.parents[1]], random_start=True)


def test_each_data_set_is_tested_by_a_network_that_learned_from_the_others(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", str(data), "--out", str(out), "--random-start", *QUICK, "--leave-source-out"]) == 0
    rows = read_predictions(out)
    assert {(row.source, row.fold) for row in rows} == {("east", "without-east"), ("west", "without-west")}
    assert len(rows) == 60
    assert "each trained without one data set" in read_metadata((out / "bundle.onnx").read_bytes()).training.protocol


def test_a_bundle_is_a_start(run: Path, data: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    options: dict[str, Any] = {"backbone": "test_efficientnet", "recipe": "paper", "size": 64, "batch": 8, "epochs": 1}
    bundle = retigrade.train(data, out=first, random_start=True, **options)
    again = retigrade.train(
        data, out=tmp_path / "second", weights=bundle, lr=1e-7, seed=2, splits=first / "splits.json", **options
    )
    assert (tmp_path / "second" / "splits.json").read_bytes() == (first / "splits.json").read_bytes()
    photos = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    before, after = (Bundle.load(path).run(photos) for path in (bundle, again))
    # A step of 1e-7 learns nothing but the correction of the head's bias, which no feature shows.
    np.testing.assert_allclose(after.features, before.features, rtol=0.3, atol=0.3 * np.abs(before.features).max())
    assert read_metadata(again.read_bytes()).starting_weights.startswith("the bundle retigrade-test_efficientnet@")
    with pytest.raises(UsageError, match="is an ensemble"):
        retigrade.train(data, out=tmp_path / "third", weights=run / "bundle.onnx", **options)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--size", "8"], "--size must lie from 32"),
        (["--validation", "0"], "--validation must lie between 0 and 1"),
        (["--validation", "0.5", "--test", "0.5"], "leave no photographs to learn from"),
        (["--leave-source-out", "--folds", "2"], "leave --folds out"),
        (["--folds", "2", "--test", "0.2"], "leave --test out"),
        (["--external", "absent"], "absent"),
    ],
)
def test_wrong_options_exit_2_with_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    assert main(["train", str(data), "--out", str(tmp_path / "run"), "--random-start", *QUICK, *extra]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_other_options_do_not_go_on_with_a_run(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--folds", "3", "--validation", "0.2", "--resume"]
    assert main(["train", str(data), "--out", str(run), "--random-start", *QUICK, *options]) == 2
    assert "is of another --folds: 2, this run has 3" in capsys.readouterr().err


def test_without_mlflow_it_says_what_to_install(data: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from retigrade.cli import main\n"
        f"sys.exit(main(['train', {str(data)!r}, '--out', {str(tmp_path / 'x')!r}, '--random-start', "
        f"*{list(QUICK)!r}, '--mlflow', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install '.[mlflow]'" in done.stderr


def test_an_external_photograph_with_marked_lesions_is_a_leak(data: Path, abroad: Path, tmp_path: Path) -> None:
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "photos" / "a.png").write_bytes((abroad / "0" / "0.png").read_bytes())
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((160, 160), np.uint8))
    with pytest.raises(LeakError, match=r"0\.png is external and among"):
        retigrade.train(data, out=tmp_path / "run", external=[abroad], lesions=tmp_path, random_start=True)


def test_an_external_photograph_that_the_start_learned_from_is_a_leak(
    run: Path, data: Path, abroad: Path, tmp_path: Path
) -> None:
    with pytest.raises(LeakError, match=r"is external, and .* learned from it"):
        retigrade.train(abroad, out=tmp_path / "run", external=[data], weights=run / "bundle.onnx", recipe="paper")


def test_a_server_that_is_away_at_the_end_costs_no_result(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunRecord.read(run)
    tracker = open_tracker(str(run.parent / "mlruns"), record, name="again")

    def away(*_: object) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(tracker, "_client", SimpleNamespace(log_metric=away))
    with pytest.raises(UsageError, match=r"did not take the finished run \(ConnectionError\); all of it is in"):
        tracker.finish(record, run)
