"""Which photographs belong together: equal keys, and the connected components of what is linked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

Groups = tuple[tuple[int, ...], ...]
"""Indices into a manifest's entries, ascending; each group has two or more."""


def connected_components(pairs: Iterable[Sequence[int]], *, size: int) -> Groups:
    """Join whatever is linked, directly or through others, among the indices 0 to `size` - 1."""
    parent = list(range(size))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, *others in pairs:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return tuple(group for group in positions_by_key([root(index) for index in range(size)]) if len(group) > 1)


def positions_by_key(keys: Iterable[Hashable]) -> list[tuple[int, ...]]:
    """The positions of each key, in the order in which the keys first come."""
    places = defaultdict(list)
    for index, key in enumerate(keys):
        places[key].append(index)
    return [tuple(group) for group in places.values()]
