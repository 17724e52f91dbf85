"""What of the grading survives each corruption, at each severity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.data.manifest import Entry
from retigrade.errors import PhotoError
from retigrade.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from retigrade.fundus.crop import decode_side
from retigrade.fundus.decode import Photo, decode
from retigrade.fundus.field import find_field
from retigrade.grader import Grader
from retigrade.grading import Grading
from retigrade.metrics.classification import quadratic_kappa
from retigrade.metrics.estimate import Record
from retigrade.progress import RunProgress

HEADLINE_SEVERITY = 3
_NONE = -1  # in place of a grade
_ROUND_ENOUGH = 0.02


class Cell(Record):
    """One corruption at one severity.

    refused: share of the photographs graded clean that get no grade. agreement: share of the others that keep their
    clean grade. kappa_kept: their quadratic weighted kappa with the target, over what the same photographs reach clean.
    """

    corruption: str
    severity: int
    refused: float
    agreement: float | None
    kappa_kept: float | None


class Robustness(Record):
    """The whole suite over some photographs: `photos` of them graded when clean, with `clean_kappa`."""

    photos: int
    clean_kappa: float | None
    cells: tuple[Cell, ...]

    def mean_kept(self, severity: int = HEADLINE_SEVERITY) -> float | None:
        """Mean of the kappa kept over the corruptions, at one severity."""
        kept = [cell.kappa_kept for cell in self.cells if cell.severity == severity and cell.kappa_kept is not None]
        return sum(kept) / len(kept) if kept else None


def suite(
    grader: Grader,
    entries: Sequence[Entry],
    *,
    corruptions: Mapping[str, Corruption] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    jobs: int = 1,
    progress: RunProgress | None = None,
) -> Robustness:
    """Grade each photograph clean and under every corruption, applied to the whole frame before its field is found.

    A frame that was squeezed is first stretched until its disc is round: turned as it is, it would be no photograph
    that a camera could take. The draws depend on seed, photograph, corruption and severity alone. jobs: photographs at
    work at once. progress: hears of each step.
    """
    kinds = [(name, severity) for name in corruptions for severity in severities]

    def answers(place: int) -> list[int]:
        try:
            photo = round_disc(decode(entries[place].path, min_side=decode_side(grader.bundle.metadata.input_size)))
        except PhotoError:
            return [_NONE] * (1 + len(kinds))
        grades = [_grade(grader.grade_photo(photo, heat=False))]
        for number, (name, severity) in enumerate(kinds if grades[0] != _NONE else []):
            rng = np.random.default_rng([seed, place, number])
            pixels = corruptions[name](photo.pixels, severity, rng)
            grades.append(_grade(grader.grade_photo(replace(photo, pixels=pixels), heat=False)))
        return grades if len(grades) > 1 else [_NONE] * (1 + len(kinds))

    with ThreadPoolExecutor(jobs) as pool:
        answered = pool.map(answers, range(len(entries)))
        tracked = (progress or RunProgress()).track(answered, "grading corrupted photographs", total=len(entries))
        grades = np.array(list(tracked), dtype=np.int64).reshape(-1, 1 + len(kinds))
    target = np.array([entry.grade for entry in entries], dtype=np.int64)
    graded = grades[:, 0] != _NONE
    target, clean, corrupted = target[graded], grades[graded, 0], grades[graded, 1:]
    return Robustness(
        photos=len(target),
        clean_kappa=_defined(quadratic_kappa(target, clean)),
        cells=tuple(_cells(kinds, target, clean, corrupted)),
    )


def sample(entries: Sequence[Entry], most: int, rng: np.random.Generator) -> list[Entry]:
    """Draw at most so many photographs, in their order."""
    chosen = np.sort(rng.permutation(len(entries))[:most])
    return [entries[place] for place in chosen]


def round_disc(photo: Photo) -> Photo:
    """Stretch the frame until the disc is as wide as it is high; raises NotAFundus where there is none."""
    field = find_field(photo)
    height, width = photo.pixels.shape[:2]
    aspect = field.rx * width / (field.ry * height)
    if field.filled or abs(aspect - 1) < _ROUND_ENOUGH:
        return photo
    size = (round(width / aspect), height) if aspect < 1 else (width, round(height * aspect))
    pixels = np.asarray(cv2.resize(photo.pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return Photo(pixels, *size, photo.sha256)


def _grade(grading: Grading) -> int:
    return _NONE if grading.grade is None else int(grading.grade)


def _cells(
    kinds: Iterable[tuple[str, int]],
    target: npt.NDArray[np.int64],
    clean: npt.NDArray[np.int64],
    corrupted: npt.NDArray[np.int64],
) -> Iterable[Cell]:
    for (name, severity), grades in zip(kinds, corrupted.T, strict=True):
        kept = grades != _NONE
        reached, before = quadratic_kappa(target[kept], grades[kept]), quadratic_kappa(target[kept], clean[kept])
        yield Cell(
            corruption=name,
            severity=severity,
            refused=float(1 - kept.mean()) if len(kept) else 0.0,
            agreement=float(np.mean(grades[kept] == clean[kept])) if kept.any() else None,
            kappa_kept=_defined(reached / before) if before > 0 else None,
        )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
