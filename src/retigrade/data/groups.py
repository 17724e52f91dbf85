"""Groups of photographs that no split may part: equal files, duplicates, patients, and what these connect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from retigrade.arrays import Integers
from retigrade.data.manifest import Manifest

Groups = tuple[tuple[int, ...], ...]
"""Indices into a manifest's entries, ascending; each group has two or more."""


def connected_components(links: Iterable[Sequence[int]], *, size: int) -> Groups:
    """Join whatever is linked, directly or through others, among the indices 0 to `size` - 1.

    links: each some indices that belong together. The groups come in the order of their first members.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components as label

    pairs = [(first, other) for first, *others in links for other in others]
    if not pairs:
        return ()
    rows, columns = np.array(pairs, dtype=np.int64).T
    labels = label(coo_array((np.ones(len(pairs), bool), (rows, columns)), shape=(size, size)), directed=False)[1]
    return tuple(group for group in positions_by_key(labels.tolist()) if len(group) > 1)


def positions_by_key(keys: Iterable[Hashable]) -> list[tuple[int, ...]]:
    """The positions of each key, in the order in which the keys first come."""
    places = defaultdict(list)
    for index, key in enumerate(keys):
        places[key].append(index)
    return [tuple(group) for group in places.values()]


def independent_groups(manifest: Manifest, duplicates: Groups) -> Integers:
    """Number the independent groups: int64 (N,), equal where photographs share a file, duplicate, patient, or a chain.

    Splits keep a group whole, and intervals resample groups.
    """
    files = positions_by_key(entry.sha256 for entry in manifest.entries)
    patients = positions_by_key(entry.patient for entry in manifest.entries)
    group_of = np.arange(len(manifest), dtype=np.int64)
    for together in connected_components([*duplicates, *files, *patients], size=len(manifest)):
        group_of[list(together)] = together[0]
    return group_of


def find_conflicts(duplicates: Groups, manifest: Manifest) -> Groups:
    """The duplicates whose photographs carry different grades."""
    grades = manifest.grades
    return tuple(group for group in duplicates if len(set(grades[list(group)])) > 1)
