from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from retigrade.data.manifest import read_manifest
from retigrade.errors import DataError


def picture(path: Path, *, seed: int | None = None) -> Path:
    """A small picture, of its own unless a seed says which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(str(path))) if seed is None else seed)
    assert cv2.imwrite(str(path), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return path


def table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def class_folders(root: Path) -> Path:
    for grade, folder in enumerate(("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")):
        picture(root / "colored" / folder / f"p{grade}.png")
    return root


def test_class_folders_at_any_depth_give_name_grade_and_source(tmp_path: Path) -> None:
    manifest = read_manifest(class_folders(tmp_path / "clinic"))
    assert [entry.name for entry in manifest.entries] == sorted(entry.name for entry in manifest.entries)
    assert {entry.name: entry.grade for entry in manifest.entries}["clinic/colored/Severe/p3.png"] == 3
    assert sorted(manifest.grades) == [0, 1, 2, 3, 4]
    assert set(manifest.sources) == {"clinic"}
    assert len({entry.patient for entry in manifest.entries}) == 5
    assert (manifest.entries[0].width, manifest.entries[0].height) == (32, 32)
    assert not manifest.notes
    assert not manifest.unreadable


def test_class_folders_named_by_eye_keep_a_patient_together(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "No_DR" / "7_left.jpg")
    picture(tmp_path / "d" / "Mild" / "7_right.jpg")
    left, right = sorted(read_manifest(tmp_path / "d").entries, key=lambda entry: entry.eye or "")
    assert left.patient == right.patient == "d/7"
    assert (left.eye, right.eye) == ("left", "right")


def test_aptos_joins_by_name_and_ignores_the_sample_submission(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "aptos" / "train_images" / f"{name}.png")
    table(tmp_path / "aptos" / "train.csv", "id_code,diagnosis", [("c", 4), ("a", 0), ("b", 2)])
    table(tmp_path / "aptos" / "sample_submission.csv", "id_code,diagnosis", [("x", 0)])
    manifest = read_manifest(tmp_path / "aptos")
    assert {entry.path.stem: int(entry.grade) for entry in manifest.entries} == {"a": 0, "b": 2, "c": 4}
    assert manifest.notes == ("no photographs of grades 1, 3",)


def test_eyepacs_tells_patient_and_eye(tmp_path: Path) -> None:
    for name in ("12_left", "12_right", "13_left"):
        picture(tmp_path / "e" / "train" / f"{name}.jpeg")
    table(tmp_path / "e" / "trainLabels.csv", "image,level", [("12_left", 0), ("12_right", 1), ("13_left", 2)])
    entries = {entry.path.stem: entry for entry in read_manifest(tmp_path / "e").entries}
    assert entries["12_left"].patient == entries["12_right"].patient != entries["13_left"].patient
    assert entries["12_right"].eye == "right"


def test_origin_and_quality_are_read_where_a_csv_has_them(tmp_path: Path) -> None:
    for name in ("1_left", "2_left", "3_left"):
        picture(tmp_path / "e" / f"{name}.jpeg")
    rows = [("1_left", 0, "2", "native"), ("2_left", 1, "0", "squeezed"), ("3_left", 2, "", "")]
    table(tmp_path / "e" / "trainLabels.csv", "image,level,quality,origin", rows)
    entries = read_manifest(tmp_path / "e").entries
    assert [(entry.subset, entry.rejected) for entry in entries] == [
        ("e/native", True),
        ("e/squeezed", False),
        ("e", False),
    ]


def test_idrid_takes_its_columns_with_spaces_blank_rows_and_bom(tmp_path: Path) -> None:
    picture(tmp_path / "idrid" / "photos" / "IDRiD_001.jpg")
    text = "\ufeffImage name,Retinopathy grade,Risk of macular edema ,,\nIDRiD_001,3,2,,\n,,,,\n"
    (tmp_path / "idrid" / "labels.csv").write_text(text, encoding="utf-8")
    (entry,) = read_manifest(tmp_path / "idrid").entries
    assert entry.grade == 3


def test_columns_may_have_other_names_so_that_patients_stay_together(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        picture(tmp_path / "x" / name)
    rows = [("one.png", 1, "7", "OD", "2.0"), ("two.png", 2, "7", "OS", "0")]
    manifest = read_manifest(table(tmp_path / "x" / "my.csv", "path,grade,patient_id,laterality,quality", rows))
    assert [(entry.patient, entry.eye, entry.rejected) for entry in manifest.entries] == [
        ("x/7", "right", True),
        ("x/7", "left", False),
    ]
    assert any("patient_id as patient" in note for note in manifest.notes)


def test_any_csv_gives_patient_eye_and_source(tmp_path: Path) -> None:
    picture(tmp_path / "x" / "one.png")
    picture(tmp_path / "far" / "two.png")
    rows = [("one.png", 1, "p", "OD", "camera A", "note"), (tmp_path / "far" / "two.png", "2.0", "", "", "", "")]
    listing = table(tmp_path / "x" / "my.csv", "path,grade,patient,eye,source,remark", rows)
    for data in (listing, listing.parent):
        manifest = read_manifest(data)
        entries = {entry.path.stem: entry for entry in manifest.entries}
        assert (entries["one"].patient, entries["one"].eye, entries["one"].source) == ("x/p", "right", "camera A")
        assert (entries["two"].eye, entries["two"].source, int(entries["two"].grade)) == (None, "x", 2)
        assert entries["two"].patient == entries["two"].name
        assert "my.csv: columns not used: remark" in manifest.notes


def test_a_folder_of_data_sets_and_a_list_of_them_are_the_same(tmp_path: Path) -> None:
    class_folders(tmp_path / "all" / "one")
    picture(tmp_path / "all" / "two" / "a.png")
    table(tmp_path / "all" / "two" / "g.csv", "path,grade", [("a.png", 1)])
    picture(tmp_path / "all" / "stray" / "b.png")
    whole = read_manifest(tmp_path / "all")
    listed = read_manifest([tmp_path / "all" / "two", tmp_path / "all" / "one"])
    assert set(whole.sources) == {"one", "two"}
    assert whole.fingerprint == listed.fingerprint
    assert any("all: 1 pictures have no grade" in note for note in whole.notes)


def test_fingerprint_follows_the_content_not_the_place(tmp_path: Path) -> None:
    first = class_folders(tmp_path / "a" / "clinic")
    second = tmp_path / "b" / "clinic"
    shutil.copytree(first, second)
    fingerprint = read_manifest(first).fingerprint
    assert read_manifest(second).fingerprint == fingerprint
    picture(second / "colored" / "Mild" / "p1.png", seed=5)
    assert read_manifest(second).fingerprint != fingerprint


def test_csv_and_class_folders_must_agree(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "aptos")
    rows = [(f"p{grade}", grade) for grade in range(5)]
    table(root / "train.csv", "id_code,diagnosis", rows)
    assert len(read_manifest(root)) == 5
    table(root / "train.csv", "id_code,diagnosis", [*rows[:3], ("p3", 1), rows[4]])
    with pytest.raises(DataError, match=r"p3\.png: has two grades, 3 by its folder and 1 by the CSV"):
        read_manifest(root)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path,stage", ("a.png", 1), r"has the columns path, stage \(separated by commas\); wanted are path,grade"),
        ("path,grade", ("a.png", 5), r"line 2: grade '5' is not one of 0, 1, 2, 3, 4"),
        ("path,grade", ("a.png", -1), r"line 2: grade '-1' is not one of"),
        ("path,grade", ("a.png", "1.5"), r"line 2: grade '1\.5' is not one of"),
        ("path,grade", ("a.png", "nan"), r"line 2: grade 'nan' is not one of"),
        ("path,grade", ("a.png", "mild"), r"line 2: grade 'mild' is not one of"),
        ("path,grade", ("a.png",), r"line 2: grade '' is not one of"),
        ("path,grade", ("", 1), r"line 2: the column 'path' is empty"),
        (
            "path,grade",
            ("gone.png", 1),
            r"none of its 1 photographs was found; .* as .*gone\.png: no such file; its folder holds",
        ),
        ("path,grade", (), r"lists no photographs"),
    ],
)
def test_a_bad_csv_is_one_sentence(tmp_path: Path, header: str, row: Sequence[object], message: str) -> None:
    picture(tmp_path / "a.png")
    listing = table(tmp_path / "g.csv", header, [row] if row else [])
    with pytest.raises(DataError, match=message):
        read_manifest(listing)


def test_one_photograph_with_two_grades_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    listing = table(tmp_path / "g.csv", "path,grade", [("a.png", 1), ("./a.png", 2)])
    with pytest.raises(DataError, match=r"line 3: \./a\.png has two grades, 1 and 2"):
        read_manifest(listing)


def test_a_photograph_in_the_folders_of_two_grades_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "Mild" / "Severe" / "a.png")
    with pytest.raises(DataError, match="folders of two grades"):
        read_manifest(tmp_path / "d")


def test_a_name_that_fits_two_pictures_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "e" / "one" / "1_left.png")
    picture(tmp_path / "e" / "two" / "1_left.png")
    table(tmp_path / "e" / "trainLabels.csv", "image,level", [("1_left", 0)])
    with pytest.raises(DataError, match="more than one picture has this name"):
        read_manifest(tmp_path / "e")


def test_the_same_data_twice_is_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "clinic")
    with pytest.raises(DataError, match="is listed 2 times"):
        read_manifest([root, root])


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = class_folders(tmp_path / "a" / "clinic"), class_folders(tmp_path / "b" / "clinic")
    with pytest.raises(DataError, match="2 photographs go by this name"):
        read_manifest([first, second])


def test_two_label_csvs_in_one_folder_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("g.csv", "h.csv"):
        table(tmp_path / name, "path,grade", [("a.png", 1)])
    with pytest.raises(DataError, match=r"more than one CSV with grades \(g\.csv, h\.csv\)"):
        read_manifest(tmp_path)


def test_what_fits_no_layout_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    table(tmp_path / "g.csv", "photo,stage", [("a.png", 1)])
    with pytest.raises(DataError, match=r"no layout recognised; g\.csv has the columns photo, stage"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="no such folder or CSV"):
        read_manifest(tmp_path / "absent")


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for content, message in ((b"PK\x03\x04\0\0", "a spreadsheet's own format"), (b"\1\0\0\2\n", "binary data")):
        (tmp_path / "g.csv").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_manifest(tmp_path / "g.csv")


def test_unreadable_photographs_are_counted_and_can_be_left_out(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "clinic")
    (root / "colored" / "Mild" / "empty.png").touch()
    (root / "colored" / "Mild" / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"2 of 7 photographs cannot be used(.|\n)*empty\.png: (.|\n)*text\.jpg: "):
        read_manifest(root)
    manifest = read_manifest(root, skip_unreadable=True)
    assert len(manifest) == 5
    assert {item.path.name for item in manifest.unreadable} == {"empty.png", "text.jpg"}
    assert all(item.reason for item in manifest.unreadable)


def test_missing_photographs_can_be_left_out_but_not_all(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    listing = table(tmp_path / "g.csv", "path,grade", [("a.png", 1), ("gone.png", 2)])
    manifest = read_manifest(listing, skip_unreadable=True)
    assert [item.path.name for item in manifest.unreadable] == ["gone.png"]
    table(listing, "path,grade", [("gone.png", 2)])
    with pytest.raises(DataError, match="none of its 1 photographs was found"):
        read_manifest(listing, skip_unreadable=True)


def test_pipes_broken_links_and_loops_neither_hang_nor_vanish(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "clinic")
    os.mkfifo(root / "colored" / "Mild" / "pipe.png")
    (root / "colored" / "Mild" / "broken.png").symlink_to(tmp_path / "gone.png")
    (root / "colored" / "loop").symlink_to(root, target_is_directory=True)
    manifest = read_manifest(root, skip_unreadable=True)
    assert len(manifest) == 5
    assert {item.path.name for item in manifest.unreadable} == {"pipe.png", "broken.png"}


def test_a_loop_around_no_layout_ends(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="no layout recognised"):
        read_manifest(tmp_path)


@pytest.mark.slow
def test_real_layouts(real_data: Path) -> None:
    manifest = read_manifest([real_data / name for name in ("aptos2019", "idrid", "eyepacs")])
    counts = {source: int((manifest.sources == source).sum()) for source in ("aptos2019", "idrid", "eyepacs")}
    assert counts == {"aptos2019": 2929, "idrid": 412, "eyepacs": 4797}
    grades = manifest.grades[manifest.sources == "aptos2019"]
    assert np.bincount(grades).tolist() == [1444, 296, 799, 154, 236]
    eyes = [entry for entry in manifest.entries if entry.source == "eyepacs"]
    assert all(entry.eye in ("left", "right") for entry in eyes)
    assert len({entry.patient for entry in eyes}) < len(eyes)
