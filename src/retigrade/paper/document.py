"""The report as data: sections of paragraphs, tables and figures, and the three ways in which it is written down."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

import jinja2

from retigrade.metrics.estimate import Estimate

Cell = str | int | float | Estimate | None
_MEDIA = {"svg": "image/svg+xml", "jpg": "image/jpeg"}
_MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "*": r"\*", "`": r"\`", "<": "&lt;", "\n": " "})


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; an empty cell (None or nan) has no value. key names its file."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.key}: a row has {len(row)} cells under {len(self.columns)} columns: {row}")

    def as_csv(self) -> str:
        """The columns and rows, RFC 4180; numbers with full precision, an estimate's interval in columns of its own."""
        wide = [any(isinstance(row[place], Estimate) for row in self.rows) for place in range(len(self.columns))]
        names = (
            [name, f"{name}: low", f"{name}: high"] if w else [name] for name, w in zip(self.columns, wide, strict=True)
        )
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        writer.writerow(chain.from_iterable(names))
        for row in self.rows:
            cells = chain.from_iterable(
                [cell.value, cell.low, cell.high] if isinstance(cell, Estimate) else [cell] for cell in row
            )
            writer.writerow(["" if _empty(cell) else cell for cell in cells])
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture, svg or jpg. key names its file; alt tells what it shows to those who cannot see it."""

    key: str
    title: str
    data: bytes
    suffix: str
    alt: str
    note: str = ""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.key}.{self.suffix}"

    @property
    def uri(self) -> str:
        """The picture itself, for a page that stands alone."""
        return f"data:{_MEDIA[self.suffix]};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it; a str is a paragraph."""

    title: str
    items: tuple[str | Table | Figure, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The whole report; lead: paragraphs under its title."""

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]

    def tables(self) -> Iterator[Table]:
        """Every table, in order."""
        return (item for section in self.sections for item in section.items if isinstance(item, Table))

    def figures(self) -> Iterator[Figure]:
        """Every figure, in order."""
        return (item for section in self.sections for item in section.items if isinstance(item, Figure))

    def as_html(self) -> str:
        """One page that needs no other file."""
        return _template().render(document=self)

    def as_markdown(self, *, figures: str) -> str:
        """The same as Markdown; figures: the folder beside it that holds their files."""
        return "\n".join(self._markdown(figures)) + "\n"

    def _markdown(self, figures: str) -> Iterator[str]:
        yield f"# {_escaped(self.title)}"
        for paragraph in self.lead:
            yield f"\n{_escaped(paragraph)}"
        for section in self.sections:
            yield f"\n## {_escaped(section.title)}"
            for item in section.items:
                match item:
                    case Table():
                        yield f"\n### {_escaped(item.title)}\n"
                        yield _line(item.columns)
                        yield "|" + " --- |" * len(item.columns)
                        yield from (_line(shown(cell) for cell in row) for row in item.rows)
                    case Figure():
                        yield f"\n### {_escaped(item.title)}\n"
                        yield f"![{_escaped(item.alt)}]({figures}/{item.file})"
                    case _:
                        yield f"\n{_escaped(item)}"
                if not isinstance(item, str) and item.note:
                    yield f"\n{_escaped(item.note)}"


def shown(cell: Cell) -> str:
    """A cell as people read it: whole numbers with separators, fractions to three decimals, nothing as a dash."""
    if isinstance(cell, Estimate):
        return "–" if cell.value is None else str(cell)
    if cell is None or _empty(cell):
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.3f}" if isinstance(cell, float) else cell


def _empty(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _numeric(cell: Cell) -> bool:
    """Whether a cell stands to the right: a number, or a difference with its sign."""
    return not isinstance(cell, str) or (cell[:1] in "+-" and cell[1:2].isdigit())


def _line(cells: Iterator[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    return text.translate(_MARKDOWN)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retigrade.paper"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.tests["text"] = lambda item: isinstance(item, str)
    environment.tests["table"] = lambda item: isinstance(item, Table)
    environment.tests["numeric"] = _numeric
    return environment.get_template("report.html.j2")
