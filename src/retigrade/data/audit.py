"""What `retigrade check` reports of a labelled data set before anyone learns from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retigrade.data.duplicates import find_pairs
from retigrade.data.groups import Groups, connected_components, find_conflicts
from retigrade.data.manifest import Manifest, read_manifest
from retigrade.data.shortcut import ShortcutAudit, audit_shortcut
from retigrade.data.splits import Leak, Splits, find_leaks, read_splits
from retigrade.errors import DataError, UsageError
from retigrade.icdr import GRADES
from retigrade.progress import RunProgress
from retigrade.text import shown

_SHOWN = 5  # examples of each finding in the text; the JSON has them all


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The findings on one data set.

    duplicates: groups of photographs that show the same, of which the `copies` have equal bytes or pixels.
    conflicts: those groups with more than one grade. leaks: what a given split's parts share, None where none was
    given. shortcut: None where it could not be measured, for the reason in `notes`.
    """

    manifest: Manifest
    duplicates: Groups
    copies: Groups
    conflicts: Groups
    shortcut: ShortcutAudit | None
    leaks: tuple[Leak, ...] | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The findings as plain JSON values; `leaks` is there only where a split was given."""
        manifest = self.manifest
        findings: dict[str, Any] = {
            "counts": {
                "photographs": len(manifest),
                "grades": _per_grade(manifest, np.full(len(manifest), True)),
                "sources": {source: _per_grade(manifest, manifest.sources == source) for source in _sources(manifest)},
                "sizes": {f"{width}x{height}": n for (width, height), n in _sizes(manifest).most_common()},
                "notes": list(self.notes),
            },
            "unreadable": [{"path": str(item.path), "reason": item.reason} for item in manifest.unreadable],
            "unusable": [{"path": str(item.path), "reason": item.reason} for item in manifest.unusable],
            "duplicates": self._paths(self.duplicates),
            "conflicts": self._paths(self.conflicts),
            "shortcut": None if self.shortcut is None else _shortcut_json(self.shortcut),
        }
        if self.leaks is not None:
            findings["leaks"] = [
                {"shared": leak.shared, "photographs": self._paths([(leak.first, leak.second)])[0]}
                for leak in self.leaks
            ]
        return findings

    def as_text(self) -> str:
        """The findings for people, in plain lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        manifest = self.manifest
        yield f"{len(manifest)} photographs, fingerprint {manifest.fingerprint[:12]}"
        yield ""
        sources = _sources(manifest)
        wide = max(len(name) for name in (*sources, "together"))
        yield f"{'grade':<{wide}}" + "".join(f"{grade:>8d}" for grade in GRADES) + f"{'all':>8}"
        for name in (*sources, "together") if len(sources) > 1 else sources:
            chosen = manifest.sources == name if name in sources else np.full(len(manifest), True)
            counts = _per_grade(manifest, chosen).values()
            yield f"{name:<{wide}}" + "".join(f"{count:>8d}" for count in counts) + f"{sum(counts):>8d}"
        yield ""
        sizes = _sizes(manifest).most_common()
        common = ", ".join(f"{width} x {height} ({count})" for (width, height), count in sizes[:_SHOWN])
        yield f"Sizes in pixels: {common}" + (f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else "")
        yield f"Missing or unreadable: {len(manifest.unreadable)}"
        yield from _some(map(str, manifest.unreadable), len(manifest.unreadable))
        yield f"Without a retinal disc: {len(manifest.unusable)}"
        yield from _some(map(str, manifest.unusable), len(manifest.unusable))
        yield f"Duplicates: {_tally(self.duplicates)}; of these equal in bytes or pixels: {_tally(self.copies)}"
        yield f"Duplicates with more than one grade: {_tally(self.conflicts)}"
        conflicts = (
            "  ".join(f"{self._name(i)} (grade {manifest.entries[i].grade:d})" for i in group)
            for group in self.conflicts
        )
        yield from _some(conflicts, len(self.conflicts))
        if self.leaks is not None:
            yield f"Shared between the parts of the split: {_leak_tally(self.leaks)}"
            pairs = (dict.fromkeys((self._name(leak.first), self._name(leak.second))) for leak in self.leaks)
            shared = (
                f"the same {leak.shared}: {' and '.join(pair)}" for leak, pair in zip(self.leaks, pairs, strict=True)
            )
            yield from _some(shared, len(self.leaks))
        if self.shortcut is not None:
            yield from _shortcut_lines(self.shortcut)
        yield from (f"Note: {note}" for note in self.notes)

    def _name(self, index: int) -> str:
        return shown(str(self.manifest.entries[index].path))

    def _paths(self, groups: Groups | list[tuple[int, ...]]) -> list[list[str]]:
        return [[str(self.manifest.entries[index].path) for index in group] for group in groups]


