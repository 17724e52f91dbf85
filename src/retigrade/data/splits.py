"""Parts of a data set that share no photograph, duplicate or patient; written to a file and verified on return."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from retigrade.arrays import Integers
from retigrade.data.groups import Groups, independent_groups, positions_by_key
from retigrade.data.manifest import Manifest
from retigrade.errors import DataError, LeakError, UsageError
from retigrade.files import write_whole
from retigrade.icdr import Grade
from retigrade.metadata import Training
from retigrade.text import first_problem, shown

TRAIN, VALIDATION, TEST = "train", "validation", "test"


class Leak(NamedTuple):
    """Two photographs, by index, in different parts, and what they share; first is second where one is in both."""

    first: int
    second: int
    shared: Literal["photograph", "duplicate", "patient"]


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Which part each photograph of a manifest is in.

    names: the parts. part_of: int64 (N,), the position in `names`. groups: the duplicates that were kept together.
    fingerprint: the manifest's. seed: what the assignment was drawn with.
    """

    names: tuple[str, ...]
    part_of: Integers
    groups: Groups
    fingerprint: str
    seed: int

    def part(self, name: str) -> Integers:
        """The indices in one part, ascending: int64; DataError where there is no such part."""
        if name not in self.names:
            raise DataError(f"the split has no part {name!r}; it has {', '.join(self.names)}")
        return np.flatnonzero(self.part_of == self.names.index(name))

    def rest(self, name: str) -> Integers:
        """The indices in all other parts, ascending: int64; for a fold, what is learned from."""
        return np.flatnonzero(self.part_of != self.names.index(name))

    def parts(self) -> dict[str, Integers]:
        """Every part's indices by its name."""
        return {name: self.part(name) for name in self.names}


def hold_out(manifest: Manifest, groups: Groups, *, fraction: float, seed: int) -> Splits:
    """Keep about `fraction` of each grade of each source apart: parts `train` and `test`.

    Raises UsageError unless 0 < fraction < 1, DataError where there are too few independent photographs.
    """
    return divide(manifest, groups, shares={TRAIN: 1 - fraction, TEST: fraction}, seed=seed)


def three_way(manifest: Manifest, groups: Groups, *, validation: float, test: float, seed: int) -> Splits:
    """Keep about these fractions of each grade of each source apart: parts `train`, `validation` and `test`.

    Raises as `hold_out` does.
    """
    shares = {TRAIN: 1 - validation - test, VALIDATION: validation, TEST: test}
    return divide(manifest, groups, shares=shares, seed=seed)


