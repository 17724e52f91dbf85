"""One walker and one CSV reader for every command: what users point at, from `grade` to `train`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.cli import main
from retigrade.data.annotations import find_annotated
from retigrade.data.layouts import read_layouts
from retigrade.data.manifest import read_manifest
from retigrade.errors import DataError, UnreadablePhoto, UsageError
from retigrade.grading import Eye, Subject
from retigrade.icdr import Grade
from retigrade.inputs import describe_skipped, expand
from retigrade.synthetic import draw_eye
from tiny_bundle import write_tiny_bundle

UNREADABLE = {
    "u.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
    "v.avif": (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(100), "AVIF"),
    "w.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "JPEG 2000"),
    "x.gif": (b"GIF89a" + bytes(100), "GIF"),
    "named by nobody": (b"8BPS\0\1" + bytes(100), "Photoshop"),
    "y.jls": (b"\xff\xd8\xff\xf7" + bytes(100), "JPEG-LS"),
    "z.dcm": (bytes(128) + b"DICM" + bytes(100), "DICOM"),
}
SYSTEM = ("._eye.jpg", "__MACOSX/eye.jpg", ".ipynb_checkpoints/eye.jpg", ".DS_Store", "Thumbs.db", "desktop.ini")
SYSTEM += ("@eaDir/eye.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/old.jpg", "$RECYCLE.BIN/$R4X2.jpg", ".Trash-1000/a.jpg")
SYSTEM += ("System Volume Information/a.jpg", "lost+found/a.jpg", "THUMBS.DB", "@Recycle/a.jpg")


def encoded(seed: int, suffix: str = ".png") -> bytes:
    eye = draw_eye(grade=Grade.NONE, size=160, aspect=1.2, rng=np.random.default_rng(seed))
    return cv2.imencode(suffix, cv2.cvtColor(eye.pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture(scope="module")
def eye() -> Callable[[int], bytes]:
    made = {seed: encoded(seed) for seed in range(6)}
    return lambda seed: made[seed]


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def graded(tmp_path: Path, capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, dict[str, str], str]:
    """Exit code of `grade`, the status of each row by its path, and standard error."""
    bundle = write_tiny_bundle(tmp_path / "tiny.onnx")
    code = main(["grade", *map(str, paths), "--bundle", str(bundle), "--format", "csv", "--jobs", "1"])
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out, newline="")))
    return (
        code,
        {row["path"]: row["status"] if row["status"] != "error" else row["reasons"] for row in rows},
        captured.err,
    )


def test_content_decides_and_kinds_that_cannot_be_read_are_errors_that_name_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eye: Callable[[int], bytes]
) -> None:
    folder = tmp_path / "photos"
    photographs = ["a.png", "1.2.840.113619.2.55.3", "OP.1.3.12.2.1107", "e.jpg_large", "f.jfif", "g.jpe", "h", "i.dat"]
    for name in photographs:
        put(folder / name, eye(0))
    for name, (data, _) in UNREADABLE.items():
        put(folder / name, data)
    put(folder / "notes.txt", b"no picture")
    put(folder / "zeroed.jpg", bytes(500))
    code, rows, stderr = graded(tmp_path, capsys, folder)
    assert code == 1
    assert set(rows) == {str(folder / name) for name in (*photographs, *UNREADABLE, "zeroed.jpg")}
    for name in photographs:
        assert rows[str(folder / name)] in ("graded", "ungradable", "not_fundus")
    for name, (_, kind) in UNREADABLE.items():
        assert kind in rows[str(folder / name)]
    assert "not a picture in a format" in rows[str(folder / "zeroed.jpg")]
    assert "skipped 1 (not a picture file): notes.txt" in stderr


def test_system_entries_are_skipped_alike_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eye: Callable[[int], bytes]
) -> None:
    folder = tmp_path / "No_DR"
    put(folder / "eye.jpg", eye(0))
    for name in SYSTEM:
        put(folder / name, eye(1))
    code, rows, stderr = graded(tmp_path, capsys, folder)
    assert (code, list(rows)) == (0, [str(folder / "eye.jpg")])
    entries = len({name.partition("/")[0] for name in SYSTEM})
    assert f"skipped {entries} (hidden or system entry): " in stderr
    assert f" and {entries - 5} more" in stderr
    (sentence,) = describe_skipped(expand([folder]).skipped)
    put(tmp_path / "Mild" / "eye.png", eye(2))
    manifest = read_manifest(tmp_path)
    assert len(manifest) == 2
    assert f"{tmp_path.name}: {sentence.partition(':')[0]}" in " ".join(manifest.notes)


def test_training_takes_what_grading_takes(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    for number, name in enumerate(["1.2.840.1", "e.jpg_large", "f.jfif", "plain"]):
        put(tmp_path / "Severe" / name, eye(number))
    put(tmp_path / "Mild" / "w.jp2", UNREADABLE["w.jp2"][0])
    with pytest.raises(DataError, match=r"1 of 5 photographs cannot be used(.|\n)*w\.jp2: JPEG 2000"):
        read_manifest(tmp_path)
    manifest = read_manifest(tmp_path, skip_unreadable=True)
    assert [entry.path.name for entry in manifest.entries] == ["1.2.840.1", "e.jpg_large", "f.jfif", "plain"]


def test_training_stops_before_it_begins_with_a_list_of_all_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eye: Callable[[int], bytes]
) -> None:
    pytest.importorskip("torch")
    black = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    for number, name in enumerate(("No_DR", "Mild")):
        put(tmp_path / "data" / name / "eye.png", eye(number))
        put(tmp_path / "data" / name / f"black{number}.png", black)
    put(tmp_path / "data" / "Mild" / "broken.jpg", b"no picture")
    assert main(["train", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--random-start"]) == 2
    stderr = capsys.readouterr().err
    assert "3 of 5 photographs cannot be used; fix them, or leave them out with --skip-unreadable" in stderr
    for name in ("No_DR/black0.png: no retinal disc", "Mild/black1.png: no retinal disc", "Mild/broken.jpg: not a"):
        assert f"{tmp_path}/data/{name}" in stderr
    manifest = read_manifest(tmp_path / "data", size=224, skip_unreadable=True)
    assert [entry.path.name for entry in manifest.entries] == ["eye.png", "eye.png"]
    assert [item.path.name for item in manifest.unusable] == ["black1.png", "black0.png"]


def test_annotated_photographs_are_found_by_content_too(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    put(tmp_path / "photos" / "1.2.840.1", eye(0))
    put(tmp_path / "photos" / ".DS_Store", eye(0))
    put(tmp_path / "masks" / "1.2.840.1.png", eye(0))
    assert find_annotated(tmp_path) == ((tmp_path / "photos" / "1.2.840.1", tmp_path / "masks" / "1.2.840.1.png"),)


LISTS = {
    "plain": "path,grade\nimages/eye0.png,0\nimages/eye3.png,3\n",
    "backslash": "path,grade\nimages\\eye0.png,0\nimages\\eye3.png,3\n",
    "composed": "path,grade\nimages/\u00e90.png,0\nimages/\u00e93.png,3\n",
    "decomposed": "path,grade\nimages/e\u03010.png,0\nimages/e\u03013.png,3\n",
    "header": " Path ;GRADE\nimages/eye0.png;0\nimages/eye3.png;3,0\n",
    "tabs": "grade\tpath\n0\timages/eye0.png\n3\timages/eye3.png\n",
    "case": "path,grade\nImages/Eye0.PNG,0\nIMAGES/EYE3.png,3\n",
    "zeros": "path,grade\nimages/7.png,0\nimages/8.png,3\n",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_as_people_see_the_files(tmp_path: Path, eye: Callable[[int], bytes], name: str, encoding: str) -> None:
    for stem in ("eye0", "eye3", "e\u03010", "e\u03013", "007", "008"):
        put(tmp_path / "images" / f"{stem}.png", eye(0))
    path = put(tmp_path / "list.csv", LISTS[name].encode(encoding))
    inputs = expand([path])
    assert all(item.path.is_file() for item in inputs.items)
    manifest = read_manifest(path)
    assert [entry.path for entry in manifest.entries] == [item.path for item in inputs.items]
    assert manifest.grades.tolist() == [0, 3]
    changed = {
        "case": "differ in upper and lower case",
        "zeros": "lost their leading zeros: images/7.png taken for 007.png",
    }
    assert (changed.get(name, "-") in " ".join(inputs.notes)) == (name in changed)
    assert inputs.notes == tuple(note for note in manifest.notes if "no photographs of" not in note)


def test_when_all_is_missing_the_first_path_is_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path / "missing.csv", b"path,grade\npictures/eye0.png,0\npictures/eye3.png,3\n")
    sentence = f"the first was looked for as {tmp_path}/pictures/eye0.png: there is no folder {tmp_path}/pictures"
    code, rows, stderr = graded(tmp_path, capsys, path)
    assert code == 1
    assert list(rows.values()) == ["eye0.png: no such file", "eye3.png: no such file"]
    assert sentence in stderr
    assert main(["check", str(path)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "header", "extra"),
    [
        ("retinopathy_solution.csv", "image,level,Usage", ",Private"),
        ("train_1.csv", "id_code,diagnosis", ""),
        ("labels (2).csv", "Image Name,Retinopathy Grade", ""),
        ("my own.tsv", "id_code\tdiagnosis", ""),
    ],
)
def test_label_files_are_recognised_by_their_columns(
    tmp_path: Path, eye: Callable[[int], bytes], name: str, header: str, extra: str
) -> None:
    separator = "\t" if "\t" in header else ","
    for grade in range(5):
        put(tmp_path / "images" / f"eye{grade}.png", eye(grade))
    rows = "".join(f"eye{grade}{separator}{grade}{extra}\n" for grade in range(5))
    put(tmp_path / name, f"{header}\n{rows}".encode())
    put(tmp_path / "sampleSubmission.csv", b"id_code,diagnosis\neye0,4\n")
    put(tmp_path / "test.csv", b"id_code,diagnosis\nelsewhere,4\n")
    put(tmp_path / "gradings.csv", b"path,status,grade,bundle\nimages/eye0.png,graded,4,x\n")
    manifest = read_manifest(tmp_path)
    assert {entry.path.stem: int(entry.grade) for entry in manifest.entries} == {f"eye{g}": g for g in range(5)}
    assert any("test.csv" in note and "none of its 1 photographs" in note for note in manifest.notes)


def test_a_label_csv_without_one_good_row_is_one_sentence(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    put(tmp_path / "a.png", eye(0))
    put(tmp_path / "labels.csv", b"image,level\na,1,9\n")
    with pytest.raises(DataError, match=r"1 of 1 photographs cannot be used(.|\n)*line 2 has 3 cells"):
        read_manifest(tmp_path)
    put(tmp_path / "more.csv", b"image,level\na,7\n")
    with pytest.raises(DataError, match=r"more than one CSV with grades \(labels\.csv, more\.csv\)"):
        read_manifest(tmp_path)


PIECES = (b'"', b"\0", b",", b"\n", b"\r", b";", b"\xff", b"..", b"/", b"\\", b'""', b"\xef\xbb\xbf", b"=", b"x" * 300)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_list_ends_in_anything_but_inputs_or_one_sentence(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in ("a.png", "007.png"):
        put(tmp_path / "images" / name, b"\x89PNG\r\n\x1a\n")
    lists = (
        b'path,grade,patient,eye,date\nimages/a.png,0,p1,OD,2024-05-02\nimages\\a.png,0,p1,l,\n"images/7.png",3,,,\n',
        "id_code;diagnosis\n7;3\na;0\né;1\n".encode("utf-16"),
        b'Image name,Retinopathy grade,,\n"a",0,,\n007,3,,\n',
    )
    path = tmp_path / "list.csv"
    for _ in range(60):
        data = lists[rng.integers(len(lists))]
        for _ in range(rng.integers(4)):
            at, length = rng.integers(len(data) + 1), rng.integers(10)
            piece = PIECES[rng.integers(len(PIECES))] if rng.random() < 0.5 else rng.bytes(1)
            data = data[:at] + (b"" if rng.random() < 0.3 else piece) + data[at + rng.integers(2) * length :]
        put(path, data)
        for read in (lambda: expand([path]), lambda: read_layouts(path), lambda: read_layouts(tmp_path)):
            sentence = ""
            try:
                read()
            except (DataError, UsageError) as error:
                sentence = str(error)
            assert "\n" not in sentence


def test_gradings_are_no_labels(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    put(tmp_path / "eye.png", eye(0))
    path = put(tmp_path / "gradings.csv", b"path,status,grade,bundle\neye.png,graded,4,x\n")
    with pytest.raises(DataError, match="`retigrade grade` wrote, not labels"):
        read_manifest(path)
    with pytest.raises(DataError, match="no layout recognised"):
        read_manifest(tmp_path)


def test_excels_lost_zeros_in_names(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    for name in ("007.png", "008.png", "0123.png", "123.png"):
        put(tmp_path / "train_images" / name, eye(0))
    path = put(tmp_path / "train.csv", b"id_code,diagnosis\n7,1\n8,2\n123,3\n")
    manifest = read_manifest(tmp_path)
    assert {entry.path.name: int(entry.grade) for entry in manifest.entries} == {
        "007.png": 1,
        "008.png": 2,
        "123.png": 3,
    }
    assert any("2 names have lost their leading zeros: 7 taken for 007.png, 8 taken" in note for note in manifest.notes)
    put(tmp_path / "train_images" / "07.png", eye(1))
    path.write_bytes(b"id_code,diagnosis\n7,1\n123,3\n")
    with pytest.raises(DataError, match=r"leading zeros lost\? there is 007\.png, 07\.png"):
        read_manifest(tmp_path)


def test_class_folders_named_by_number(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    for grade in range(5):
        put(tmp_path / "clinic" / "train" / str(grade) / f"{grade}.png", eye(grade))
    manifest = read_manifest(tmp_path / "clinic")
    assert manifest.grades.tolist() == [0, 1, 2, 3, 4]
    assert "clinic: the folders 0, 1, 2, 3, 4 are taken for the grades" in manifest.notes
    for patient in ("1", "2"):
        put(tmp_path / "patients" / patient / "a.png", eye(0))
    with pytest.raises(DataError, match="no layout recognised"):
        read_manifest(tmp_path / "patients")
    put(tmp_path / "patients" / "labels.csv", b"path,grade\n1/a.png,4\n2/a.png,0\n")
    assert read_manifest(tmp_path / "patients").grades.tolist() == [4, 0]


@pytest.mark.parametrize(("name", "grade"), [("0 - No DR", 0), ("Mild_NPDR", 1), ("3-severe", 3), ("PDR", 4)])
def test_class_folders_by_other_names(tmp_path: Path, eye: Callable[[int], bytes], name: str, grade: int) -> None:
    put(tmp_path / name / "a.png", eye(0))
    assert read_manifest(tmp_path).grades.tolist() == [grade]


def test_whose_eye_a_row_speaks_of(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    put(tmp_path / "eye.png", eye(0))
    rows = (
        b"p1,OD,2024-05-02,eye.png\np1,l,20240502,eye.png\np2,,,eye.png\n"
        b"p3,middle,03/04/2024,eye.png\np4,RE,2024-05-02 10:31,eye.png\n"
    )
    path = put(tmp_path / "list.csv", b"patient,eye,date,path\n" + rows)
    inputs = expand([path])
    day = date(2024, 5, 2)
    assert [item.subject for item in inputs.items] == [
        Subject("p1", Eye.RIGHT, day),
        Subject("p1", Eye.LEFT, day),
        Subject("p2"),
        Subject("p3"),
        Subject("p4", Eye.RIGHT, day),
    ]
    (note,) = inputs.notes
    assert "2 cells are taken as unknown: line 5: eye 'middle' is neither" in note
    assert "line 5: date '03/04/2024' can be read with the day or the month first" in note


def test_labels_know_the_date_too(tmp_path: Path, eye: Callable[[int], bytes]) -> None:
    for number in range(2):
        put(tmp_path / f"{number}.png", eye(number))
    path = put(tmp_path / "l.csv", b"path,grade,eye,date\n0.png,0,od,2024-05-02\n1.png,1,?,2.5.24\n")
    manifest = read_manifest(path)
    assert [(entry.eye, entry.date) for entry in manifest.entries] == [(Eye.RIGHT, date(2024, 5, 2)), (None, None)]
    assert any("2 cells are taken as unknown" in note for note in manifest.notes)


def test_one_rows_trouble_costs_that_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eye: Callable[[int], bytes]
) -> None:
    put(tmp_path / "eye.png", eye(0))
    long, deep = "x" * 300 + "/eye.png", "/".join(["d" * 200] * 30) + "/eye.png"
    rows = ["eye.png,0", "a\0b.png,1", f"{long},2", f"{deep},3", '"eye.png,4', *["eye.png,0"] * 20]
    path = put(tmp_path / "list.csv", "\n".join(["path,grade", *rows]).encode())
    code, by_path, _ = graded(tmp_path, capsys, path)
    assert code == 1
    assert len(expand([path]).items) == 25
    reasons = [reason for reason in by_path.values() if reason not in ("graded", "ungradable", "not_fundus")]
    assert len(reasons) == 4
    assert "null byte" in reasons[0]
    assert "too long" in reasons[1]
    assert "too long" in reasons[2]
    assert "line 6 has a quote that is not closed" in reasons[3]
    out = tmp_path / "out"
    bundle = str(tmp_path / "tiny.onnx")
    assert main(["grade", str(path), "--bundle", bundle, "--out", str(out), "--jobs", "1"]) == 1
    assert len((out / "gradings.csv").read_text().splitlines()) == 26
    with pytest.raises(DataError, match="4 of 5 photographs cannot be used"):
        read_manifest(path)
    manifest = read_manifest(path, skip_unreadable=True)
    assert len(manifest) == 1
    assert [item.reason for item in manifest.unreadable][-1] == "line 6 has a quote that is not closed"


def test_a_path_longer_than_the_system_takes_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "eye.png", b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    for _ in range(25):
        Path("z" * 200).mkdir()
        os.chdir("z" * 200)
    put(Path("deep.png"), b"\x89PNG\r\n\x1a\n")
    inputs = expand([tmp_path])
    assert inputs.items[0].name == "eye.png"
    assert len(inputs.items) == 2
    assert len(os.fsencode(inputs.items[1].name)) < 3300
    with pytest.raises(UnreadablePhoto, match="too long"):
        inputs.items[1].read()
    for _ in range(25):  # what clears temporary folders cannot
        Path("deep.png").unlink(missing_ok=True)
        os.chdir("..")
        Path("z" * 200).rmdir()


def test_an_unreadable_folder_is_an_error_for_training_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eye: Callable[[int], bytes]
) -> None:
    for name in ("Mild", "Severe"):
        put(tmp_path / name / "eye.png", eye(0))
    real = os.listdir

    def listdir(path: Path) -> list[str]:
        if Path(path).name == "Severe":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("retigrade.inputs.os.listdir", listdir)
    with pytest.raises(DataError, match=r"Severe: the folder cannot be read \(Permission denied\)"):
        read_manifest(tmp_path)
    assert len(read_manifest(tmp_path, skip_unreadable=True)) == 1
