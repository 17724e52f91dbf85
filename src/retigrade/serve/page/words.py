"""The words of the page: every sentence that a person reads is in `words.toml`, ready for translation."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


class Words:
    """Sentences by key, such as `grade.title`; called with the values for their braces."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        """table: sentences and tables of them, as TOML has them; one with `one` and `other` is chosen from by count."""
        self.sentences: dict[str, str] = {}
        self._flatten(table, "")

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence with its values. Raises KeyError where there is none."""
        return self.sentences[key].format(**values) if values else self.sentences[key]

    def n(self, key: str, count: int, **values: object) -> str:
        """Return a sentence about `count` things: `key.one` or `key.other`."""
        return self(f"{key}.{'one' if count == 1 else 'other'}", count=count, **values)

    def below(self, prefix: str) -> dict[str, str]:
        """Return the sentences whose keys start with `prefix.`, by the rest of the key."""
        start = f"{prefix}."
        return {key.removeprefix(start): text for key, text in self.sentences.items() if key.startswith(start)}

    def _flatten(self, table: Mapping[str, Any], prefix: str) -> None:
        for name, value in table.items():
            if isinstance(value, Mapping):
                self._flatten(value, f"{prefix}{name}.")
            else:
                self.sentences[prefix + name] = str(value)


@cache
def words() -> Words:
    """Return the words of the page."""
    return Words(tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text("utf-8")))