def k_fold(manifest: Manifest, groups: Groups, *, folds: int, seed: int) -> Splits:
    """Cut into equal parts `fold1` to `fold<folds>`, each with its share of each grade of each source.

    Raises UsageError below 2 folds, DataError where a grade has fewer independent photographs than folds.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds: need at least 2")
    group_of = independent_groups(manifest, groups)
    for grade in map(Grade, np.unique(manifest.grades)):
        with_grade = group_of[manifest.grades == grade]
        if len(np.unique(with_grade)) < folds:
            raise DataError(
                f"grade {grade:d} ({grade.stage}) has {len(with_grade)} photographs of {len(np.unique(with_grade))} "
                f"independent patients or duplicate groups, fewer than {folds} folds; use fewer or add photographs"
            )
    return divide(manifest, groups, shares={fold_name(number): 1 / folds for number in range(folds)}, seed=seed)


def fold_name(number: int) -> str:
    """The name of a part by its number from 0: `fold1` and so on."""
    return f"fold{number + 1}"


def by_source(manifest: Manifest, groups: Groups, *, seed: int) -> Splits:
    """One part for each data set, by its name as far as a folder can have it.

    seed: of what is drawn within the parts later. Raises DataError below two data sets or where two get one name,
    LeakError where two share a photograph, a duplicate or a patient.
    """
    sources = sorted(set(manifest.sources.tolist()))
    if len(sources) < 2:
        raise DataError(
            f"all {len(manifest)} photographs are of one data set, {shown(sources[0])}; to leave one out, give several "
            "folders, or a CSV with a column named source"
        )
    names = [re.sub(r"[^\w-]+", "-", source).strip("-").lower() or "unnamed" for source in sources]
    if len(set(names)) < len(names):
        raise DataError(f"two of the data sets {', '.join(map(shown, sources))} get the same folder; rename one")
    part_of = np.searchsorted(sources, manifest.sources).astype(np.int64)
    splits = Splits(tuple(names), part_of, groups, manifest.fingerprint, seed)
    check_leaks(splits.parts(), groups, manifest)
    return splits


def within(
    manifest: Manifest, splits: Splits, indices: Integers, *, shares: Mapping[str, float], seed: int
) -> dict[str, Integers]:
    """Divide some photographs of a split again, as `divide` does all: the indices of each part."""
    place = {int(index): position for position, index in enumerate(indices)}
    groups = tuple(tuple(place[i] for i in group if i in place) for group in splits.groups)
    some = Manifest(tuple(manifest.entries[index] for index in indices))
    inner = divide(some, tuple(group for group in groups if len(group) > 1), shares=shares, seed=seed)
    return {name: indices[part] for name, part in inner.parts().items()}


def divide(manifest: Manifest, groups: Groups, *, shares: Mapping[str, float], seed: int) -> Splits:
    """Cut into named parts of about these shares, stratified by grade and source, patients and duplicates kept whole.

    Raises UsageError unless the shares are positive and sum to 1, DataError where a part stays empty.
    """
    if not all(share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise UsageError(f"each part needs a positive share, and all together 1; got {dict(shares)}")
    group_of = independent_groups(manifest, groups)
    strata = np.unique([f"{entry.source}\n{entry.grade:d}" for entry in manifest.entries], return_inverse=True)[1]
    part_of = assign(group_of, strata, np.array(list(shares.values())), np.random.default_rng(seed))
    splits = Splits(tuple(shares), part_of, groups, manifest.fingerprint, seed)
    for name, indices in splits.parts().items():
        if len(indices) == 0:
            raise DataError(
                f"part {name!r} stays empty: {len(manifest)} photographs of {len(np.unique(group_of))} independent "
                f"patients or duplicate groups are too few for {len(shares)} parts"
            )
    check_leaks(splits.parts(), groups, manifest)
    return splits


def assign(group_of: Integers, strata: Integers, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Integers:
    """Give each group to the part that lacks its strata most, the rarest stratum and the largest groups first.

    group_of, strata: int64 (N,); shares: one a part, summing to 1. Returns the part of each photograph, int64 (N,).
    Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011.
    """
    groups, position = np.unique(group_of, return_inverse=True)
    counts = np.zeros((len(groups), strata.max() + 1))
    np.add.at(counts, (position, strata), 1)
    lacking = shares[:, None] * counts.sum(axis=0)
    assigned = np.full(len(groups), -1)
    for stratum in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        waiting = rng.permutation(np.flatnonzero((counts[:, stratum] > 0) & (assigned < 0)))
        for index in waiting[np.argsort(-counts[waiting].sum(axis=1), kind="stable")]:
            need = np.round(lacking[:, stratum], 9)
            tied = np.flatnonzero(need == need.max())
            total = np.round(lacking[tied].sum(axis=1), 9)
            part = rng.choice(tied[total == total.max()])
            assigned[index] = part
            lacking[part] -= counts[index]
    return np.asarray(assigned[position], dtype=np.int64)


def check_unseen(manifest: Manifest, splits: Splits, parts: Sequence[str], training: Training) -> None:
    """Raise DataError, naming one, where a bundle learned from photographs of these parts."""
    indices = np.concatenate([splits.part(part) for part in parts])
    if known := [entry.name for index in indices if training.has_seen((entry := manifest.entries[index]).sha256)]:
        raise DataError(
            f"the bundle learned from {len(known)} photographs of the part {' or '.join(parts)}, such as {known[0]}; "
            "give the split that it was trained by"
        )


def check_leaks(parts: Mapping[str, Sequence[int] | Integers], groups: Groups, manifest: Manifest) -> None:
    """Raise LeakError, naming one photograph, where two parts share a photograph, a duplicate or a patient."""
    leak = next(find_leaks(parts, groups, manifest), None)
    if leak is None:
        return
    first, second = manifest.entries[leak.first].name, manifest.entries[leak.second].name
    if leak.shared == "photograph":
        raise LeakError(f"{first}: the same photograph is in more than one part of the split")
    raise LeakError(f"{first} and {second}: the same {leak.shared} is in more than one part of the split")


def find_leaks(parts: Mapping[str, Sequence[int] | Integers], groups: Groups, manifest: Manifest) -> Iterator[Leak]:
    """Find what the parts share: each photograph in two of them, each duplicate group and each patient that spans two.

    Equal files count as duplicates whether or not they are among the `groups`.
    """
    part_of: dict[int, str] = {}
    for name, indices in parts.items():
        for index in map(int, indices):
            if part_of.setdefault(index, name) != name:
                yield Leak(index, index, "photograph")
    kinds: list[tuple[Literal["duplicate", "patient"], Groups]] = [
        ("duplicate", tuple(dict.fromkeys([*positions_by_key(entry.sha256 for entry in manifest.entries), *groups]))),
        ("patient", tuple(positions_by_key(entry.patient for entry in manifest.entries))),
    ]
    for shared, together in kinds:
        for group in together:
            inside = [index for index in group if index in part_of]
            for other in inside[1:]:
                if part_of[other] != part_of[inside[0]]:
                    yield Leak(inside[0], other, shared)
                    break


class _SplitFile(BaseModel):
    """The split file: photographs by name, the data set's fingerprint, and the digest of all else in the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = 1
    manifest: str
    seed: int
    parts: dict[str, list[str]]
    duplicates: list[list[str]]
    sha256: str = ""

    def digest(self) -> str:
        rest: dict[str, Any] = self.model_dump(exclude={"sha256"})
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_splits(splits: Splits, path: Path, manifest: Manifest) -> None:
    """Write the split as JSON, whole or not at all.

    Raises DataError where the split is of another manifest or leaks, UsageError where the file cannot be written.
    """
    _check_fingerprint(splits.fingerprint, manifest, "this split")
    check_leaks(splits.parts(), splits.groups, manifest)
    names = [entry.name for entry in manifest.entries]
    file = _SplitFile(
        manifest=splits.fingerprint,
        seed=splits.seed,
        parts={part: [names[index] for index in indices] for part, indices in splits.parts().items()},
        duplicates=[[names[index] for index in group] for group in splits.groups],
    )
    file.sha256 = file.digest()
    write_whole(path, file.model_dump_json(indent=1).encode())


