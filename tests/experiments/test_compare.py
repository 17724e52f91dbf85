from __future__ import annotations

import csv
from pathlib import Path

import pytest

import retigrade
from retigrade.cli import main
from retigrade.errors import DataError
from retigrade.experiments.compare import BETTER, NOISE, WORSE
from run_folders import rows, write_run


def verdicts(found: retigrade.experiments.compare.Comparison) -> dict[str, str]:
    return {each.metric: each.verdict for each in found.runs[1].differences}


def test_a_run_compared_with_itself_differs_by_nothing(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, rows()) for name in ("a", "b"))
    found = retigrade.compare([first, second], rounds=200)
    assert (found.photographs, found.groups) == (60, 30)
    assert set(verdicts(found).values()) == {NOISE}
    assert all(each.estimate.value == 0 for each in found.runs[1].differences)


def test_a_much_better_run_is_better_and_a_shuffled_one_is_noise(tmp_path: Path) -> None:
    first = write_run(tmp_path / "weak", rows(right=0.3))
    better = write_run(tmp_path / "strong", rows(right=0.95))
    same = write_run(tmp_path / "same", rows(right=0.3, seed=5))
    found = verdicts(retigrade.compare([first, better], rounds=400))
    assert (found["accuracy"], found["quadratic_kappa"], found["brier"]) == (BETTER, BETTER, BETTER)
    assert verdicts(retigrade.compare([better, first], rounds=400))["accuracy"] == WORSE
    assert verdicts(retigrade.compare([first, same], rounds=400))["accuracy"] == NOISE


def test_the_difference_is_that_of_the_figures(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", rows(right=0.5)), write_run(tmp_path / "b", rows(right=0.8, seed=3))
    one, other = retigrade.compare([first, second], rounds=50).runs
    for each in other.differences:
        expected = other.figures[each.metric].number - one.figures[each.metric].number
        assert each.estimate.number == pytest.approx(expected)


def test_each_data_set_is_compared_by_itself(tmp_path: Path) -> None:
    """One run is better in the east alone."""
    east, west = rows(60, seed=1, right=0.3, source="east"), rows(120, seed=2, right=0.6, source="west")[60:]
    first = write_run(tmp_path / "first", east + west)
    second = write_run(tmp_path / "second", rows(60, seed=1, right=0.95, source="east") + west)
    found = retigrade.compare([first, second], rounds=200)
    parts = {part.data_set: part for part in found.runs[1].parts}
    assert {name: part.photographs for name, part in parts.items()} == {"all": 120, "east": 60, "west": 60}
    verdict = {name: {each.metric: each.verdict for each in part.differences} for name, part in parts.items()}
    assert (verdict["east"]["accuracy"], verdict["west"]["accuracy"]) == (BETTER, NOISE)
    alone = retigrade.compare([write_run(tmp_path / str(n), east) for n in range(2)], rounds=200)
    assert alone.runs[0].figures["accuracy"] == found.runs[0].parts[1].figures["accuracy"]
    assert [row[:3] for row in found.figures_table().rows][2:4] == [("east", 60, "first"), ("east", 60, "second")]


def test_only_common_photographs_are_compared_and_it_is_said(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", rows(60)), write_run(tmp_path / "b", rows(40))
    found = retigrade.compare([first, second], rounds=50)
    assert found.photographs == 40
    assert any("Only the 40 photographs" in remark for remark in found.remarks)


def test_the_command_writes_tables_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path / "a", rows())
    second = write_run(tmp_path / "b", rows(right=0.9), recipe={"lr": 1e-4})
    out = tmp_path / "out"
    assert main(["compare", str(first), str(second), "--out", str(out), "--rounds", "50"]) == 0
    assert "noise" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"compare.html", "compare.md", "figures.csv", "differences.csv"}
    with (out / "differences.csv").open(newline="") as file:
        assert {row["verdict"] for row in csv.DictReader(file)} <= {NOISE, BETTER, WORSE}
    assert "recipe: lr" in (out / "compare.md").read_text()


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("one", "at least two runs"),
        ("running", "is not finished"),
        ("absent", "not the folder of a training run"),
        ("apart", "no photograph in common"),
        ("grades", "has grade 0 in one run and 1 in another"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, sentence: str
) -> None:
    first, second = write_run(tmp_path / "a", rows()), tmp_path / "b"
    if case == "running":
        write_run(second, rows(), status="running")
    elif case == "apart":
        write_run(second, rows(1, sha256="e" * 64))
    elif case == "grades":
        write_run(second, rows(1, target=1))
    runs = [first] if case == "one" else [first, second]
    assert main(["compare", *map(str, runs)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_predictions_that_were_edited_are_refused(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, rows()) for name in ("a", "b"))
    path = second / "predictions.csv"
    path.write_text(path.read_text().replace(",0.6,", ",six,", 1))
    with pytest.raises(DataError, match="not a prediction"):
        retigrade.compare([first, second], rounds=10)
