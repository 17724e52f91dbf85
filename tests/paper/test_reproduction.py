"""The whole run with a trainer that is instant: it knows what it has learned from, and guesses the rest."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retigrade.errors import DataError, UsageError
from retigrade.icdr import Grade
from retigrade.paper.config import ExperimentConfig, Preparation, Protocol
from retigrade.paper.experiment import Experiment
from retigrade.paper.run import run_experiment
from retigrade.paper.trainer import CheckpointResult, NetworkDescription, NetworkTrainer, TrainingTask
from retigrade.synthetic import draw_eye
from retigrade.training.progress import EpochResult, Progress

pytestmark = pytest.mark.slow  # every test here waits for a training

FOLDERS = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")
SIZE = 64


@dataclass
class Memory(NetworkTrainer):
    """A trainer that answers right what it was trained on, and one stage too high what it was not."""

    share: float = 1.0
    stop_before: int | None = None
    tasks: list[TrainingTask] = field(default_factory=list)

    def describe(self, network: str, *, size: int) -> NetworkDescription:
        start = "ImageNet weights" if self.share == 1 else f"ImageNet weights for {self.share:.0%}, the rest random"
        return NetworkDescription(
            network=network,
            parameters=2_230_277,
            input="x / 127.5 - 1",
            feature_map=(1280, 7, 7),
            start=start,
            share=self.share,
        )

    def train(self, task: TrainingTask, *, folder: Path, progress: Progress) -> CheckpointResult:
        if len(self.tasks) == self.stop_before:
            raise KeyboardInterrupt
        self.tasks.append(task)
        folder.mkdir(parents=True)
        (folder / "checkpoint").touch()
        line = EpochResult(1, 0.5, 0.9, 0.8, 1.0)
        progress.epoch(line)
        answers = (task.grades + ~np.isin(np.arange(len(task.grades)), task.fold.train)) % 5
        logits = np.where(np.eye(5, dtype=bool)[answers], 4.0, 0.0).astype(np.float32)
        maps = np.repeat(logits[task.shown], 4, axis=1).reshape(-1, 5, 2, 2)
        return CheckpointResult(history=(line,), epoch=1, logits=logits, maps=maps, receptive_field_offset=(0.5, 0.5))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty eyes, eight of each stage, and one of them twice."""
    root = tmp_path_factory.mktemp("paper") / "clinic"
    for number in range(41):
        drawn = number % 40
        grade = drawn % 5
        eye = draw_eye(grade=Grade(grade), size=160, aspect=1 + drawn % 3 / 10, rng=np.random.default_rng(drawn)).pixels
        path = root / FOLDERS[grade] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), cv2.cvtColor(eye, cv2.COLOR_RGB2BGR))
    return root


def settings(**changes: Any) -> ExperimentConfig:
    plain: dict[str, Any] = {
        "networks": ("mobilenetv2_100", "vgg16"),
        "folds": (2, 1),
        "epochs": (3, 1),
        "preparations": tuple(Preparation),
        "protocols": tuple(Protocol),
        "size": SIZE,
    }
    return ExperimentConfig(**(plain | changes))


def reproduce(
    clinic: Path, out: Path, trainer: Memory | None = None, *, photographs: bool = True, **changes: Any
) -> Experiment:
    return run_experiment(
        [clinic],
        out=out,
        config=settings(**changes),
        trainer=trainer or Memory(),
        progress=Progress(),
        photographs=photographs,
    )


