"""Whether a heatmap shows what the grade rests on: against experts' lesion masks, and by taking hot pixels away.

Everything here takes any map function, so that maps can be compared on one network. Pointing game: Zhang et al.,
Top-down neural attention by excitation backprop, ECCV 2016. Deletion and insertion: Petsiuk, Das and Saenko, RISE,
BMVC 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Floats, Pixels, Reals
from retigrade.data.annotations import KINDS, AnnotatedPhoto
from retigrade.errors import NotAFundus
from retigrade.fundus.canonical import CanonicalView, canonical_view
from retigrade.grader import Grader
from retigrade.heatmap import on_frame
from retigrade.icdr import REFERABLE_FROM
from retigrade.metrics.bootstrap import Bootstrap
from retigrade.metrics.classification import mean_defined
from retigrade.metrics.estimate import Estimate, Record

STEPS = 20
_BLUR = 0.05  # deviation of what stands in for a deleted pixel, in diameters of the disc


MapFunction = Callable[[CanonicalView], Floats]
"""Makes a map, 0 where there is no heat, of the photo's pixels: float32 (h, w)."""


class Overlap(NamedTuple):
    """How a map lies over lesions.

    mass_accuracy: relevance-mass accuracy, the share of the heat inside the dilated lesions (Arras, Osman and Samek
    2022); chance: the share of the retina inside them. pointing: whether the hottest pixel is, or which share of the
    hottest ones where several are. The first and last are nan where the map shows nothing.
    """

    mass_accuracy: float
    chance: float
    pointing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one map is worth on one photograph; nan where it cannot be said.

    overlap: with the dilated lesions of all kinds; kinds: with those of each kind that the photograph has. deletion,
    insertion: mean probability of the predicted grade while the hottest pixels are blurred away first, and while they
    come first out of the blur; the last two the same for the probability of a referable stage.
    """

    overlap: Overlap
    kinds: dict[str, Overlap]
    deletion: float
    insertion: float
    referable_deletion: float
    referable_insertion: float


class OverlapFigures(Record):
    """One kind of map over the photographs that have some lesions; ratio: relevance-mass accuracy over chance."""

    photos: int
    mass_accuracy: Estimate
    chance: Estimate
    ratio: Estimate
    pointing: Estimate


class MapFigures(Record):
    """One kind of map over all photographs; cool: photographs on which it shows nothing. kinds: by kind of lesion."""

    photos: int
    cool: int
    overlap: OverlapFigures
    kinds: dict[str, OverlapFigures]
    deletion: Estimate
    insertion: Estimate
    referable_deletion: Estimate
    referable_insertion: Estimate


class Faithfulness(Record):
    """Each kind of map by its name, measured on the same photographs; without_field: those in which none was found."""

    maps: dict[str, MapFigures]
    without_field: int


def evidence(grader: Grader) -> MapFunction:
    """The map that grading shows; cool all over where the photo gets no grade."""

    def shown(view: CanonicalView) -> Floats:
        height, width = view.photo.pixels.shape[:2]
        heatmap = grader.grade_photo(view.photo).heatmap
        return np.zeros((height, width), np.float32) if heatmap is None else heatmap.in_frame(width, height)

    return shown


def at_random(rng: np.random.Generator, *, cells: int = 7) -> MapFunction:
    """A map that knows nothing: uniform noise on a coarse grid, as smooth as a class-activation map."""
    return lambda view: on_frame(rng.random((cells, cells), dtype=np.float32), view)


def measure_faithfulness(
    grader: Grader,
    annotated: Iterable[AnnotatedPhoto],
    maps: dict[str, MapFunction],
    *,
    seed: int = 0,
    steps: int = STEPS,
    rounds: int = 1000,
) -> Faithfulness:
    """Measure every kind of map on the same photographs, with 95 % intervals over the photographs.

    seed: of the order in which equally warm pixels go, and of the bootstrap. steps: of deletion and insertion; 0 leaves
    them out.
    """
    rows: dict[str, list[Scores]] = {name: [] for name in maps}
    without_field = 0
    for number, annotation in enumerate(annotated):
        try:
            view = canonical_view(annotation.photo, size=grader.bundle.metadata.input_size)
        except NotAFundus:
            without_field += 1
            continue
        for name, make in maps.items():
            rng = np.random.default_rng([seed, number])
            rows[name].append(score(make(view), view, annotation, grader, rng=rng, steps=steps))
    bootstrap = Bootstrap(rounds=rounds, seed=seed)
    figures = {name: _figures(scores, bootstrap) for name, scores in rows.items() if scores}
    return Faithfulness(maps=figures, without_field=without_field)


def score(
    heat: Floats,
    view: CanonicalView,
    annotation: AnnotatedPhoto,
    grader: Grader,
    *,
    rng: np.random.Generator,
    steps: int = STEPS,
) -> Scores:
    """Score one map, float32 (h, w), of an annotated photograph."""
    disc = view.disc
    warmth = heat[disc].astype(np.float64)
    curves = _curves(heat, view, grader, rng=rng, steps=steps) if steps else np.full((2, 2), np.nan)
    return Scores(
        overlap=overlap(warmth, annotation.dilated[disc]),
        kinds={
            name: overlap(warmth, annotation.dilated_of(bit)[disc])
            for name, bit in KINDS.items()
            if (annotation.mask & bit).any()
        },
        deletion=float(curves[0, 0]),
        referable_deletion=float(curves[0, 1]),
        insertion=float(curves[1, 0]),
        referable_insertion=float(curves[1, 1]),
    )


def overlap(warmth: Reals, inside: Flags) -> Overlap:
    """How the heat of the retina's pixels, (n,), lies over lesions; inside: bool (n,), whether each pixel is in one."""
    total = float(warmth.sum())
    return Overlap(
        mass_accuracy=float(warmth[inside].sum()) / total if total > 0 else math.nan,
        chance=float(inside.mean()),
        pointing=float(inside[warmth == warmth.max()].mean()) if total > 0 else math.nan,
    )


