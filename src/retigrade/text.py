"""Text that came from outside, made fit to be shown."""

from __future__ import annotations


def shown(name: str) -> str:
    """Return `name` fit for one line of any terminal: what is not printable, or not Unicode, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
