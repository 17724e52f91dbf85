from __future__ import annotations

import csv
import io
import math

import pytest

from retigrade.metrics.estimate import Estimate
from retigrade.paper.document import Document, Figure, Section, Table, shown

TABLE = Table(
    "numbers",
    "Numbers | and <more>",
    ("name", "count", "share", "estimate"),
    (
        ("a|b", 12345, 0.123456, Estimate.of(0.5, 0.4, 0.6)),
        ("<b>", None, math.nan, Estimate.of(0.7, math.nan, math.nan)),
    ),
    "a note",
)
FIGURE = Figure("picture", "A picture", b"<svg/>", "svg", "what it shows")
DOCUMENT = Document("A title", ("lead",), (Section("One", ("words *here*", TABLE, FIGURE)),))


def test_cells_as_people_read_them() -> None:
    cells = (
        None,
        math.nan,
        12345,
        0.12345,
        "text",
        Estimate.of(0.5, 0.4, 0.6),
        Estimate.of(math.nan, math.nan, math.nan),
    )
    assert [shown(cell) for cell in cells] == ["–", "–", "12,345", "0.123", "text", "0.500 (0.400-0.600)", "–"]


def test_csv_has_full_precision_and_columns_for_intervals() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.as_csv(), newline="")))
    assert rows[0] == ["name", "count", "share", "estimate", "estimate: low", "estimate: high"]
    assert rows[1] == ["a|b", "12345", "0.123456", "0.5", "0.4", "0.6"]
    assert rows[2] == ["<b>", "", "", "0.7", "", ""]


def test_markdown_escapes_and_points_to_the_figures() -> None:
    text = DOCUMENT.as_markdown(figures="figures")
    assert text.startswith("# A title\n\nlead\n")
    assert r"| a\|b | 12,345 | 0.123 | 0.500 (0.400-0.600) |" in text
    assert r"words \*here\*" in text
    assert "![what it shows](figures/picture.svg)" in text
    assert "<" not in text.replace("&lt;", "")


def test_html_stands_alone_and_escapes() -> None:
    page = DOCUMENT.as_html()
    assert "data:image/svg+xml;base64," in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert '<td class="number">12,345</td>' in page


def test_tables_and_figures_are_found_in_order() -> None:
    assert list(DOCUMENT.tables()) == [TABLE]
    assert [figure.file for figure in DOCUMENT.figures()] == ["picture.svg"]


def test_a_row_of_another_length_is_a_defect() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table("t", "t", ("a", "b"), (("only",),))
