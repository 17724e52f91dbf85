from __future__ import annotations

import csv
import io
import math
import re

import pytest

from retigrade.metrics.estimate import Estimate
from retigrade.report.document import Document, Gallery, Image, Section, Table, Text, as_html, as_markdown, as_text

TABLE = Table(
    ("name", "count", "share", "estimate"),
    (("a|b", 12345, 0.123456, Estimate.of(0.5, 0.4, 0.6)), ("<b>", None, math.nan, Estimate.of(0.7))),
    title="Numbers | and <more>",
    note="a note",
    key="numbers",
)
IMAGE = Image(b"<svg/>", "svg", "what it shows", title="A plot", key="plot")
DOCUMENT = Document(
    "Title <x>", ("First.", "Second."), (Section("One & two", (Text("Careful.", warning=True), TABLE, IMAGE)),)
)


def test_cells_as_people_read_them() -> None:
    cells = (None, math.nan, 12345, 0.12345, "text", Estimate.of(0.5, 0.4, 0.6), Estimate.of(math.nan))
    assert [as_text(cell) for cell in cells] == ["–", "–", "12,345", "0.123", "text", "0.500 (0.400-0.600)", "–"]


def test_csv_keeps_full_precision_and_the_ends_of_intervals() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.as_csv())))
    assert rows == [
        ["name", "count", "share", "estimate", "estimate: low", "estimate: high"],
        ["a|b", "12345", "0.123456", "0.5", "0.4", "0.6"],
        ["<b>", "", "", "0.7", "", ""],
    ]


def test_markdown_tells_all_and_shows_what_is_special_as_it_is() -> None:
    text = as_markdown(DOCUMENT, images="plots")
    assert "# Title &lt;x>\n\nFirst.\n\nSecond.\n\n## One &amp; two\n\n> **Careful.**\n" in text
    assert "### Numbers \\| and &lt;more>" in text
    assert "| a\\|b | 12,345 | 0.123 | 0.500 (0.400-0.600) |" in text
    assert "![what it shows](plots/plot.svg)" in text
    assert "plot" not in as_markdown(DOCUMENT)


def test_an_underscore_inside_a_word_needs_no_backslash() -> None:
    text = as_markdown(Document("mobilenetv2_100 _emphasis_", (), ()))
    assert text == "# mobilenetv2_100 \\_emphasis\\_\n"


def test_facts_have_no_heading_row() -> None:
    document = Document("t", (), (Section("s", (Table(("", ""), [("made", "today"), ("photographs", 1000)]),)),))
    assert "- made: today\n- photographs: 1,000\n" in as_markdown(document)
    assert "|" not in as_markdown(document)
    assert "<th>" not in as_html(document)


def test_the_page_needs_no_other_file_and_escapes_names() -> None:
    evil = "<b>|`a`\n[x]\x1b]0;"
    blocks = (Text(evil), Table((evil,), [(evil,)], title=evil, note=evil), Gallery((Image(b"", "jpg", evil),)))
    document = Document(evil, (evil,), (Section(evil, blocks), *DOCUMENT.sections))
    page = as_html(document)
    assert "<b>" not in page
    assert "\x1b" not in page
    assert "data:image/svg+xml;base64," in page
    assert not re.search(r"https?://|@import|<script", page)
    text = as_markdown(document)
    assert "<b>" not in text
    assert r"\|\`a\`\\n\[x\]" in text


def test_rows_must_fit_their_headings() -> None:
    with pytest.raises(ValueError, match="2 headings"):
        Table(("a", "b"), [("1",)])


def test_tables_and_images_are_found_in_order() -> None:
    assert list(DOCUMENT.tables()) == [TABLE]
    assert [image.file for image in DOCUMENT.images()] == ["plot.svg"]
