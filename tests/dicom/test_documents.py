"""Structured report and secondary capture: what they say, where they lie, and that validators find no fault."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_files import STUDY, photograph, save
from gradings import graded, refused
from retigrade.arrays import Pixels
from retigrade.cli import main
from retigrade.dicom.output import DicomWriter, documents_of
from retigrade.dicom.photograph import check_studies, list_dicom
from retigrade.errors import UnreadablePhoto
from retigrade.icdr import Grade, Status
from retigrade.inputs import Input
from retigrade.output.illustrate import Illustrated
from retigrade.output.rows import as_row
from retigrade.synthetic import draw_eye

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
BUNDLE = "retigrade-mobilenetv2@0123456789ab"


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return draw_eye(grade=Grade.MODERATE, size=160, rng=np.random.default_rng(2)).pixels


def documents(item: Input, made_of: Illustrated) -> dict[str, Dataset]:
    """The documents of one verdict, read back."""
    return {kind: pydicom.dcmread(io.BytesIO(data)) for kind, data in documents_of(item, made_of).items()}


def item_of(path: Path) -> Input:
    return next(iter(list_dicom(path, path.name)))


def verdict(pixels: Pixels, **changes: Any) -> Illustrated:
    grading = graded("a.dcm", bundle=BUNDLE, prediction_set=(Grade.MODERATE, Grade.SEVERE), **changes)
    picture = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    return Illustrated(row=as_row(grading), picture=picture)


def leaves(dataset: Dataset) -> Iterator[Dataset]:
    for child in dataset.get("ContentSequence", []):
        yield child
        yield from leaves(child)


def said(report: Dataset) -> dict[str, list[str]]:
    """Every named value of a report, as text."""
    found: dict[str, list[str]] = {}
    for leaf in leaves(report):
        name = leaf.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in leaf else ""
        match leaf.ValueType:
            case "CODE":
                value = leaf.ConceptCodeSequence[0].CodeValue
            case "NUM":
                value = str(leaf.MeasuredValueSequence[0].NumericValue)
            case "TEXT":
                value = leaf.TextValue
            case "UIDREF":
                value = leaf.UID
            case "IMAGE":
                value = leaf.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            case _:
                continue
        found.setdefault(name, []).append(value)
    return found


def test_report_says_the_verdict(tmp_path: Path, pixels: Pixels) -> None:
    made = documents(item_of(save(tmp_path / "a.dcm", photograph(pixels))), verdict(pixels))
    values = said(made["sr"])
    assert values["Finding"] == ["4855003"]
    assert values["Severity"] == ["312904009"]
    assert values["Stage in the prediction set"] == ["312904009", "312905005"]
    assert values["Probability of stage 2 (moderate)"] == ["0.6"]
    assert values["Referable diabetic retinopathy"] == ["373066001"]
    assert values["Image Quality Rating"] == ["0.9123"]
    assert values["Laterality"] == ["24028007"]
    assert values["Algorithm Parameters"] == [f"bundle {BUNDLE}"]
    assert values["Source of Measurement"] == [f"{STUDY}.2.1"]
    assert values["Comment"][0].startswith("Research use only")
    assert values["Comment"][1:] == ["dark rim", "low confidence: a second reader is advised"]


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_lies_in_the_study_of_the_patient_in_a_series_of_its_own(tmp_path: Path, pixels: Pixels, kind: str) -> None:
    source = photograph(pixels, PatientName="Müller^Jürgen", PatientID="Ä-1")
    read_back = documents(item_of(save(tmp_path / "a.dcm", source)), verdict(pixels))[kind]
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert str(read_back[keyword].value) == str(source[keyword].value)
    assert read_back.SeriesInstanceUID != source.SeriesInstanceUID
    assert read_back.SOPInstanceUID.is_valid


@pytest.mark.parametrize(
    ("keyword", "stated", "written"),
    [
        ("StudyTime", "1234", "1234"),
        ("StudyTime", "12", "12"),
        ("StudyTime", "123456.789", "123456"),
        ("StudyTime", "12345", ""),
        ("StudyTime", "2460", ""),
        ("StudyDate", "20241101", "20241101"),
        ("StudyDate", "2024111", ""),
        ("PatientBirthDate", "19601", ""),
        ("PatientID", "12  34", "12  34"),
    ],
)
def test_is_written_as_stated_or_not_at_all(
    tmp_path: Path, pixels: Pixels, keyword: str, stated: str, written: str
) -> None:
    dataset = photograph(pixels)
    dataset.add(pydicom.DataElement(keyword, "LO", stated))
    item = item_of(save(tmp_path / "a.dcm", dataset))
    for document in documents(item, verdict(pixels)).values():
        assert str(document[keyword].value or "") == written


def test_patient_that_is_several_is_not_filed(tmp_path: Path, pixels: Pixels) -> None:
    item = item_of(save(tmp_path / "a.dcm", photograph(pixels, PatientID="123\\456")))
    with pytest.raises(UnreadablePhoto, match="its Patient ID names several patients, nothing can be filed"):
        documents_of(item, verdict(pixels))


def save_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_second_run_makes_the_same_identifiers(tmp_path: Path, pixels: Pixels) -> None:
    item = item_of(save(tmp_path / "a.dcm", photograph(pixels)))
    once, again = documents(item, verdict(pixels)), documents(item, verdict(pixels))
    for kind in ("sr", "sc"):
        assert once[kind].SOPInstanceUID == again[kind].SOPInstanceUID
        assert once[kind].SeriesInstanceUID == again[kind].SeriesInstanceUID
    other = documents(item, verdict(pixels, grade=Grade.SEVERE))
    assert other["sr"].SOPInstanceUID != once["sr"].SOPInstanceUID
    assert len({document.SOPInstanceUID for document in (*once.values(), *other.values())}) == 4


def test_capture_holds_the_picture_and_says_truly_what_is_burned_in(tmp_path: Path, pixels: Pixels) -> None:
    shown = verdict(pixels)
    unnamed = replace(shown, row=replace(shown.row, path=""))  # as the node draws it
    for made, stated, flag in ((unnamed, "NO", "NO"), (unnamed, "YES", "YES"), (shown, "NO", "YES")):
        source = photograph(pixels, BurnedInAnnotation=stated)
        capture = documents(item_of(save(tmp_path / "a.dcm", source)), made)["sc"]
        assert capture.BurnedInAnnotation == flag
        assert capture.LossyImageCompression == "01"
        assert np.abs(capture.pixel_array.astype(int) - pixels).mean() < 2
        assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.2.1"


def test_frame_is_named(tmp_path: Path, pixels: Pixels) -> None:
    path = save(tmp_path / "a.dcm", photograph(np.stack([pixels, pixels])))
    first, second = (documents(item, verdict(pixels)) for item in list_dicom(path, "a.dcm"))
    assert second["sc"].SourceImageSequence[0].ReferencedFrameNumber == 2
    assert first["sr"].SOPInstanceUID != second["sr"].SOPInstanceUID


def test_ungradable_has_a_report_without_severity(tmp_path: Path, pixels: Pixels) -> None:
    row = as_row(refused("a.dcm", Status.UNGRADABLE, "too dark"))
    made = documents(item_of(save(tmp_path / "a.dcm", photograph(pixels))), Illustrated(row=row))
    assert list(made) == ["sr"]
    values = said(made["sr"])
    assert values["Verdict on the photograph"] == ["UNGRADABLE"]
    assert "Severity" not in values
    assert "too dark" in values["Comment"]


def test_what_cannot_be_filed_is_left_out_and_named(tmp_path: Path, pixels: Pixels) -> None:
    write = DicomWriter()
    mixed = [
        item_of(save(tmp_path / name, photograph(pixels, number=number, PatientID=name)))
        for number, name in enumerate(("b.dcm", "c.dcm"))
    ]
    items = (
        item_of(save(tmp_path / "a.dcm", photograph(pixels, StudyInstanceUID=None))),
        check_studies(mixed)[0],
        Input(tmp_path / "eye.jpg", "eye.jpg"),
    )
    assert [list(write(item, verdict(pixels))) for item in items] == [[], [], []]
    assert [sentence.split(":")[0] for sentence in write.left_out] == ["a.dcm", "b.dcm"]
    assert "no valid StudyInstanceUID" in write.left_out[0]


VALIDATORS = {"sr": (("dsrdump",), ("dciodvfy",), ("dcmdump",)), "sc": (("dciodvfy",), ("dcmdump",))}


@pytest.mark.parametrize(("kind", "command"), [(kind, command) for kind in VALIDATORS for command in VALIDATORS[kind]])
@pytest.mark.parametrize("elements", [{}, {"ImageLaterality": None, "PatientBirthDate": "", "AccessionNumber": None}])
def test_validators_find_no_error(
    tmp_path: Path, pixels: Pixels, kind: str, command: tuple[str, ...], elements: dict[str, Any]
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: dcmtk, dicom3tools)")
    item = item_of(save(tmp_path / "a.dcm", photograph(pixels, **elements)))
    path = save_bytes(tmp_path / "out.dcm", documents_of(item, verdict(pixels))[kind])
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("E:", "Error"))] == []


def test_command_writes_both(tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.dcm", photograph(np.kron(pixels, np.ones((3, 3, 1), np.uint8))))
    out = tmp_path / "out"
    assert main(["grade", str(path), "--out", str(out), "--dicom", "--fhir", "--format", "csv"]) == 0
    assert sorted(file.name for file in (out / "dicom").iterdir()) == ["a.dcm.sc.dcm", "a.dcm.sr.dcm"]
    (bundle,) = (out / "fhir").iterdir()
    assert f"urn:oid:{STUDY}" in bundle.read_text()
    assert json.loads(bundle.read_text())["type"] == "transaction"
    assert main(["grade", str(path), "--dicom"]) == 2
    assert "--out DIR" in capsys.readouterr().err


def test_pseudonym_hides_the_patient_everywhere(
    tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
) -> None:
    large = np.kron(pixels, np.ones((3, 3, 1), np.uint8))
    wide = np.concatenate([large, np.zeros((480, 200, 3), np.uint8)], axis=1)
    cv2.putText(wide, "DOE JANE", (490, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (230, 230, 230), 2)
    path = save(tmp_path / "a.dcm", photograph(wide, ReferringPhysicianName="House^Greg", PatientID="MRN-77"))
    key, out = tmp_path / "key", tmp_path / "out"
    key.write_text("a secret that nobody guesses")
    command = ["grade", str(path), "--out", str(out), "--dicom", "--fhir", "--pseudonym", str(key), "--format", "jsonl"]
    assert main(command) == 0
    row = json.loads(capsys.readouterr().out)
    assert len(row["patient"]) == 16
    assert any("burned in" in reason for reason in row["reasons"])
    written = [pydicom.dcmread(file) for file in (out / "dicom").iterdir()]
    assert len(written) == 2
    for document in written:
        assert document.PatientID == row["patient"]
        assert document.PatientIdentityRemoved == "YES"
        assert not document.StudyDate
    for file in [*(out / "dicom").iterdir(), *(out / "fhir").iterdir(), out / "gradings.jsonl"]:
        data = file.read_bytes()
        for secret in (b"MRN-77", b"House", b"Doe^", STUDY.encode()):
            assert secret not in data
    key.write_text("short")
    assert main(command) == 2
