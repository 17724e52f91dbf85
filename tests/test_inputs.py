"""What a PATH stands for, what is left out, and what each input is called."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

import pytest

from retigrade import inputs
from retigrade.errors import DataError, UnreadablePhoto, UsageError
from retigrade.grading import Eye, Subject
from retigrade.input_names import Names
from retigrade.inputs import Input, Inputs, expand

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


def touch(root: Path, *names: str, data: bytes = PNG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"text" if name.endswith((".csv", ".html", ".jsonl", ".txt")) else data)


def names(found: Inputs) -> list[str]:
    return [item.name for item in found.items]


def skipped(found: Inputs, root: Path) -> dict[str, str]:
    return {str(left.path.relative_to(root)): left.reason for left in found.skipped}


class TestFolder:
    def test_recursed_in_order_and_everything_else_is_counted(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.JPG", "a/z.tiff", "a/b/c.webp", "noext", "c.Bmp", "d.jpeg", "e.tif", "f.jfif")
        touch(tmp_path, "notes.txt", "labels.csv", "Makefile", data=b"all:\n")
        touch(tmp_path, ".hidden.png", ".cache/x.png")
        found = expand([tmp_path])
        assert names(found) == ["a/b/c.webp", "a/z.tiff", "b.JPG", "c.Bmp", "d.jpeg", "e.tif", "f.jfif", "noext"]
        assert [item.path for item in found.items] == [tmp_path / name for name in names(found)]
        assert skipped(found, tmp_path) == {
            ".cache": "hidden or system entry",
            ".hidden.png": "hidden or system entry",
            "Makefile": "not a picture file",
            "labels.csv": "not a picture file",
            "notes.txt": "not a picture file",
        }

    def test_what_is_not_a_regular_file_is_an_input(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's whole path may have about a hundred bytes
        os.mkfifo("fifo")
        (tmp_path / "dangling.txt").symlink_to("gone")
        (tmp_path / "loop").symlink_to("loop")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.jpg")
            found = expand([Path()])
        assert names(found) == ["dangling.txt", "fifo", "loop", "socket.jpg"]
        assert found.skipped == ()

    def test_links_to_folders_are_followed_once(self, tmp_path: Path) -> None:
        touch(tmp_path, "photos/a/eye.png", "elsewhere/far.png")
        (tmp_path / "photos/a/up").symlink_to("..")
        (tmp_path / "photos/b").symlink_to("a")
        (tmp_path / "photos/c").symlink_to("../elsewhere")
        found = expand([tmp_path / "photos"])
        assert names(found) == ["a/eye.png", "c/far.png"]
        assert {
            path: "the same folder as" in reason for path, reason in skipped(found, tmp_path / "photos").items()
        } == {
            "a/up": True,
            "b": True,
        }

    def test_deeper_than_python_calls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        depth = sys.getrecursionlimit() + 50
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        touch(Path(), "eye.png")
        os.chdir(tmp_path)
        try:
            assert names(expand([Path()])) == ["d/" * depth + "eye.png"]
        finally:  # what clears temporary folders is recursive
            deepest = Path(*["d"] * depth)
            (deepest / "eye.png").unlink()
            for folder in (deepest, *deepest.parents[:-1]):
                folder.rmdir()

    def test_unreadable_folder_is_stated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "eye.png", "locked/eye.png")
        real = os.listdir

        def listdir(path: Path) -> list[str]:
            if path.name == "locked":
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(inputs.os, "listdir", listdir)
        found = expand([tmp_path])
        assert names(found) == ["eye.png", "locked"]
        with pytest.raises(UnreadablePhoto, match=r"locked: the folder cannot be read \(Permission denied\)"):
            found.items[1].read()
        assert found.skipped == ()
        locked = expand([tmp_path / "locked"]).items
        assert [item.name for item in locked] == ["locked"]

    @pytest.mark.parametrize("paths", [["."], []])
    def test_nothing_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        touch(tmp_path, "notes.txt")
        with pytest.raises(UsageError, match="looked for JPEG, PNG, TIFF, WebP"):
            expand([Path(path) for path in paths])

    def test_empty_folder_beside_others_is_stated(self, tmp_path: Path) -> None:
        touch(tmp_path, "eye.png")
        (tmp_path / "empty").mkdir()
        found = expand([tmp_path / "empty", tmp_path / "eye.png"])
        assert names(found) == ["eye.png"]
        assert skipped(found, tmp_path) == {"empty": "no photographs in it"}


class TestOutputFolder:
    def test_inside_the_input_is_left_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "eye.png", "out/heat/eye.png.png", "out/other.png")
        found = expand([tmp_path], exclude=tmp_path / "out")
        assert names(found) == ["eye.png"]
        assert skipped(found, tmp_path) == {"out": "the output folder"}

    def test_reached_by_another_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "photos/eye.png", "out/heat/eye.png.png")
        (tmp_path / "photos/results").symlink_to("../out")
        found = expand([tmp_path / "photos"], exclude=tmp_path / "photos" / ".." / "out")
        assert names(found) == ["eye.png"]

    def test_of_an_earlier_run(self, tmp_path: Path) -> None:
        touch(tmp_path, "eye.png", "old/heat/eye.png.png", "old/gradings.jsonl", "old/gradings.csv", "old/report.html")
        found = expand([tmp_path], exclude=tmp_path / "new")
        assert names(found) == ["eye.png"]
        assert skipped(found, tmp_path)["old/heat"] == "maps of an earlier run"

    def test_of_an_earlier_run_keeps_the_photographs_beside_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "set/eye.png", "set/heat/eye.png.png", "set/gradings.jsonl")
        assert names(expand([tmp_path])) == ["set/eye.png"]

    def test_folder_called_heat_is_no_output_by_itself(self, tmp_path: Path) -> None:
        touch(tmp_path, "heat/eye.png")
        assert names(expand([tmp_path])) == ["heat/eye.png"]

    def test_input_and_output_folder_are_one(self, tmp_path: Path) -> None:
        touch(tmp_path, "eye.png", "heat/eye.png.png")
        assert names(expand([tmp_path], exclude=tmp_path)) == ["eye.png"]

    def test_output_folder_above_the_input(self, tmp_path: Path) -> None:
        touch(tmp_path, "photos/eye.png")
        assert names(expand([tmp_path / "photos"], exclude=tmp_path)) == ["eye.png"]


class TestCsv:
    def write(self, root: Path, text: str, encoding: str = "utf-8") -> Path:
        path = root / "list.csv"
        path.write_bytes(text.encode(encoding))
        return path

    def test_paths_start_at_the_csv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir("/")
        path = self.write(tmp_path, f'grade, path\r\n0,b/eye.png\r\n1,"a, b.png"\r\n2,{tmp_path}/far.png\r\n')
        found = expand([path])
        assert [item.path for item in found.items] == [tmp_path / name for name in ("b/eye.png", "a, b.png", "far.png")]
        assert names(found)[:2] == ["b/eye.png", "a, b.png"]

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        assert names(expand([self.write(tmp_path, "path\neye.png\n", "utf-8-sig")])) == ["eye.png"]

    def test_name_that_is_not_utf_8(self, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_bytes(b"path\n\xff.png\n")
        (tmp_path / os.fsdecode(b"\xff.png")).touch()
        (item,) = expand([tmp_path / "list.csv"]).items
        assert os.fsencode(item.path.name) == b"\xff.png"

    def test_missing_column_names_those_found(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"needs a column named path; its columns are: scan, grade \(separated by"):
            expand([self.write(tmp_path, "scan,grade\neye.png,0\n")])

    @pytest.mark.parametrize("text", ["", "path\n", "path,grade\n,0\n"])
    def test_without_photographs(self, tmp_path: Path, text: str) -> None:
        with pytest.raises((UsageError, DataError)):
            expand([self.write(tmp_path, text)])

    def test_row_without_a_path_is_stated(self, tmp_path: Path) -> None:
        found = expand([self.write(tmp_path, "grade,path\n0,eye.png\n\n1,\n2\n")])
        assert names(found) == ["eye.png"]
        assert [left.reason for left in found.skipped] == ["line 4 has no path", "line 5 has no path"]

    def test_names_stay_below_any_folder(self, tmp_path: Path) -> None:
        found = expand([self.write(tmp_path, "path\n../x/eye.png\n/etc/eye.png\nx/eye.png\n./x/../eye.png\n..\n")])
        assert names(found) == ["x/eye.png", "etc/eye.png", "x-2/eye.png", "x-3/eye.png", "input"]

    def test_a_row_that_cannot_be_read_is_an_input_of_its_own(self, tmp_path: Path) -> None:
        found = expand([self.write(tmp_path, 'path\neye.png\n"' + "x" * 200_000 + '"\nfar.png\n')])
        assert names(found) == ["eye.png", "list.csv:3", "far.png"]
        with pytest.raises(UnreadablePhoto, match=r"list\.csv:3: line 3 cannot be read \(field larger than"):
            found.items[1].read()

    def test_in_a_folder_is_not_read(self, tmp_path: Path) -> None:
        self.write(tmp_path, "path\nfar.png\n")
        touch(tmp_path, "eye.png")
        assert names(expand([tmp_path])) == ["eye.png"]


class TestSeveral:
    def test_equal_names_in_two_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, "left/eye.png", "right/eye.png")
        assert names(expand([tmp_path / "left", tmp_path / "right"])) == ["left/eye.png", "right/eye.png"]

    def test_folders_of_one_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/set/x.png", "b/set/x.png", "b/set/y.png")
        found = expand([tmp_path / "a/set", tmp_path / "b/set"])
        assert names(found) == ["set/x.png", "set-2/x.png", "set-2/y.png"]

    def test_files_of_one_name_and_one_file_twice(self, tmp_path: Path) -> None:
        paths = [tmp_path / name for name in ("a/eye.png", "b/eye.png", "a/eye.png")]
        found = expand(paths)
        assert [item.path for item in found.items] == paths
        assert names(found) == ["eye.png", "eye-2.png", "eye-3.png"]

    def test_many_files_of_one_name_are_named_in_linear_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried, is_taken = list[str](), Names._is_taken
        monkeypatch.setattr(Names, "_is_taken", lambda self, name: tried.append(name) or is_taken(self, name))
        given = Names()
        assert [given.unique("left.png") for _ in range(50)][-1] == "left-50.png"
        assert given.unique("left-7.png") == "left-7-2.png"
        assert [given.prefix(Path("clinic")) for _ in range(3)] == ["clinic/", "clinic-2/", "clinic-3/"]
        assert len(tried) <= 2 * 51

    def test_missing_path_is_an_input_in_its_place(self, tmp_path: Path) -> None:
        touch(tmp_path, "set/eye.png")
        found = expand([tmp_path / "gone.jpg", tmp_path / "set", tmp_path / "gone.csv"])
        assert names(found) == ["gone.jpg", "set/eye.png", "gone.csv"]

    def test_folder_named_by_dots(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "set/sub/eye.png")
        monkeypatch.chdir(tmp_path / "set/sub")
        assert names(expand([Path(), Path("..")])) == ["sub/eye.png", "set/sub/eye.png"]

    def test_map_of_one_never_takes_the_folder_of_another(self, tmp_path: Path) -> None:
        touch(tmp_path, "a", "a.png/eye.png", "b.png/eye.png", "b.png.png", "z/b")
        found = names(expand([tmp_path, tmp_path / "z/b"]))
        files = {PurePosixPath(f"{name}.png") for name in found}
        assert len(files) == len(found)
        assert not files & {parent for file in files for parent in file.parents}


class TestNames:
    @pytest.mark.parametrize(
        "name", ["two words.png", "new\nline.png", "œil_目.png", os.fsdecode(b"\xff\xfe.png"), "a" * 196 + ".png"]
    )
    @pytest.mark.parametrize("alone", [True, False])
    def test_kept_as_they_are(self, tmp_path: Path, name: str, alone: bool) -> None:
        touch(tmp_path, name)
        (item,) = expand([tmp_path / name if alone else tmp_path]).items
        assert item.name == name
        assert item.path.read_bytes() == PNG

    def test_longest_leave_room_for_a_suffix(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{'é' * 120}{i}.png" for i in range(3)))
        found = names(expand([tmp_path]))
        assert len(set(found)) == 3
        for name in found:
            touch(tmp_path / "heat", f"{name}.png.0123abcd.part")

    def test_unreadable_file_without_suffix_is_for_decoding_to_say(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path, "eye")

        def denied(*_args: object, **_options: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
        assert names(expand([tmp_path])) == ["eye"]


class TestDicom:
    """Recognised by content, since such files are named by numbers or not at all."""

    HEADS: ClassVar[dict[str, bytes]] = {
        "1.2.840.10008.5": b"\0" * 128 + b"DICM\2\0\0\0",
        "scan.dcm": b"\0" * 128 + b"DICM\2\0\0\0",
        "IM0001": b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100",
        "eye.jpg": b"\0" * 128 + b"DICM",
    }

    @pytest.mark.parametrize("name", HEADS)
    def test_is_an_input_that_names_what_is_missing(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(self.HEADS[name])
        (tmp_path / "notes.txt").write_text("no picture")
        found = expand([tmp_path])
        assert names(found) == [name]
        with pytest.raises(UnreadablePhoto, match=r"a DICOM file.*its extra dicom"):
            found.items[0].read()

    def test_is_listed_by_the_reader_with_a_name_of_its_own_for_each_frame(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "scan.dcm").write_bytes(self.HEADS["scan.dcm"])

        def two_frames(path: Path, name: str) -> Iterator[Input]:
            yield from (Input(path, f"{name}#{frame}", frame=frame, subject=Subject(eye=Eye.LEFT)) for frame in (1, 2))

        found = expand([tmp_path / "a/scan.dcm", tmp_path / "b/scan.dcm"], list_dicom=two_frames)
        assert names(found) == ["scan.dcm#1", "scan.dcm#2", "scan-2.dcm#1", "scan-2.dcm#2"]
        assert str(found.items[1]) == f"{tmp_path}/a/scan.dcm#2"
        assert found.items[1].subject.eye is Eye.LEFT

    def test_files_of_an_earlier_run_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path, "eye.png", "old/dicom/eye.sr.dcm", "old/gradings.jsonl")
        found = expand([tmp_path])
        assert names(found) == ["eye.png"]
        assert skipped(found, tmp_path)["old/dicom"] == "DICOM files of an earlier run"