def check(
    data: Path | str | Sequence[Path | str],
    *,
    splits: Path | None = None,
    size: int = 224,
    seed: int = 0,
    progress: RunProgress | None = None,
) -> Audit:
    """Audit labelled photographs before anyone learns from them, as `retigrade check` does.

    data: labelled folders or CSV files. splits: a split file to search for what its parts share. size: side in pixels
    of the canonical pictures. seed: of the shortcut audit's random forest. progress: hears of each step.
    The audit's manifest lists what cannot be used as `unreadable` and `unusable`. Raises DataError where a layout is
    not recognised, a grade is wrong, or the split is of other photographs.
    """
    manifest = read_manifest(data, size=size, skip_unreadable=True, progress=progress)
    parts = None if splits is None else read_splits(splits, manifest, allow_leaks=True)
    return audit(manifest, splits=parts, size=size, seed=seed, progress=progress)


def audit(
    manifest: Manifest,
    *,
    splits: Splits | None = None,
    size: int = 224,
    seed: int = 0,
    progress: RunProgress | None = None,
) -> Audit:
    """Look for duplicates, conflicting grades, leaks between the parts of `splits`, and shortcuts in the frame.

    manifest: read with the same `size`. size, seed, progress: as `audit_shortcut` takes them.
    """
    pairs = find_pairs(manifest.paths, progress=progress)
    duplicates = connected_components(((pair.first, pair.second) for pair in pairs), size=len(manifest))
    notes = manifest.notes
    shortcut = None
    try:
        shortcut = audit_shortcut(manifest, duplicates, size=size, seed=seed, progress=progress)
    except (UsageError, DataError) as error:
        notes += (f"the shortcut audit was left out: {error}",)
    return Audit(
        manifest=manifest,
        duplicates=duplicates,
        copies=connected_components(((pair.first, pair.second) for pair in pairs if pair.exact), size=len(manifest)),
        conflicts=find_conflicts(duplicates, manifest),
        shortcut=shortcut,
        leaks=None if splits is None else tuple(find_leaks(splits.parts(), duplicates, manifest)),
        notes=notes,
    )


def _some(lines: Iterable[str], count: int) -> Iterator[str]:
    """The first few lines, indented, and how many more there are."""
    yield from (f"  {line}" for line in islice(lines, _SHOWN))
    if count > _SHOWN:
        yield f"  and {count - _SHOWN} more"


def _sources(manifest: Manifest) -> list[str]:
    return sorted({entry.source for entry in manifest.entries})


def _per_grade(manifest: Manifest, chosen: npt.NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(manifest.grades[chosen], minlength=len(GRADES))
    return {str(int(grade)): int(counts[grade]) for grade in GRADES}


def _sizes(manifest: Manifest) -> Counter[tuple[int, int]]:
    return Counter((entry.width, entry.height) for entry in manifest.entries)


def _tally(groups: Groups) -> str:
    return f"{len(groups)} groups of {sum(map(len, groups))} photographs"


def _leak_tally(leaks: tuple[Leak, ...]) -> str:
    counts = Counter(leak.shared for leak in leaks)
    return ", ".join(f"{shared}s {count}" for shared, count in sorted(counts.items())) or "nothing"


def _shortcut_json(shortcut: ShortcutAudit) -> dict[str, Any]:
    return {
        "before": _defined(asdict(shortcut.before)),
        "canonical_field": _defined(asdict(shortcut.canonical)),
        "after": _defined(asdict(shortcut.after)),
        "quadratic_kappa_drop": _defined({"drop": shortcut.drop})["drop"],
        "majority_accuracy": shortcut.majority,
        "photographs": shortcut.photographs,
        "folds": shortcut.folds,
    }


def _defined(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no nan: a figure that is not defined is null."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _shortcut_lines(shortcut: ShortcutAudit) -> Iterator[str]:
    yield (
        f"The black frame alone tells the grade ({shortcut.folds} folds, patients and duplicates kept together; "
        f"always answering the most frequent grade: accuracy {shortcut.majority:.3f}):"
    )
    yield f"  {'':<30}{'accuracy':>10}{'QWK':>8}{'referable AUROC':>18}"
    stages = (
        ("whole frame", shortcut.before),
        ("canonical field", shortcut.canonical),
        ("canonical field, crops matched", shortcut.after),
    )
    for name, scores in stages:
        yield f"  {name:<30}{scores.accuracy:>10.3f}{scores.quadratic_kappa:>8.3f}{scores.referable_auroc:>18.3f}"
