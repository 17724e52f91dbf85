from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path

import pytest

from gradings import graded, refused
from retigrade.errors import UsageError
from retigrade.output.folder import OutputFolder
from retigrade.output.illustrate import Illustrated
from retigrade.output.rows import as_row
from tiny_bundle import tiny_card


def opened(folder: Path) -> OutputFolder:
    return OutputFolder(folder, metadata=tiny_card(), bundle="tiny@0123456789ab")


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_listings_report_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with closing(opened(out)) as folder:
        folder.add(Illustrated(row=as_row(graded("in/a.jpg")), thumbnail=b"jpeg", picture=b"png"), name="left/a.jpg")
        folder.add(Illustrated(row=as_row(refused("in/b.jpg"))), name="b.jpg")
        folder.publish(total=2, skipped=[])
    assert files_below(out) == {"gradings.csv", "gradings.jsonl", "report.html", "heat/left/a.jpg.png"}
    with (out / "gradings.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["in/a.jpg", "in/b.jpg"]
    lines = (out / "gradings.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["graded", "not_fundus"]
    assert 'href="heat/left/a.jpg.png"' in (out / "report.html").read_text(encoding="utf-8")


def test_closing_it_unpublished_leaves_the_earlier_listings(tmp_path: Path) -> None:
    (tmp_path / "gradings.csv").write_text("earlier")
    folder = opened(tmp_path)
    folder.add(Illustrated(row=as_row(graded())), name="eye.jpg")
    folder.close()
    assert files_below(tmp_path) == {"gradings.csv"}
    assert (tmp_path / "gradings.csv").read_text() == "earlier"


def test_an_earlier_map_of_a_photo_that_now_has_none_is_removed(tmp_path: Path) -> None:
    for name in ("a.jpg.png", "other.jpg.png"):
        (tmp_path / "heat").mkdir(exist_ok=True)
        (tmp_path / "heat" / name).write_bytes(b"earlier")
    with closing(opened(tmp_path)) as folder:
        folder.add(Illustrated(row=as_row(refused("a.jpg"))), name="a.jpg")
        folder.publish(total=1, skipped=[])
    assert not (tmp_path / "heat" / "a.jpg.png").exists()
    assert (tmp_path / "heat" / "other.jpg.png").exists()


@pytest.mark.parametrize("blocked", ["gradings.jsonl", "report.html"])
def test_a_listing_that_cannot_be_replaced_is_one_sentence(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).mkdir()
    with pytest.raises(UsageError, match=f"cannot write .*{blocked}"), closing(opened(tmp_path)) as folder:
        folder.publish(total=0, skipped=[])
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_refused_at_once() -> None:
    kernel = Path("/proc")
    if not kernel.is_dir():
        pytest.skip("no folder here that even root cannot write")
    with pytest.raises(UsageError, match=r"cannot write /proc/gradings\.csv"):
        opened(kernel)
