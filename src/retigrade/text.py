"""Text that came from outside, made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_LISTED = 5
_FROM = ", from "


def shown(name: str) -> str:
    """Return `name` fit for one line of any terminal: what is not printable, or not Unicode, is escaped.

    >>> shown("eye\\n.jpg")
    'eye\\\\n.jpg'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def listing(items: Iterable[str], *, between: str = ", ") -> str:
    """Return the first few of some texts, and how many more there are.

    >>> listing("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    texts = list(items)
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return between.join(texts[:_LISTED]) + more


def lineage(origin: str) -> str:
    """Return where weights come from in three steps at most: the last two that were taken, and the first.

    >>> lineage("further, from robust, from best, from ImageNet")
    'further, from robust, ..., from ImageNet'
    """
    steps = origin.split(_FROM)
    return origin if len(steps) <= 3 else f"{_FROM.join(steps[:2])}, ...{_FROM}{steps[-1]}"


def first_problem(error: ValidationError) -> str:
    """Return where a file of JSON is not what it should be, and why: the first of what was found."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"])) or "the file"
    return f"{where}: {problem['msg']}"
