"""`retigrade grade` on DICOM: the same grades as of the pictures within, and one sentence where it cannot read them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import uid

from dicom_files import compressed, jpeg, photograph, save, with_jpeg
from retigrade.arrays import Pixels
from retigrade.cli import main, photographs
from retigrade.grader import load
from retigrade.icdr import Grade, Status
from retigrade.inputs import expand
from retigrade.synthetic import draw_eye


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return draw_eye(grade=Grade.MODERATE, size=512, rng=np.random.default_rng(2)).pixels


def test_probabilities_of_jpeg_and_dicom_are_identical(tmp_path: Path, pixels: Pixels) -> None:
    data = jpeg(pixels)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    (tmp_path / "a.jpg").write_bytes(data)
    save(tmp_path / "b.dcm", with_jpeg(pixels, data))
    save(tmp_path / "c.dcm", photograph(decoded))
    save(tmp_path / "d.dcm", compressed(photograph(decoded), uid.JPEG2000Lossless))
    first, *others = load().grade_many(photographs.expand_all([tmp_path]).items)
    assert first.status is Status.GRADED
    for other in others:
        assert other.probabilities is not None
        assert first.probabilities is not None
        assert other.probabilities.tolist() == first.probabilities.tolist()
    assert {grading.subject.patient for grading in others} == {"P001"}
    assert others[0].acquisition.device == "Maker Camera 7"


def test_command(tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    save(folder / "1.2.3", photograph(np.stack([pixels, pixels])))
    save(folder / "report.dcm", photograph(pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", PixelData=None))
    save(folder / "short.dcm", photograph(pixels, PixelData=b"\0\0"))
    (folder / "notes.txt").write_text("no picture")
    assert main(["grade", str(folder), "--format", "jsonl", "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [(Path(row["path"]).name, row["status"]) for row in rows] == [
        ("1.2.3#1", "graded"),
        ("1.2.3#2", "graded"),
        ("report.dcm", "not_fundus"),
        ("short.dcm", "error"),
    ]
    assert (rows[0]["patient"], rows[0]["eye"], rows[0]["date"]) == ("P001", "right", "2024-05-02")
    assert (rows[0]["device"], rows[0]["field_of_view"], rows[0]["pixel_spacing"]) == (
        "Maker Camera 7",
        45.0,
        [0.006, 0.006],
    )
    assert "notes.txt" in captured.err
    assert sorted(path.name for path in (tmp_path / "out/heat").iterdir())


def test_without_the_extra_it_is_one_sentence(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.dcm", photograph(pixels))
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    assert main(["grade", str(path), "--format", "jsonl"]) == 1
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["status"] == "error"
    (reason,) = row["reasons"]
    assert reason.startswith("a.dcm: a DICOM file, and the packages that read those are not installed; install ")
    assert [item.name for item in expand([path]).items] == ["a.dcm"]
