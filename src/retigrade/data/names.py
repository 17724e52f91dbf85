"""Photographs by the names that label CSVs call them: with or without a suffix, in whatever folder they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

from retigrade.errors import DataError
from retigrade.locate import Change, pick, same, stem, without_zeros
from retigrade.text import listing, shown


class NameIndex:
    """Finds the photographs below one folder by name, as `Locator` finds them by path."""

    def __init__(self, root: Path, photographs: Sequence[Path]) -> None:
        """photographs: all that lie below `root`."""
        self._root, self._count = root, len(photographs)
        self._example = shown(photographs[0].name) if photographs else ""
        self._by_name, self._by_stem, self._by_number = (defaultdict[str, list[Path]](list) for _ in range(3))
        for path in photographs:
            self._by_name[same(path.name)].append(path)
            self._by_stem[same(stem(path.name))].append(path)
            if (digits := without_zeros(stem(path.name))) is not None:
                self._by_number[digits].append(path)

    def find(self, spellings: Sequence[str]) -> tuple[Path | None, Change]:
        """Return the photograph of a name, and by what its own name differs; None where there is none.

        Raises DataError where several can be meant.
        """
        for spelling in spellings:
            listed = PurePath(spelling)
            candidates, change = self._candidates(listed.name)
            # A name with folders is meant for the photograph that lies in them.
            inside = [path for path in candidates if path.parent.parts[-len(listed.parts) + 1 :] == listed.parts[:-1]]
            candidates = inside if inside and len(listed.parts) > 1 else candidates
            if len(candidates) > 1:
                raise DataError(
                    f"{shown(spelling)}: more than one picture has this name: {candidates[0]} and {candidates[1]}"
                )
            if candidates:
                return candidates[0], change
        return None, ""

    def why(self, path: Path) -> str:
        """Why there is no such photograph."""
        if self._count == 0:
            return f"there are no photographs below {shown(str(self._root))}"
        number = without_zeros(stem(path.name))
        if number is not None and (close := self._by_number.get(number)):
            return f"no photograph of this name (leading zeros lost? there is {listing(shown(p.name) for p in close)})"
        return (
            f"no photograph of this name among the {self._count} below {shown(str(self._root))}, such as "
            f"{self._example}"
        )

    def _candidates(self, name: str) -> tuple[list[Path], Change]:
        whole, short = self._by_name.get(same(name), []), self._by_stem.get(same(stem(name)), [])
        if whole:
            names, change = pick([path.name for path in whole], name)
            return [path for path in whole if path.name in names], change
        if short:
            names, change = pick([stem(path.name) for path in short], stem(name))
            return [path for path in short if stem(path.name) in names], change
        number = without_zeros(stem(name))
        close = [] if number is None else self._by_number.get(number, [])
        return (close, "zeros") if len(close) == 1 else ([], "")
