"""CSV files as spreadsheets and scripts write them, and the files that they name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retigrade.errors import DataError
from retigrade.locate import Locator, same, stem, without_zeros
from retigrade.tables import CsvTable, read_table

PLAIN = [(2, {"path": "a.png", "grade": "0"}), (3, {"path": "é.png", "grade": "1"})]


def read(folder: Path, content: str | bytes) -> CsvTable:
    path = folder / "list.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path)


def rows(table: CsvTable) -> list[tuple[int, dict[str, str]]]:
    return [(row.line, dict(row.cells)) for row in table.rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    table = read(tmp_path, "path,grade\na.png,0\né.png,1\n".replace("\n", end).encode(encoding))
    assert rows(table) == PLAIN
    assert ("list.csv: is not UTF-8 and was read as Windows-1252" in table.notes) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("path;grade\na.png;0\né.png;1\n", "semicolons"),
        ("path\tgrade\na.png\t0\né.png\t1\n", "tabs"),
        ("path|grade\na.png|0\né.png|1\n", "bars"),
        ('"path","grade"\n"a.png","0"\n"é.png",1\n', "commas"),
        (" Path , GRADE \n a.png , 0\né.png,1", "commas"),
        ("path,grade,\na.png,0,\né.png,1,\n,,\n", "commas"),
    ],
)
def test_separators_header_case_and_blanks(tmp_path: Path, text: str, seen: str) -> None:
    table = read(tmp_path, text)
    assert rows(table) == PLAIN
    assert table.seen == f"path, grade (separated by {seen})"


def test_the_separator_that_excel_states(tmp_path: Path) -> None:
    assert rows(read(tmp_path, "sep=;\npath;grade\na.png;0\né.png;1\n")) == [(3, PLAIN[0][1]), (4, PLAIN[1][1])]


def test_names_of_columns_meet_whatever_stands_between_their_words(tmp_path: Path) -> None:
    table = read(tmp_path, "Image  name,Retinopathy_Grade,Risk of macular edema ,,\nx,3,2,,\n")
    assert table.columns == ("image_name", "retinopathy_grade", "risk_of_macular_edema")


def test_one_column_is_not_split(tmp_path: Path) -> None:
    assert rows(read(tmp_path, "path\na, b.png\n")) == [(2, {"path": "a, b.png"})]


def test_zeros_kept_as_a_formula(tmp_path: Path) -> None:
    assert rows(read(tmp_path, 'path,grade\n="007",1\n')) == [(2, {"path": "007", "grade": "1"})]


@pytest.mark.parametrize("stray", ['"b.png,1', 'x,"1'])
@pytest.mark.parametrize("later", ["", '"z.png",3\n'])
def test_a_quote_that_is_not_closed_costs_its_own_row(tmp_path: Path, stray: str, later: str) -> None:
    many = "".join(f"{number}.png,0\n" for number in range(500))
    table = read(tmp_path, f"path,grade\na.png,0\n{stray}\n{many}{later}")
    problems = [(row.line, row.problem) for row in table.rows if row.problem]
    assert problems == [(3, "line 3 has a quote that is not closed")]
    assert len(table.rows) == 502 + bool(later)


def test_other_bad_rows_are_named_too(tmp_path: Path) -> None:
    table = read(tmp_path, 'path,grade\n"a"x,1\nb.png,0,9\n"' + "x" * 200_000 + '",1\nc.png,2\n')
    problems = {row.line: row.problem or "" for row in table.rows}
    assert "expected after" in problems[2]
    assert problems[3] == "line 3 has 3 cells, the header has 2 columns"
    assert "field larger than" in problems[4]
    assert problems[5] == ""


def test_a_remark_may_span_lines(tmp_path: Path) -> None:
    table = read(tmp_path, 'path,grade,remark\na.png,0,"one\ntwo, three"\nb.png,1,\n')
    assert [(row.line, row.get("remark")) for row in table.rows] == [(2, "one\ntwo, three"), (4, "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,grade,Grade\n", "has the column 'grade' more than once"),
        (b"PK\x03\x04workbook", "a spreadsheet's own format"),
        (b"\xd0\xcf\x11\xe0workbook", "a spreadsheet's own format"),
        (b"\0\1\2\3path", "binary data"),
        ('"path,grade\na,1\n', "the header, line 1, cannot be read"),
    ],
)
def test_what_is_no_csv_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_missing_table_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the CSV cannot be read"):
        read_table(tmp_path / "gone.csv")
    assert read(tmp_path, "").columns == ()


def test_stems_and_numbers() -> None:
    assert stem("eye.jpg_large") == stem("eye.JPEG") == stem("eye.jpg (1)") == "eye"
    assert stem("1.2.840.10008") == "1.2.840.10008"
    assert stem("notes.png.txt") == "notes.png.txt"
    assert without_zeros("007") == without_zeros("7") == "7"
    assert without_zeros("000") == "0"
    assert without_zeros("7a") is without_zeros("٧") is None
    assert same("E\u0301") == same("é")


class TestLocator:
    def touch(self, folder: Path, *names: str) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    def test_spelled_another_way(self, tmp_path: Path) -> None:
        locator = Locator(self.touch(tmp_path, "Images/e\u0301.png", "Images/A.PNG", "plain.png"))
        assert locator.find(["plain.png"]) == (tmp_path / "plain.png", "")
        assert locator.find(["Images/\u00e9.png"]) == (tmp_path / "Images/e\u0301.png", "")
        assert locator.find(["images\\a.png", "images/a.png"]) == (tmp_path / "Images/A.PNG", "case")
        assert locator.find([str(tmp_path / "images/A.png")]) == (tmp_path / "Images/A.PNG", "case")
        assert locator.find(["gone.png"]) == (None, "")

    def test_what_could_be_two_files_is_none(self, tmp_path: Path) -> None:
        locator = Locator(self.touch(tmp_path, "a.png", "A.png", "07.png", "007.png", "0x/1", "8.png"))
        assert locator.find(["a.PNG"]) == (None, "")
        assert locator.find(["A.png"]) == (tmp_path / "A.png", "")
        assert locator.find(["7.png"]) == (None, "")
        assert "leading zeros lost? there is 007.png, 07.png" in locator.why(tmp_path / "7.png")

    def test_lost_zeros(self, tmp_path: Path) -> None:
        locator = Locator(self.touch(tmp_path, "a/007.png", "a/010.jpg"))
        assert locator.find(["a/7.png"]) == (tmp_path / "a/007.png", "zeros")
        assert locator.find(["a/10"]) == (tmp_path / "a/010.jpg", "zeros")
        assert locator.find(["a/7.jpg"]) == (None, "")

    def test_why_there_is_none(self, tmp_path: Path) -> None:
        locator = Locator(self.touch(tmp_path, "images/a.png"))
        assert locator.why(tmp_path / "pictures/a.png") == f"there is no folder {tmp_path}/pictures"
        assert locator.why(tmp_path / "images/b.png") == "no such file; its folder holds 1 others, such as a.png"
        assert "a spreadsheet has shortened" in locator.why(tmp_path / "images/1.23E+15")
        assert locator.why(tmp_path / "pictures\\a.png") == f"there is no folder {tmp_path}/pictures"
        for foreign in ("C:\\photos\\a.png", "D:/photos/a.png", "\\\\server\\photos\\a.png"):
            assert "a path of another computer" in locator.why(tmp_path / foreign)
        assert "NUL" in locator.why(tmp_path / "a\0b")
        assert "longer than the 255 bytes" in locator.why(tmp_path / ("x" * 300) / "a.png")
        assert locator.find(["a\0b", "x" * 5000]) == (None, "")

    def test_bytes_that_are_no_letters(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"\xe9.png")).touch()
        table = read(tmp_path, b"path\n\xe9.png\n")
        (row,) = table.rows
        found, change = Locator(tmp_path).find(table.spellings(row.get("path")))
        assert found is not None
        assert (os.fsencode(found.name), change) == (b"\xe9.png", "")
