"""Can a photograph of the other eye, or a mirrored one, be told by the side of its optic disc? Not well enough.

    python benchmarks/disc_side.py ../shared/data/eyepacs [--lesions ../shared/data/idrid/lesions]

In a photograph as a camera shows it, the disc of a right eye lies on the right. A linear rule on coarse pictures of
brightness and vessels, mirrored against themselves, learns the side from the names of half of the patients and is
measured on the other half. Names are no truth: some of these photographs are mirrored or upside down. So each one that
the rule contradicts loudest was looked at; `ON_ITS_SIDE` are those of which the name is right all the same. The
discs that experts outlined (IDRiD, another camera) are a second measure.

A warning would be right in nine of ten cases here, where one photograph of twelve lies the wrong way. In a programme
that confuses one eye of a hundred, six of ten warnings would be false. So the program gives none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import tyro

from retigrade.arrays import Floats, Pixels, Reals
from retigrade.data.annotations import read_annotated
from retigrade.errors import PhotoError
from retigrade.fundus.canonical import CanonicalView, canonical_view
from retigrade.fundus.crop import LIT, decode_side
from retigrade.fundus.decode import decode
from retigrade.grading import Eye
from retigrade.inputs import expand
from retigrade.metrics.estimate import Estimate
from retigrade.subjects import NamePattern

SIDE, GRID = 96, 12  # pixels, and cells across, of the coarse pictures
RIDGE, CONTRADICTED = 5000.0, -0.3  # a name that the rule contradicts by more is left out when it is fitted again
DISC = 16  # the bit of a mask that outlines the optic disc
LOUD = 0.6  # from which a photograph would be warned of
ON_ITS_SIDE = frozenset({"12734_left", "15868_left", "15954_left"})
"""Of the photographs that the rule contradicts by `LOUD`, those whose disc lies where the name says, or is not seen."""


@dataclass(frozen=True)
class Arguments:
    """The folder with EyePACS names, annotated photographs with outlined discs, and the most photographs to take."""

    eyepacs: Annotated[Path, tyro.conf.Positional]
    lesions: Path | None = None
    most: int | None = None


def _smooth(values: Floats, weight: Floats, deviation: float) -> Floats:
    blurred = cv2.GaussianBlur(values * weight, (0, 0), deviation)
    return np.asarray(blurred / (cv2.GaussianBlur(weight, (0, 0), deviation) + 1e-3), np.float32)


def features(canonical: Pixels) -> Floats:
    """What the left half of a canonical picture has more than the right: float32 (3 * GRID * GRID / 2,)."""
    small = cv2.resize(canonical, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    inside = cv2.erode((small.max(axis=2) > LIT).astype(np.float32), np.ones((5, 5)))
    green, red = small[..., 1].astype(np.float32), small[..., 0].astype(np.float32)
    dark = np.clip(_smooth(green, inside, 2.5) - _smooth(green, inside, 0.6), 0, None)
    planes = [_smooth(plane, inside, 2) - _smooth(plane, inside, 10) for plane in (green, red)]
    halves = []
    for plane in (*planes, _smooth(dark, inside, 2.5)):
        lit = plane[inside > 0]
        even = (plane - lit.mean()) / (lit.std() + 1e-3) * inside if lit.size else plane
        cells = even.reshape(GRID, SIDE // GRID, GRID, SIDE // GRID).mean(axis=(1, 3))
        halves.append((cells - cells[:, ::-1])[:, : GRID // 2])
    return np.concatenate(halves, axis=None).astype(np.float32)


def fit(rows: Reals, sides: Reals, chosen: npt.NDArray[np.bool_]) -> Reals:
    """Ridge regression on those that are chosen, without the names that the rule contradicts."""
    kept, weights = chosen.copy(), np.zeros(rows.shape[1])
    for _ in range(3):
        squares = rows[kept].T @ rows[kept] + RIDGE * np.eye(rows.shape[1])
        weights = np.linalg.solve(squares, rows[kept].T @ sides[kept])
        kept = chosen & (rows @ weights * sides > CONTRADICTED)
    return np.asarray(weights)


def view(path: Path) -> CanonicalView | None:
    try:
        return canonical_view(decode(path, min_side=decode_side(2 * SIDE)), size=2 * SIDE)
    except PhotoError:
        return None


def main(arguments: Arguments) -> None:
    pattern = NamePattern.of("eyepacs")
    names, patients, sides, rows = [], [], [], []
    for item in expand([arguments.eyepacs]).items[: arguments.most]:
        found, shown = pattern.subject(Path(item.name)), view(item.path)
        if found is None or shown is None:
            continue
        subject, _ = found
        names.append(item.path.stem)
        patients.append(int(subject.patient or 0))
        sides.append(1.0 if subject.eye is Eye.RIGHT else -1.0)
        rows.append(features(shown.canonical))
    side, row, fitted = np.array(sides), np.array(rows, np.float64), np.array(patients) % 2 == 1
    weights = fit(row, side, fitted)
    agrees = (row @ weights * side)[~fitted]
    print(f"fitted on {fitted.sum()} photographs, measured on {len(agrees)} of other patients")
    print(f"agrees with the name: {Estimate.proportion(float((agrees > 0).mean()), len(agrees))}")
    loud = np.flatnonzero(agrees < -LOUD)
    warned = [name for name, apart in zip(names, ~fitted, strict=True) if apart]
    wrong = sum(warned[place] in ON_ITS_SIDE for place in loud)
    print(f"would warn of {len(loud)}; the disc does lie on the other side in {len(loud) - wrong} of them, looked at")
    print(f"precision {Estimate.proportion(1 - wrong / max(len(loud), 1), len(loud))}")
    for share in (0.1, 0.01, 0.001):
        caught = (len(loud) - wrong) / max((agrees < 0).sum(), 1) * share
        print(f"  where {share:.1%} of the eyes are confused: {caught / (caught + wrong / len(agrees)):.2f}")
    if arguments.lesions:
        outlined(arguments.lesions, weights)


def outlined(folder: Path, weights: Reals) -> None:
    """Print how often the rule finds the side of the discs that experts outlined."""
    right, loud_right, loud, total = 0, 0, 0, 0
    for photo in read_annotated(folder):
        columns = np.flatnonzero((photo.mask & DISC).any(axis=0))
        if (shown := view(photo.path)) is None or not columns.size:
            continue
        score = float(features(shown.canonical) @ weights)
        is_right = score * (columns.mean() / photo.mask.shape[1] - shown.field.cx) > 0
        total, right = total + 1, right + is_right
        loud, loud_right = loud + (abs(score) > LOUD), loud_right + (is_right and abs(score) > LOUD)
    print(f"outlined discs: {right} of {total} on their side; of those that are loud {loud_right} of {loud}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
