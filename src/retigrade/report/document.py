"""A document as data: sections of text, tables and images, written as one self-contained HTML page, Markdown and CSV.

    document = Document("Title", ("Of what and when.",), (Section("Results", (Text("..."), Table(...), Image(...))),))
    as_html(document), as_markdown(document, images="figures"), table.as_csv()

Whatever is shown may come from outside: the page's template and `_escaped` are the only two places that escape it.
"""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import chain
from typing import Literal

from retigrade.metrics.estimate import Estimate
from retigrade.report.style import template
from retigrade.text import shown

Cell = str | int | float | Estimate | None
"""None, nan and an estimate without a value show as a dash and are empty in CSV."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headings; the first column names the row.

    headings: all empty for a table of facts, which is shown without a heading row. title, note: above and below it.
    key: the name of its CSV file without suffix. Raises ValueError where a row has another number of cells.
    """

    headings: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    _: KW_ONLY
    title: str = ""
    note: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"a row has {len(row)} cells under {len(self.headings)} headings: {row}")

    def as_csv(self) -> str:
        """The headings and rows, RFC 4180: numbers with full precision, an interval's ends in columns of their own."""
        wide = [any(isinstance(row[place], Estimate) for row in self.rows) for place in range(len(self.headings))]
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        ends = ("", ": low", ": high")
        names = zip(self.headings, wide, strict=True)
        writer.writerow(f"{name}{end}" for name, is_wide in names for end in (ends if is_wide else ends[:1]))
        for row in self.rows:
            writer.writerow(chain.from_iterable(map(_csv_cells, row, wide)))
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Image:
    """A plot (SVG) or photograph (JPEG); caption: what it shows, also for those who cannot see it.

    title, note: above and below it. key: the name of its file without suffix.
    """

    data: bytes
    suffix: Literal["svg", "jpg"]
    caption: str
    _: KW_ONLY
    title: str = ""
    note: str = ""
    key: str = ""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.key}.{self.suffix}"

    @property
    def address(self) -> str:
        """The image itself as an address, so that a page needs no other file."""
        kind = {"svg": "svg+xml", "jpg": "jpeg"}[self.suffix]
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Gallery:
    """Small images beside each other."""

    images: tuple[Image, ...]


Block = Text | Table | Image | Gallery


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole page; lead: the paragraphs under its title, the first of which says of what and when."""

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]

    def tables(self) -> Iterator[Table]:
        """Every table, in order."""
        return (block for section in self.sections for block in section.blocks if isinstance(block, Table))

    def images(self) -> Iterator[Image]:
        """Every image outside galleries, in order."""
        return (block for section in self.sections for block in section.blocks if isinstance(block, Image))


def folded(table: Table) -> Table:
    """The same table without the columns that say one thing in every row, which the note then says.

    At least one column stays; a column of nothing but dashes is left out without a word.
    """
    texts = [[as_text(row[place]) for row in table.rows] for place in range(len(table.headings))]
    constant = [place for place, column in enumerate(texts) if len(column) > 1 and len(set(column)) == 1]
    if not constant or len(constant) == len(table.headings):
        return table
    kept = [place for place in range(len(table.headings)) if place not in constant]
    facts = [f"{table.headings[place]} {texts[place][0]}" for place in constant if texts[place][0] != "–"]
    stated = f"In every row: {'; '.join(facts)}." if facts else ""
    return replace(
        table,
        headings=tuple(table.headings[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        note=f"{table.note} {stated}".strip(),
    )


def as_html(document: Document) -> str:
    """One page that needs no network, no script and no other file."""
    kinds = {Text: "text", Table: "table", Image: "image", Gallery: "gallery"}
    page = template("retigrade.report", "page.html.j2")
    return page.render(document=document, kind=lambda block: kinds[type(block)], cell=as_text, numeric=_is_numeric)


def as_markdown(document: Document, *, images: str | None = None) -> str:
    """The same as GitHub's Markdown; images: the folder beside it that holds their files, None leaves them out."""
    return "\n".join(_lines(document, images)).rstrip() + "\n"


def as_text(cell: Cell) -> str:
    """A cell as people read it: whole numbers with separators, fractions to three decimals, nothing as a dash."""
    match cell:
        case str():
            return cell
        case Estimate():
            return "–" if cell.value is None else str(cell)
        case int():
            return f"{cell:,}"
        case float() if not math.isnan(cell):
            return f"{cell:.3f}"
        case _:
            return "–"


def _csv_cells(cell: Cell, wide: bool) -> list[str | int | float]:
    numbers = [cell.value, cell.low, cell.high] if isinstance(cell, Estimate) else [cell, None, None]
    defined = ["" if value is None or (isinstance(value, float) and math.isnan(value)) else value for value in numbers]
    return defined if wide else defined[:1]


def _is_numeric(cell: Cell) -> bool:
    """Whether a cell stands to the right: a number, or a difference with its sign."""
    return not isinstance(cell, str) or (cell[:1] in "+-" and cell[1:2].isdigit())


def _lines(document: Document, images: str | None) -> Iterator[str]:
    yield from (f"# {_escaped(document.title)}", "")
    for paragraph in document.lead:
        yield from (_escaped(paragraph), "")
    for section in document.sections:
        yield from (f"## {_escaped(section.title)}", "")
        for block in section.blocks:
            match block:
                case Text():
                    yield from (f"> **{_escaped(block.text)}**" if block.warning else _escaped(block.text), "")
                case Table():
                    yield from _titled(block)
                    yield from _table_lines(block)
                    yield from ("", *_noted(block))
                case Image() if images is not None:
                    yield from _titled(block)
                    yield from (f"![{_escaped(block.caption)}]({images}/{block.file})", "", *_noted(block))
                case _:
                    continue


def _titled(block: Table | Image) -> tuple[str, ...]:
    return (f"### {_escaped(block.title)}", "") if block.title else ()


def _noted(block: Table | Image) -> tuple[str, ...]:
    return (_escaped(block.note), "") if block.note else ()


def _table_lines(table: Table) -> Iterator[str]:
    if not any(table.headings):  # a table of facts: Markdown has no table without a heading row
        for name, *facts in table.rows:
            yield f"- {_escaped(as_text(name))}: {', '.join(_escaped(as_text(fact)) for fact in facts)}"
        return
    yield _row(table.headings)
    yield "|" + " --- |" * len(table.headings)
    yield from map(_row, table.rows)


def _row(cells: Sequence[Cell]) -> str:
    return f"| {' | '.join(_escaped(as_text(cell)) for cell in cells)} |"


_SPECIAL = re.compile(r"[\\`*|\[\]]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is one to Markdown too


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, whatever a file is called."""
    return _SPECIAL.sub(r"\\\g<0>", shown(text)).replace("&", "&amp;").replace("<", "&lt;")
