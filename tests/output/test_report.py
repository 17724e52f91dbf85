from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gradings import graded, heat, refused
from retigrade.grading import Grading
from retigrade.icdr import Grade, Status
from retigrade.output.journal import JournalRecord, Stamp
from retigrade.output.overlay import as_jpeg, pair, views
from retigrade.output.report import read_report, report
from retigrade.output.rows import as_row, json_line
from retigrade.synthetic import Phantom
from tiny_bundle import tiny_card

HEADER = {"bundle": "tiny@0123456789ab"}


def record_of(grading: Grading, **changes: object) -> JournalRecord:
    fixed = {"row": as_row(grading), "name": "a.jpg", "stamp": Stamp(1, 2)}
    return JournalRecord(**{**fixed, **changes})  # type: ignore[arg-type]


def write(
    folder: Path, records: Sequence[JournalRecord], *, total: int | None = None, skipped: Sequence[str] = ()
) -> str:
    parts = report(
        lambda: iter(records),
        header=HEADER,
        metadata=tiny_card(),
        bundle="tiny@0123456789ab",
        operating_point=None,
        total=len(records) if total is None else total,
        skipped=skipped,
        noise=None,
    )
    html = "".join(parts)
    (folder / "report.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    (folder / "gradings.jsonl").write_text("".join(json_line(record.row) for record in records))
    return (folder / "report.html").read_text(encoding="utf-8")


def written(folder: Path, *gradings: Grading, total: int | None = None, skipped: tuple[str, ...] = ()) -> str:
    return write(folder, list(map(record_of, gradings)), total=total, skipped=skipped)


def rows_in(html: str) -> list[dict[str, Any]]:
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    rows: list[dict[str, Any]] = json.loads(data[1])["rows"]
    return rows


def test_there_is_a_row_for_every_input_with_its_verdict_or_reason(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        graded("a.jpg"),
        refused("b.jpg", Status.ERROR, "the file is empty"),
        refused("c.jpg", Status.UNGRADABLE, "too dark"),
        refused("d.jpg"),
    )
    first, *others = rows_in(page)
    assert (first["path"], first["grade"], first["p"][2], first["pReferable"]) == ("a.jpg", 2, 0.6, 0.85)
    assert [(row["path"], row["status"], row["reasons"]) for row in others] == [
        ("b.jpg", "error", ["the file is empty"]),
        ("c.jpg", "ungradable", ["too dark"]),
        ("d.jpg", "not_fundus", ["no retinal disc"]),
    ]
    assert not any(row["p"] for row in others)


def test_it_counts_statuses_and_stages(tmp_path: Path) -> None:
    written(tmp_path, graded("a"), graded("b"), refused("c"))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tiles = re.findall(r"<b>(\d+)</b><span>(?:<i[^>]*></i>)?([\w ]+)</span>", html)
    assert {name: int(count) for count, name in tiles} == {
        "graded": 2,
        "not fundus": 1,
        "referable": 2,
        "none": 0,
        "mild": 0,
        "moderate": 2,
        "severe": 0,
        "proliferative": 0,
    }


def test_it_states_use_bundle_and_limits(tmp_path: Path) -> None:
    page = written(tmp_path, graded())
    for sentence in ("Research use only, not a medical device", "tiny@0123456789ab", "Learned nothing.", "Tests."):
        assert sentence in page
    assert "was interrupted" not in page


def test_the_stages_that_are_possible_are_in_the_row(tmp_path: Path) -> None:
    page = written(tmp_path, graded(prediction_set=(Grade.MODERATE, Grade.SEVERE)))
    assert rows_in(page)[0]["set"] == [2, 3]


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    assert "1 of 300 inputs were finished" in written(tmp_path, graded(), total=300)


def test_what_was_skipped_is_named(tmp_path: Path) -> None:
    page = written(tmp_path, graded(), skipped=("notes\n<b>.txt: not a picture file",))
    assert "notes\\n&lt;b&gt;.txt: not a picture file" in page


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>.jpg", "\"><img src=x onerror='alert(1)'>", "a\nb\udce9.jpg", "{{ 7 * 7 }}", "&lt;"],
)
def test_a_name_is_only_text(tmp_path: Path, name: str) -> None:
    page = written(tmp_path, refused(name, reason=f"{name}: empty"))
    assert rows_in(page)[0]["path"] == name.replace("\n", "\\n").replace("\udce9", "\\udce9")
    assert page.count("<script") == 2  # the data and the page's own
    assert "<img" not in page


def test_pictures_travel_inside_the_page(tmp_path: Path, eye: Phantom) -> None:
    small, map_ = views(eye.pixels, heat(width=eye.pixels.shape[1], height=eye.pixels.shape[0]), side=90)
    thumbnail = base64.b64encode(as_jpeg(pair(small, map_, side=90))).decode()
    name = "a #1?\udce9.jpg"
    page = write(tmp_path, [record_of(graded(), name=name, files=(f"heat/{name}.png",), thumbnail=thumbnail)])
    (row,) = rows_in(page)
    assert row["heat"] == "heat/a%20%231%3F%E9.jpg.png"
    assert row["thumbnail"].startswith("data:image/jpeg;base64,/9j/")
    assert not re.search(r"https?://|url\(|@import", page)


def test_pictures_beside_the_page_are_linked(tmp_path: Path) -> None:
    page = write(tmp_path, [record_of(graded(), files=("heat/a.jpg", "thumbnails/a.jpg.jpg"))])
    (row,) = rows_in(page)
    assert (row["thumbnail"], row["heat"]) == ("thumbnails/a.jpg.jpg", "heat/a.jpg")


def test_the_page_allows_its_own_script_alone(tmp_path: Path) -> None:
    page = written(tmp_path, graded())
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"script-src 'sha256-{digest}'" in page


def test_it_says_of_which_bytes_it_tells(tmp_path: Path) -> None:
    name = "a\n\"<b>'&#34;\udce9.jpg"
    records = [
        record_of(graded(), name=name, files=("heat/x.png", "dicom/x.dcm"), thumbnail="aGVhdA=="),
        record_of(refused(), stamp=Stamp(None, None)),
        record_of(graded("last"), thumbnail="bGFzdA=="),
    ]
    write(tmp_path, records)
    page, gradings = tmp_path / "report.html", tmp_path / "gradings.jsonl"
    assert list(read_report(page, gradings)) == list(read_report(page, gradings, header=HEADER)) == records
    assert list(read_report(page, gradings, header={"bundle": "another"})) == []
    assert list(read_report(tmp_path / "none", gradings)) == []
    page.write_text("<html>")
    assert list(read_report(page, gradings)) == []