def _curves(heat: Floats, view: CanonicalView, grader: Grader, *, rng: np.random.Generator, steps: int) -> Reals:
    """Areas under the curves: rows deletion and insertion, columns the predicted grade and a referable stage.

    Pixels change places on the canonical picture, so that the field stays what it was.
    """
    metadata = grader.bundle.metadata
    warmth, retina = view.to_canonical(heat)
    clear, blurred = view.canonical, _without_detail(view.canonical, retina)
    rank = _rank(warmth, retina, rng)
    predicted = metadata.decision.decide(metadata.probabilities(grader.bundle.run(clear[None]).logits)[0])
    areas = np.empty((2, 2))
    for row, (hot, cool) in enumerate(((blurred, clear), (clear, blurred))):
        pictures = np.stack([np.where((rank < step / steps)[..., None], hot, cool) for step in range(steps + 1)])
        probabilities = metadata.probabilities(grader.bundle.run(pictures).logits)
        curves = np.column_stack([probabilities[:, predicted], probabilities[:, REFERABLE_FROM:].sum(axis=1)])
        areas[row] = (curves[1:] + curves[:-1]).mean(axis=0) / 2
    return areas


def _rank(warmth: Floats, retina: Flags, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """When each pixel's turn comes, 0 the hottest to below 1 the coolest, equals at random; 1 outside the retina."""
    values = warmth[retina]
    order = np.lexsort((rng.random(len(values)), -values))
    turn = np.empty(len(values))
    turn[order] = np.arange(len(values)) / len(values)
    rank = np.ones(warmth.shape)
    rank[retina] = turn
    return rank


def _without_detail(canonical: Pixels, retina: Flags) -> Pixels:
    """The picture with the retina blurred until no lesion is left, without the black around it seeping in."""
    share = retina.astype(np.float32)
    deviation = _BLUR * len(canonical)
    weight = np.maximum(cv2.GaussianBlur(share, (0, 0), deviation), 1e-3)
    light = cv2.GaussianBlur(canonical * share[..., None], (0, 0), deviation)
    blurred = np.clip(light / weight[..., None], 0, 255)
    return np.asarray(np.where(retina[..., None], blurred, canonical), np.uint8)


def _figures(scores: Sequence[Scores], bootstrap: Bootstrap) -> MapFigures:
    curves = np.array(
        [(each.deletion, each.insertion, each.referable_deletion, each.referable_insertion) for each in scores]
    )
    deletion, insertion, referable_deletion, referable_insertion = bootstrap.estimates(_means, curves)
    kinds = {kind: [each.kinds[kind] for each in scores if kind in each.kinds] for kind in KINDS}
    return MapFigures(
        photos=len(scores),
        cool=sum(math.isnan(each.overlap.mass_accuracy) for each in scores),
        overlap=_overlap_figures([each.overlap for each in scores], bootstrap),
        kinds={kind: _overlap_figures(overlaps, bootstrap) for kind, overlaps in kinds.items() if overlaps},
        deletion=deletion,
        insertion=insertion,
        referable_deletion=referable_deletion,
        referable_insertion=referable_insertion,
    )


def _overlap_figures(overlaps: Sequence[Overlap], bootstrap: Bootstrap) -> OverlapFigures:
    def figures(rows: Reals) -> Reals:
        warm = rows[~np.isnan(rows[:, 0])]
        chance = warm[:, 1].mean() if len(warm) else math.nan
        ratio = warm[:, 0].mean() / chance if chance > 0 else math.nan
        return np.append(_means(rows), ratio)

    mass_accuracy, chance, pointing, ratio = bootstrap.estimates(figures, np.array(overlaps))
    return OverlapFigures(
        photos=len(overlaps), mass_accuracy=mass_accuracy, chance=chance, ratio=ratio, pointing=pointing
    )


def _means(rows: Reals) -> Reals:
    """Of each column, (n, k) to (k,), what is nan left out."""
    return np.array([mean_defined(column) for column in rows.T])
