from __future__ import annotations

from pathlib import Path

import pytest

from retigrade.errors import UsageError
from retigrade.files import make_folder, replacing, write_whole


def test_whole_files_make_their_folders_and_leave_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "heat" / "left" / ("x" * 251 + ".png")
    write_whole(target, b"one")
    write_whole(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


def test_a_target_that_cannot_be_replaced_is_one_sentence_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.png" / "full").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"cannot write .*a\.png: Is a directory"):
        write_whole(tmp_path / "a.png", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_is_no_output_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write"):
        make_folder(tmp_path / "file" / below)


def test_a_new_file_has_the_mode_of_new_files_whatever_its_writer_does(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    target = tmp_path / "weights"
    with replacing(target) as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
        temporary.write_bytes(b"weights")
    assert target.stat().st_mode == plain.stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "weights"}


def test_an_error_while_writing_leaves_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"older")
    with pytest.raises(TypeError), replacing(target) as temporary:
        temporary.write_bytes("no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]