def read_splits(path: Path, manifest: Manifest, *, allow_leaks: bool = False) -> Splits:
    """Read a split of this manifest back.

    Raises DataError where the file is not a split, was altered, is of another data set or misses a photograph, and
    LeakError where its parts share something; `allow_leaks` is for an audit that goes on to list what they share.
    """
    file = _read_file(path)
    _check_fingerprint(file.manifest, manifest, str(path))
    place = {entry.name: index for index, entry in enumerate(manifest.entries)}
    listed = list(chain.from_iterable(file.parts.values()))
    if sorted(listed) != sorted(place):
        raise DataError(f"{path}: does not list every photograph of the data set exactly once; make the split anew")
    part_of = np.empty(len(place), dtype=np.int64)
    for number, members in enumerate(file.parts.values()):
        part_of[[place[name] for name in members]] = number
    groups = tuple(tuple(sorted(place[name] for name in group)) for group in file.duplicates)
    splits = Splits(tuple(file.parts), part_of, groups, file.manifest, file.seed)
    if not allow_leaks:
        check_leaks(splits.parts(), groups, manifest)
    return splits


def narrow(manifest: Manifest, path: Path) -> Manifest:
    """Return the photographs of a manifest that a split file lists; how many others there are is in the notes.

    A data set that has grown can still be measured on the parts of an older split. Raises DataError where the file is
    not a split or was altered.
    """
    listed = set(chain.from_iterable(_read_file(path).parts.values()))
    entries = tuple(entry for entry in manifest.entries if entry.name in listed)
    if not 0 < len(entries) < len(manifest):
        return manifest
    note = f"{len(manifest) - len(entries)} photographs are not in the split {path.name} and were left out"
    return replace(manifest, entries=entries, notes=(*manifest.notes, note))


def _read_file(path: Path) -> _SplitFile:
    try:
        file = _SplitFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise DataError(f"{path}: not a split file ({first_problem(error)})") from error
    if file.sha256 != file.digest():
        raise DataError(f"{path}: was altered after it was written; make the split anew")
    return file


def _check_fingerprint(fingerprint: str, manifest: Manifest, what: str) -> None:
    if fingerprint != manifest.fingerprint:
        raise DataError(
            f"{what}: made for another data set (fingerprint {fingerprint[:12]}, these photographs have "
            f"{manifest.fingerprint[:12]}); give the folders that it was made from, or make the split anew"
        )
