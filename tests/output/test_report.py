from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gradings import graded, heat, refused
from retigrade.grading import Grading
from retigrade.icdr import Grade, Status
from retigrade.output.journal import Record, Stamp
from retigrade.output.overlay import as_jpeg, pair
from retigrade.output.report import read_report, report
from retigrade.output.rows import as_row, json_line
from retigrade.synthetic import Phantom
from tiny_bundle import tiny_card

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """The rows of a report as text, its addresses and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        if self._open:
            raise ValueError(f"never closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if any(name.startswith("on") for name, _ in attrs):
            raise ValueError(f"an event handler in {tag}: {attrs}")
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open.pop() != tag:
            raise ValueError(f"badly nested: {tag}")

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open:
            self.rows[-1][-1] += data


HEADER = {"bundle": "tiny@0123456789ab"}


def record_of(grading: Grading, **changes: object) -> Record:
    fixed = {"row": as_row(grading), "name": "a.jpg", "stamp": Stamp(1, 2)}
    return Record(**{**fixed, **changes})  # type: ignore[arg-type]


def write(folder: Path, records: Sequence[Record], *, total: int | None = None, skipped: Sequence[str] = ()) -> str:
    parts = report(
        lambda: iter(records),
        header=HEADER,
        metadata=tiny_card(),
        bundle="tiny@0123456789ab",
        operating_point=None,
        total=len(records) if total is None else total,
        skipped=skipped,
    )
    html = "".join(parts)
    (folder / "report.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    (folder / "gradings.jsonl").write_text("".join(json_line(record.row) for record in records))
    return (folder / "report.html").read_text(encoding="utf-8")


def written(folder: Path, *gradings: Grading, total: int | None = None, skipped: tuple[str, ...] = ()) -> Page:
    return Page(write(folder, list(map(record_of, gradings)), total=total, skipped=skipped))


def test_there_is_a_row_for_every_input_with_its_verdict_or_reason(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        graded("a.jpg"),
        refused("b.jpg", Status.ERROR, "the file is empty"),
        refused("c.jpg", Status.UNGRADABLE, "too dark"),
        refused("d.jpg"),
    )
    _, first, *others = page.rows
    assert first[1] == "a.jpg"
    assert "moderate" in first[2]
    assert "0.600" in first[3]
    assert first[4].split() == ["yes", "0.850"]
    assert [(row[1], row[2].strip(), row[6]) for row in others] == [
        ("b.jpg", "error", "the file is empty"),
        ("c.jpg", "ungradable", "too dark"),
        ("d.jpg", "not fundus", "no retinal disc"),
    ]
    assert not any(row[3].strip() for row in others)


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
        assert sentence in page.text
    assert "interrupted" not in page.text


def test_possible_stages_are_named_where_there_are_several(tmp_path: Path) -> None:
    page = written(
        tmp_path, graded(prediction_set=(Grade.MODERATE, Grade.SEVERE)), graded(prediction_set=(Grade.MODERATE,))
    )
    assert "possible: moderate to severe" in page.rows[1][2]
    assert "prediction_set" not in page.rows[2][2]


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    page = written(tmp_path, graded(), total=300)
    assert "1 of 300 inputs were finished" in page.text


def test_what_was_passed_over_is_named(tmp_path: Path) -> None:
    page = written(tmp_path, graded(), skipped=("notes\n<b>.txt: not a picture file",))
    assert "notes\\n<b>.txt: not a picture file" in page.text


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>.jpg", "\"><img src=x onerror='alert(1)'>", "a\nb\udce9.jpg", "{{ 7 * 7 }}", "&lt;"],
)
def test_a_name_is_only_text(tmp_path: Path, name: str) -> None:
    page = written(tmp_path, refused(name, reason=f"{name}: empty"))
    assert page.rows[1][1] == name.replace("\n", "\\n").replace("\udce9", "\\udce9")
    assert "script" not in page.tags
    assert page.addresses == []


def test_pictures_travel_inside_the_page(tmp_path: Path, eye: Phantom) -> None:
    height, width = eye.pixels.shape[:2]
    thumbnail = base64.b64encode(as_jpeg(pair(eye.pixels, heat(width=width, height=height), side=90))).decode()
    name = "a #1?\udce9.jpg"
    html = write(tmp_path, [record_of(graded(), name=name, files=(f"heat/{name}.png",), thumbnail=thumbnail)])
    page = Page(html)
    assert page.addresses[0] == "heat/a%20%231%3F%E9.jpg.png"
    assert page.addresses[1].startswith("data:image/jpeg;base64,/9j/")
    assert len(page.addresses) == 2
    assert not re.search(r"https?://|url\(|@import", html)


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
