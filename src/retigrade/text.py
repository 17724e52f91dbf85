"""Text that came from outside, made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable

_LISTED = 5


def shown(name: str) -> str:
    """Return `name` fit for one line of any terminal: what is not printable, or not Unicode, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def listing(items: Iterable[str], *, most: int = _LISTED) -> str:
    """Return the first few of some texts, and how many more there are: "a, b, c and 22 more"."""
    texts = list(items)
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
