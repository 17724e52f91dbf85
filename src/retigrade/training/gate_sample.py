"""What the gate is fitted to: measures of eyes, of the same in other colours, and of pictures of anything else."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Pixels, Reals
from retigrade.data.cache import canonical
from retigrade.data.manifest import Entry, read_manifest
from retigrade.errors import PhotoError
from retigrade.fundus.canonical import canonical_view
from retigrade.fundus.decode import decode
from retigrade.fundus.measures import Measures, measure
from retigrade.icdr import GRADES
from retigrade.inputs import expand
from retigrade.synthetic import draw_eye
from retigrade.training.negatives import SIZE, cast, hue_turned, orange, round_views, tree

_log = logging.getLogger(__name__)

FOLDS = 5
GOOD, USABLE, REJECT = "0", "1", "2"
"""The quality labels of EyeQ."""
WEIGHT_USABLE = 4.0
"""Of a photograph that can still be read: it must not be asked for again."""
ADVANCED, WEIGHT_ADVANCED = 3, 3.0
"""The least of the stages whose refusal costs most, and which are few and look unlike the rest; and what they weigh."""
_DRAWN = 200  # fruit, and as many trees and eyes
_COLOURS = 200  # photographs that lend their colours to other pictures
_WEIGHT = {"tree": 4.0, "fruit": 2.0}  # there are few of them


@dataclass(frozen=True, slots=True, eq=False)
class GateSample:
    """Measured pictures.

    measures: (n, 40). kind: of each. picture: equal for views of one, and for the eyes of one patient. source: data set
    of a photograph. quality: as labelled, "" where it is not. grade: 0 to 4, -1 where there is none.
    """

    measures: Measures
    kind: npt.NDArray[np.str_]
    picture: npt.NDArray[np.int64]
    source: npt.NDArray[np.str_]
    quality: npt.NDArray[np.str_]
    grade: npt.NDArray[np.int64]

    @property
    def eyes(self) -> Flags:
        """Which must pass: photographs, those in another camera's colours, and drawn eyes."""
        return np.isin(self.kind, ("eye", "cast", "drawn eye"))

    @property
    def weight(self) -> Reals:
        """What there is less of counts for more."""
        weight = np.array([_WEIGHT.get(kind, 1.0) for kind in self.kind.tolist()])
        return np.where(self.eyes & (self.grade >= ADVANCED), WEIGHT_ADVANCED, weight)

    @property
    def weight_of_judged(self) -> Reals:
        """How much each photograph counts where it is asked whether anybody could read it: usable ones for more.

        What nobody judged counts for nothing where others of its source were. Data sets without a label were published
        as readable; without them a score would know their cameras.
        """
        photographs = self.kind == "eye"
        labelled = np.isin(self.source, np.unique(self.source[photographs & (self.quality != "")]))
        judged = photographs & (~labelled | (self.quality != ""))
        return np.where(judged, np.where(self.quality == USABLE, WEIGHT_USABLE, 1), 0)

    def of_origin(self, name: str) -> Flags:
        """Which are of an origin within their data set."""
        return np.asarray(np.char.endswith(self.source, f" {name}"))

    def parts(self, *, altered: str) -> dict[str, Flags]:
        """The photographs that a report is of, by what it calls them: by source, label of quality and stage.

        altered: the origin whose photographs were altered.
        """
        photographs, poor = self.kind == "eye", self.quality == REJECT
        labels = {"good": GOOD, "usable": USABLE, "reject": REJECT}
        chosen = {}
        for source in sorted(set(self.source[photographs].tolist())):
            here = photographs & (self.source == source)
            chosen[f"eyes of {source}"] = here & ~poor
            chosen |= {f"{source}, {name}": here & (self.quality == label) for name, label in labels.items()}
        for part, which in (("", photographs), ("unaltered, ", photographs & ~self.of_origin(altered))):
            chosen[f"{part}good or usable"] = which & np.isin(self.quality, (GOOD, USABLE))
            chosen |= {f"{part}labelled {name}": which & (self.quality == label) for name, label in labels.items()}
        chosen["severe or worse"] = photographs & (self.grade >= ADVANCED) & ~poor
        return chosen

    @property
    def fold(self) -> npt.NDArray[np.int64]:
        """Which fold each belongs to, 0 to 4."""
        return self.picture % FOLDS


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a measured picture comes from; see `GateSample`."""

    kind: str
    picture: int
    source: str = ""
    quality: str = ""
    grade: int = -1


_Row = tuple[Measures, _Origin]


def gather(fundus: Sequence[Path], not_fundus: Path, *, readable: Path | None, every: int) -> GateSample:
    """Measure photographs, the same in other colours, drawn eyes, fruit and trees, and views of other pictures.

    readable: a CSV of quality labels; every: use only every n-th photograph that has none.
    """
    labels = {} if readable is None else labels_in(readable)
    entries = [
        entry
        for number, entry in enumerate(read_manifest(list(fundus)).entries)
        if number % every == 0 or label_of(entry, labels).quality
    ]
    rows: list[_Row] = []
    colours: list[Pixels] = []
    patients: dict[str, int] = {}
    for number, (entry, pixels) in enumerate(photographs(entries, size=SIZE)):
        rng = np.random.default_rng(number)
        patient, label = patients.setdefault(entry.patient, len(patients)), label_of(entry, labels)
        origin = _Origin("eye", patient, f"{entry.source} {label.origin}".strip(), label.quality, int(entry.grade))
        if len(colours) < _COLOURS and number % max(1, len(entries) // _COLOURS) == 0:
            colours.append(pixels)
        rows += _measured([pixels], origin)
        if number % 3 == 0:
            rows += _measured([cast(pixels, rng)], replace(origin, kind="cast"))
        if number % 3 == 1:
            rows += _measured([hue_turned(pixels, rng)], replace(origin, kind="hue"))
    rows += _drawn()
    for number, item in enumerate(expand([not_fundus]).items):
        try:
            pixels = decode(item.path).pixels
        except PhotoError as error:
            _log.warning("%s", error)
            continue
        rows += _measured(
            round_views(pixels, np.stack(colours), np.random.default_rng(number)), _Origin("other", number)
        )
    measures, origins = zip(*rows, strict=True)
    columns = {field.name: np.array([getattr(origin, field.name) for origin in origins]) for field in fields(_Origin)}
    return GateSample(measures=np.stack(measures), **columns)


def photographs(entries: Sequence[Entry], *, size: int) -> Iterator[tuple[Entry, Pixels]]:
    """Each photograph that can be used, prepared at a size in pixels; of others a warning says why."""
    for entry in entries:
        try:
            yield entry, canonical(entry, size=size)
        except Exception as error:
            _log.warning("%s: %s", entry.name, error)


def _drawn() -> list[_Row]:
    rows: list[_Row] = []
    for number in range(_DRAWN):
        rng = np.random.default_rng(number)
        rows += _measured([orange(rng)], _Origin("fruit", number))
        rows += _measured([tree(rng)], _Origin("tree", number))
        grade, cut = GRADES[number % len(GRADES)], float(rng.choice([0, 0.05, 0.1, 0.2]))
        eye = draw_eye(
            grade=grade,
            size=int(rng.integers(200, 500)),
            aspect=float(rng.choice([1.0, 1.2, 1.35, 1.5]) if cut < 0.1 else 1.5),
            cut=cut,
            eye="left" if rng.random() < 0.5 else "right",
            notch=bool(rng.random() < 0.3),
            blur=float(rng.choice([0, 0, 0.003, 0.006])),
            rng=rng,
        )
        drawn = canonical_view(eye.photo, size=SIZE).canonical
        rows += _measured([drawn], _Origin("drawn eye", number, grade=grade))
    return rows


def _measured(pictures: Iterable[Pixels], origin: _Origin) -> list[_Row]:
    return [(found, origin) for pixels in pictures if (found := measure(pixels)) is not None]


class QualityLabel(NamedTuple):
    """What is known of a photograph's quality, "" where nothing is, and what sets it apart within its data set."""

    quality: str = ""
    origin: str = ""


def labels_in(path: Path) -> dict[str, QualityLabel]:
    """What a CSV says of photographs, by their names without endings."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["image"]: QualityLabel(row["quality"], row.get("origin", "")) for row in csv.DictReader(file)}


def label_of(entry: Entry, labels: Mapping[str, QualityLabel]) -> QualityLabel:
    """What the labels say of a photograph."""
    return labels.get(Path(entry.name).stem, QualityLabel())