def rows(out: Path, table: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, which takes most of the time of a report."""
    for plot in ("confusion_plot", "counts_plot", "training_plot"):
        monkeypatch.setattr(f"retigrade.paper.figures.{plot}", lambda *_, **__: b"<svg/>")


@pytest.fixture(scope="module")
def whole(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "whole"
    with pytest.MonkeyPatch.context() as patch:  # one report of all trainings rather than one after each
        patch.setattr("retigrade.paper.run.write_report", lambda *_, **__: None)
        reproduce(clinic, out)
    reproduce(clinic, out)
    return out


def test_every_table_and_figure_is_there_in_all_three_forms(whole: Path) -> None:
    page, text = (whole / "report.html").read_text(), (whole / "report.md").read_text()
    titles = [f"Table {number}" for number in (1, 2, 3, 4)] + [f"Figure {number}" for number in (1, 2, 3, 4)]
    for title in titles:
        assert re.search(f"<h3>{title}\\b", page), title
        assert re.search(f"^### {title}\\b", text, re.MULTILINE), title
    for file in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (whole / file).stat().st_size > 0
    assert page.count("data:image/") == len(list((whole / "figures").iterdir()))
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert text.count("\n### ") == page.count("<h3>")
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections[:2] == ["In one page", "The audit"]
    assert not list(whole.rglob("*.tmp"))


def first_paragraph(out: Path) -> str:
    title, _, first = (out / "report.md").read_text().splitlines()[:3]
    assert title == "# The publication run again"
    return first


def test_the_first_paragraph_says_what_is_scaled_down(whole: Path) -> None:
    first = first_paragraph(whole)
    assert "Scaled down: MobileNetV2 with 2 of 3 folds, 3 of 100 epochs; VGG-16 with 1 of 3 folds" in first
    assert "without ResNet50V2" in first
    assert "at 64 of 224 pixels" in first


def test_printed_values_stand_beside_the_measured_ones_and_their_difference(whole: Path) -> None:
    published = rows(whole, "table_4_published")
    assert [(row["network"], row["preparation"], row["fold"]) for row in published] == [
        ("MobileNetV2", "colour", "1"),
        ("MobileNetV2", "colour", "2"),
        ("VGG-16", "colour", "1"),
        ("MobileNetV2", "gaussian", "1"),
        ("MobileNetV2", "gaussian", "2"),
        ("VGG-16", "gaussian", "1"),
    ]
    row = published[2]
    assert (row["precision: printed"], row["recall: printed"], row["F1: printed"]) == ("0.89", "0.88", "0.89")
    assert row["support: printed"] == "2674"
    assert float(row["recall: difference"]) == pytest.approx(float(row["recall: measured"]) - 0.88, abs=6e-4)
    assert int(row["support: difference"].replace(",", "")) == int(row["support: measured"]) - 2674
    data = rows(whole, "table_1")
    assert [row["here"] for row in data] == ["9", "8", "8", "8", "8", "41"]
    assert data[0]["here less printed total"] == "-2,400"
    accuracy = rows(whole, "protocols")[0]
    assert accuracy["printed accuracy"] == "0.9389"


def test_the_protocols_differ_as_they_must_on_a_network_that_only_remembers(whole: Path) -> None:
    first = [
        row for row in rows(whole, "protocols") if (row["network"], row["preparation"]) == ("MobileNetV2", "colour")
    ]
    accuracy = {row["protocol"]: float(row["accuracy"]) for row in first}
    assert accuracy["published"] == accuracy["honest"] == 0
    assert accuracy["leaking"] == pytest.approx(1 - 8.2 / 30, abs=0.02)  # what it had not seen is a fifth of all
    leaks = {row["protocol"]: row for row in rows(whole, "leaks") if row["network"] == "MobileNetV2"}
    assert float(leaks["leaking"]["trained on: accuracy"]) == 1
    assert int(leaks["honest"]["trained on: evaluated"]) == 0
    assert int(leaks["honest"]["a duplicate or the patient trained on: evaluated"]) == 0


def test_the_parts_table_counts_what_is_shared(whole: Path) -> None:
    parts = {(row["protocol"], row["fold"]): row for row in rows(whole, "parts")}
    assert len(parts) == 6
    leaking, honest = parts["leaking", "1"], parts["honest", "2"]
    assert int(leaking["of these trained on"]) > len(parts)
    assert honest["of these trained on"] == honest["of these a duplicate, or the patient, trained on"] == "0"
    twins = [int(parts["published", fold]["of these a duplicate, or the patient, trained on"]) for fold in "12"]
    assert sum(twins) in (0, 1, 2)


def test_the_real_layers_stand_beside_the_printed_ones(whole: Path) -> None:
    layers = rows(whole, "table_2")
    assert len(layers) == 22
    assert sum(row["MobileNetV2"].startswith("Bottleneck") for row in layers) == 17
    assert (layers[1]["printed"], layers[1]["printed: filter"]) == ("Conv dw / s1", "3 x 3 x 32 dw")
    assert layers[18]["filter"] == "1 x 1 x 320 x 1280"
    network = rows(whole, "networks")[0]
    assert (network["printed: last map"], network["here: last map"]) == ("7 x 7 x 1024", "7 x 7 x 1280")
    assert network["difference"] == "-1,069,723"


def test_the_training_flips_to_the_side_alone_as_printed(whole: Path) -> None:
    training = {row["parameter"]: row["MobileNetV2: here"] for row in rows(whole, "table_3")}
    assert training["Horizontal flipping"] == "Yes, 50%"
    assert training["Vertical flipping"] == "No"


def test_the_first_page_has_claim_printed_and_measured_values_and_why_they_differ(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    page = text[text.index("## In one page") : text.index("## The audit")]
    assert "an accuracy of 93.89 %" in page
    assert "| printed | measured honestly | measured as published | measured with the overlap" in page
    accuracy = next(line for line in page.splitlines() if line.startswith("| accuracy"))
    assert accuracy.split("|")[2].strip() == "0.939"
    measured = {row["protocol"]: float(row["accuracy"]) for row in rows(whole, "protocols")[::-1]}
    assert f"{measured['honest']:.3f}" in accuracy
    assert "Why they differ" in page


def test_no_table_of_the_page_repeats_one_value_in_every_row(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = [line.strip("| \n").split(" | ") for line in table.splitlines() if not line.startswith("| ---")]
        heading, *below = cells
        assert len(heading) <= 14, heading
        for column in zip(*below, strict=False):
            assert len(below) < 3 or len(set(column)) > 1, heading


def test_figure_3_can_be_drawn_from_its_table(whole: Path) -> None:
    counts = rows(whole, "confusion")
    who = ("protocol", "network", "preparation")
    evaluated = {tuple(row[name] for name in who): int(row["evaluated"]) for row in rows(whole, "protocols")}
    for key, total in evaluated.items():
        own = [row for row in counts if tuple(row[name] for name in who) == key]
        assert sum(int(value) for row in own for name, value in row.items() if name.startswith("predicted")) == total


def test_the_audit_is_in_the_report(whole: Path) -> None:
    audit = rows(whole, "arithmetic")
    assert {row["verdict"] for row in audit} == {"consistent", "contradicted", "unverifiable"}
    assert any("93.89" in row["claim"] for row in audit)


@pytest.mark.usefixtures("no_plots")
def test_a_second_call_trains_nothing_and_writes_the_same(clinic: Path, tmp_path: Path) -> None:
    options = {"networks": ("vgg16",), "folds": (1,), "epochs": (1,)}
    reproduce(clinic, tmp_path, **options)
    before = (tmp_path / "report.html").read_bytes()
    again = Memory()
    reproduce(clinic, tmp_path, again, **options)
    assert again.tasks == []
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.rglob("checkpoint"))


@pytest.mark.usefixtures("no_plots")
def test_an_interrupted_run_reports_what_it_has_and_goes_on_later(clinic: Path, tmp_path: Path) -> None:
    options = {"networks": ("mobilenetv2_100",), "folds": (1,), "epochs": (1,)}
    with pytest.raises(KeyboardInterrupt):
        reproduce(clinic, tmp_path, Memory(stop_before=1), **options)
    first = first_paragraph(tmp_path)
    assert "; 1 of 3 trainings so far." in first
    assert "not gaussian nor honest" in first
    assert {row["protocol"] for row in rows(tmp_path, "protocols")} == {"published", "leaking"}
    assert not (tmp_path / "tables" / "table_4_honest.csv").exists()
    rest = Memory()
    reproduce(clinic, tmp_path, rest, **options)
    assert len(rest.tasks) == 2
    assert "so far" not in first_paragraph(tmp_path)


@pytest.mark.usefixtures("no_plots")
def test_interrupted_before_anything_is_finished_there_is_no_report(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        reproduce(clinic, tmp_path, Memory(stop_before=0))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
def test_more_networks_and_preparations_later_train_only_what_is_new(clinic: Path, tmp_path: Path) -> None:
    first = {"networks": ("mobilenetv2_100",), "folds": (2,), "epochs": (3,), "preparations": (Preparation.COLOUR,)}
    reproduce(clinic, tmp_path, **first)
    more = Memory()
    reproduce(clinic, tmp_path, more, preparations=(Preparation.COLOUR,))  # and VGG-16
    assert [task.network for task in more.tasks] == ["vgg16"]
    all_of_it = Memory()
    reproduce(clinic, tmp_path, all_of_it)
    assert [task.network for task in all_of_it.tasks] == ["mobilenetv2_100", "mobilenetv2_100", "vgg16"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
def test_small_files_are_all_that_a_later_run_needs(clinic: Path, tmp_path: Path) -> None:
    first, later = tmp_path / "first", tmp_path / "later"
    reproduce(clinic, first, photographs=False)
    for path in [first / "honest-split.json", *first.rglob("result.json"), *first.rglob("answers.npz")]:
        assert path.stat().st_size < 100_000
        target = later / path.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    trainer = Memory()
    reproduce(clinic, later, trainer, photographs=False)
    assert trainer.tasks == []
    assert (later / "report.html").read_bytes() == (first / "report.html").read_bytes()
    assert not list(later.rglob("*.npy"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
def test_a_report_of_a_stopped_run_tells_only_of_what_was_run(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        reproduce(clinic, tmp_path, Memory(stop_before=3))  # two published folds and an honest one
    first = first_paragraph(tmp_path)
    assert "without ResNet50V2, VGG-16; not gaussian; " in first
    assert {row["network"] for row in rows(tmp_path, "networks")} == {"MobileNetV2"}
    assert "VGG-16: here" not in rows(tmp_path, "table_3")[0]
    folds = [(row["protocol"], row["fold"]) for row in rows(tmp_path, "parts")]
    assert folds == [("published", "1"), ("published", "2"), ("leaking", "1"), ("leaking", "2"), ("honest", "1")]


@pytest.mark.usefixtures("no_plots")
def test_another_config_in_the_same_folder_are_refused(clinic: Path, tmp_path: Path) -> None:
    options = {"networks": ("vgg16",), "folds": (1,), "protocols": (Protocol.PUBLISHED,)}
    reproduce(clinic, tmp_path, epochs=(1,), **options)
    with pytest.raises(UsageError, match="another recipe"):
        reproduce(clinic, tmp_path, epochs=(2,), **options)


@pytest.mark.usefixtures("no_plots")
def test_other_photographs_in_the_same_folder_are_refused(clinic: Path, tmp_path: Path) -> None:
    options = {"networks": ("vgg16",), "folds": (1,), "epochs": (1,)}
    reproduce(clinic, tmp_path / "out", **options)
    fewer = tmp_path / "clinic"
    for path in sorted(clinic.rglob("*.png"))[:-1]:
        target = fewer / path.relative_to(clinic)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="another data set"):
        reproduce(fewer, tmp_path / "out", **options)


@pytest.mark.usefixtures("no_plots")
def test_without_photographs_none_is_written(clinic: Path, tmp_path: Path) -> None:
    options = {"networks": ("vgg16",), "folds": (1,), "epochs": (1,), "protocols": (Protocol.PUBLISHED,)}
    reproduce(clinic, tmp_path, **options)
    assert {path.name for path in (tmp_path / "figures").glob("*.jpg")} == {"figure_2.jpg", "figure_4.jpg"}
    reproduce(clinic, tmp_path, photographs=False, **options)
    assert not list((tmp_path / "figures").glob("*.jpg"))
    assert "image/jpeg" not in (tmp_path / "report.html").read_text()
    assert "Figure 4: photographs are left out" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "tables" / "figure_4_results.csv").exists()


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("protocol", list(Protocol))
def test_each_protocol_alone_has_its_report(clinic: Path, tmp_path: Path, protocol: Protocol) -> None:
    experiment = reproduce(
        clinic,
        tmp_path,
        networks=("vgg16",),
        folds=(1,),
        epochs=(1,),
        protocols=(protocol,),
        preparations=(Preparation.COLOUR,),
    )
    assert {key[0] for key in experiment.results()} == {protocol}
    assert {row["protocol"] for row in rows(tmp_path, "means")} == {protocol}
    assert (tmp_path / "figures" / "figure_4.jpg").exists()


@pytest.mark.usefixtures("no_plots")
def test_a_partial_start_is_said_wherever_its_numbers_stand(clinic: Path, tmp_path: Path) -> None:
    reproduce(clinic, tmp_path, Memory(share=0.37), networks=("resnetv2_50",), folds=(1,), epochs=(1,))
    said = "ImageNet weights for 37%, the rest random"
    for table in ("table_4_published", "table_4_leaking", "table_4_honest", "means", "protocols", "leaks", "stages"):
        assert {row["start"] for row in rows(tmp_path, table)} == {said}, table
    text = (tmp_path / "report.md").read_text()
    assert f"ResNet50V2 ({said})" in text
    assert f"from {said};" in first_paragraph(tmp_path)


@pytest.mark.usefixtures("no_plots")
def test_honest_training_is_canonical_cut_and_validated_apart(clinic: Path, tmp_path: Path) -> None:
    trainer = Memory()
    reproduce(clinic, tmp_path, trainer, networks=("mobilenetv2_100",), folds=(1,), epochs=(1,))
    published, honest, gaussian = trainer.tasks
    assert not published.recipe.match_crops
    assert honest.recipe.match_crops
    assert not np.array_equal(published.photos[0], honest.photos[0])
    assert not np.array_equal(published.photos[0], gaussian.photos[0])
    assert np.array_equal(published.fold.train, gaussian.fold.train)
    assert not np.isin(honest.fold.validation, honest.fold.train).any()
    assert len({task.identity for task in trainer.tasks}) == 3
