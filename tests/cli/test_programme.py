"""A screening programme through the command: who is in the pictures, visits, change, what is said of bad lists."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retigrade.cli import main
from retigrade.icdr import Grade
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx", retest_noise=0.5)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients: both eyes at two visits, and one eye at one."""
    folder = tmp_path_factory.mktemp("clinic")
    for patient, seed, name in (("P1", 3, "OD"), ("P1", 4, "OS"), ("P2", 5, "OD")):
        eye = draw_eye(grade=Grade.NONE, rng=np.random.default_rng(seed), size=320).pixels
        for year in (2023, 2024) if patient == "P1" else (2024,):
            moved = cv2.warpAffine(eye, np.array([[1.0, 0, year - 2023], [0, 1.0, 4.0]]), (320, 320))
            cv2.imwrite(str(folder / f"{patient}_{name}_{year}-05-02.jpg"), cv2.cvtColor(moved, cv2.COLOR_RGB2BGR))
    return folder


def grade(*arguments: str | Path) -> int:
    return main(["grade", *map(str, arguments), "--format", "jsonl"])


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


def page_data(out: Path) -> dict[str, Any]:
    page = (out / "report.html").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    return loaded


def test_names_give_patients_visits_change_and_aligned_photographs(clinic: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert grade(clinic, "--bundle", bundle, "--out", out, "--name-pattern", "patient-eye-date") == 0
    visits = table(out / "patients.csv")
    assert [(row["patient"], row["date"], row["right_status"], row["left_status"]) for row in visits] == [
        ("P1", "2023-05-02", "graded", "graded"),
        ("P1", "2024-05-02", "graded", "graded"),
        ("P2", "2024-05-02", "graded", "missing"),
    ]
    assert visits[2]["action"] in ("refer", "rephotograph")
    aligned = {path.name for path in (out / "aligned").iterdir()}
    assert aligned == {"P1_OD_2024-05-02.jpg", "P1_OS_2024-05-02.jpg"}
    data = page_data(out)
    assert [(pair["patient"], pair["date"], pair["file"]) for pair in data["comparisons"]] == [
        ("P1", "2024-05-02", f"aligned/P1_{name}_2024-05-02.jpg") for name in ("OD", "OS")
    ]
    assert {line["words"] for line in data["timelines"]["P1"]} == {"unchanged"}


def test_a_dry_run_says_who_is_in_the_pictures_and_grades_nothing(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grade(clinic, "--dry-run", "--out", tmp_path / "out", "--name-pattern", "patient-eye-date") == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert [(row["patient"], row["eye"], row["date"]) for row in rows][:2] == [
        ("P1", "right", "2023-05-02"),
        ("P1", "right", "2024-05-02"),
    ]
    assert "2 patients; 0 of their photographs of an unknown eye; 0 of nobody known" in printed.err
    assert not (tmp_path / "out").exists()


def test_a_date_that_cannot_be_read_is_said_in_the_row_and_the_visit(
    clinic: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing, out = tmp_path / "list.csv", tmp_path / "out"
    first, second, third = (clinic / f"P1_{name}.jpg" for name in ("OD_2023-05-02", "OD_2024-05-02", "OS_2024-05-02"))
    listing.write_text(
        f"file,patient id,laterality,visit date\n{first},P1,R,03/04/2023\n{second},P1,R,05/04/2024\n"
        f"{third},P1,L,2024-05-02\n"
    )
    assert grade(listing, "--bundle", bundle, "--out", out) == 0
    unread = [row for row in table(out / "gradings.csv") if "date unknown: date '0" in row["reasons"]]
    assert [Path(row["path"]).name for row in unread] == [first.name, second.name]
    undated, dated = table(out / "patients.csv")
    assert (undated["date"], dated["date"]) == ("", "2024-05-02")
    assert undated["second_reader"] == "true"
    for words in ("'03/04/2023' can be read", "'05/04/2024' can be read", "2 photographs are taken together"):
        assert words in undated["reasons"]
    assert "2 cells are taken as unknown: line 2: date '03/04/2023'" in capsys.readouterr().err


def test_one_file_of_two_patients_is_an_error_that_names_both(clinic: Path, bundle: Path, tmp_path: Path) -> None:
    photo = clinic / "P2_OD_2024-05-02.jpg"
    (tmp_path / "list.csv").write_text(f"path,patient\n{photo},P1\n{photo},P2\n")
    assert grade(tmp_path / "list.csv", "--bundle", bundle, "--out", tmp_path / "out") == 1
    rows = table(tmp_path / "out" / "gradings.csv")
    assert [row["status"] for row in rows] == ["error", "error"]
    assert "listed for the patients P1 and P2" in rows[0]["reasons"]
    assert not (tmp_path / "out" / "patients.csv").exists()


def test_pseudonyms_leave_no_name_in_anything_that_is_written(clinic: Path, bundle: Path, tmp_path: Path) -> None:
    photo = clinic / "P2_OD_2024-05-02.jpg"
    (tmp_path / "eye.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "list.csv").write_text("path,patient,eye\neye.jpg,Ada Lovelace,OD\n")
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    out = tmp_path / "out"
    assert grade(tmp_path / "list.csv", "--bundle", bundle, "--out", out, "--pseudonym", tmp_path / "key") == 0
    texts = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert len(texts) >= 5
    assert not any(b"Lovelace" in text for text in texts)


def test_a_pattern_that_fits_nothing_stops_before_grading(
    clinic: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grade(clinic, "--bundle", bundle, "--name-pattern", "eyepacs") == 2
    assert "matches no name, for instance not 'P1_OD_2023-05-02.jpg'" in capsys.readouterr().err
