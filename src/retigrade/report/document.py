"""Sections of text, tables and pictures, and those as one self-contained HTML page or as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from retigrade.report.page import template
from retigrade.text import shown


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headings; the first column names the row."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.headings) for row in self.rows):
            raise ValueError(f"each row needs {len(self.headings)} cells")


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG or JPEG file with a sentence on what it shows; in Markdown only the pages tell of it."""

    data: bytes
    kind: Literal["svg+xml", "jpeg"]
    caption: str

    @property
    def address(self) -> str:
        """The picture itself as an address, so that the page needs no other file."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Gallery:
    """Small pictures beside each other."""

    pictures: tuple[Picture, ...]


Block = Text | Table | Picture | Gallery


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole page; the subtitle says of what and when."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def as_html(document: Document) -> str:
    """One page that needs no network, no script and no other file."""
    kinds = {Text: "text", Table: "table", Picture: "picture", Gallery: "gallery"}
    page = template("retigrade.report", "page.html.j2")
    return page.render(document=document, kind=lambda block: kinds[type(block)])


def as_markdown(document: Document) -> str:
    """The same as GitHub's Markdown, without the pictures."""
    return "\n".join(_lines(document)).rstrip() + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield from (f"# {_plain(document.title)}", "", _plain(document.subtitle), "")
    for section in document.sections:
        yield from (f"## {_plain(section.title)}", "")
        for block in section.blocks:
            match block:
                case Text(text, warning):
                    yield from (f"> **{_plain(text)}**" if warning else _plain(text), "")
                case Table(headings, rows):
                    yield _row(headings)
                    yield _row(["---"] * len(headings))
                    yield from map(_row, rows)
                    yield ""
                case Picture() | Gallery():
                    continue


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, whatever a file is called."""
    line = shown(text)
    for character in "\\`*_[]|":
        line = line.replace(character, f"\\{character}")
    return line.replace("&", "&amp;").replace("<", "&lt;")
