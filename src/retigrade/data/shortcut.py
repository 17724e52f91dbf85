"""The shortcut audit: how well the black frame alone predicts the grade, no retina looked at.

Cameras differ between clinics, and clinics between stages; a network finds that out before it finds a microaneurysm.
What the whole frame tells is what a careless pipeline would learn. The canonical field takes away size and aspect, and
leaves how deep a disc is cut off at top and bottom; `retigrade.data.crop_matching` takes that away in training.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Integers, Pixels, Reals
from retigrade.data.cache import decode_listed
from retigrade.data.crop_matching import CropMatching, cut_depths
from retigrade.data.groups import Groups, independent_groups
from retigrade.data.manifest import Entry, Manifest
from retigrade.data.splits import assign
from retigrade.errors import DataError, UsageError
from retigrade.fundus.crop import crop
from retigrade.fundus.field import find_field, lit
from retigrade.icdr import GRADES
from retigrade.metrics import classification as metrics
from retigrade.progress import RunProgress

FEATURES = (
    *(f"black margin {side}" for side in ("left", "right", "top", "bottom")),
    *(f"straight edge {side}" for side in ("left", "right", "top", "bottom")),
    "black share",
)
_MOST_FOLDS = 5
_TREES = 300

Features = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrameScores:
    """How well the frame alone tells the grade, on photographs that the classifier never saw."""

    accuracy: float
    quadratic_kappa: float
    referable_auroc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortcutAudit:
    """What the frame tells of the grade at three stages, over the same photographs.

    before: the whole frame, squeezed to a square as most pipelines do. canonical: the canonical field. after: the
    canonical field under one draw of the crop matching of training, which is what a network here learns from.
    majority: accuracy of always answering the most frequent grade. folds: of the cross-validation.
    """

    before: FrameScores
    canonical: FrameScores
    after: FrameScores
    majority: float
    photographs: int
    folds: int

    @property
    def drop(self) -> float:
        """By how much the canonical field and crop matching lower the quadratic weighted kappa."""
        return self.before.quadratic_kappa - self.after.quadratic_kappa


@dataclass(frozen=True, slots=True, eq=False)
class _FrameShape:
    """One photograph's frame: squeezed, as nine numbers; canonical, as a mask of retina packed to bits; its cuts."""

    squeezed: Features
    canonical: npt.NDArray[np.uint8]
    cut_depths: tuple[float, float]

    def mask(self, size: int) -> Flags:
        return np.unpackbits(self.canonical, count=size * size).reshape(size, size).astype(bool)


def audit_shortcut(
    manifest: Manifest, duplicates: Groups, *, size: int = 224, seed: int = 0, progress: RunProgress | None = None
) -> ShortcutAudit:
    """Tell the grade from the frame by a random forest, cross-validated with patients and duplicates kept together.

    size: side of the square pictures in pixels. progress: hears of each step. Raises NotAFundus where a photograph has
    no retinal disc, UsageError without scikit-learn, DataError where there are too few photographs to tell.
    """
    forest = _forest(seed)
    target = manifest.grades
    fold = _folds(target, independent_groups(manifest, duplicates), seed)
    with ThreadPoolExecutor() as pool:
        measured = pool.map(lambda entry: _frame(entry, size), manifest.entries)
        frames = list((progress or RunProgress()).track(measured, "measuring frames", total=len(manifest)))
    matching = CropMatching(np.array([frame.cut_depths for frame in frames]), target)
    cuts = matching.draw(np.arange(len(target)), np.random.default_rng(seed))
    masks = [frame.mask(size) for frame in frames]
    matched = [_features(_cut(mask, cut)) for mask, cut in zip(masks, cuts, strict=True)]
    return ShortcutAudit(
        before=_scores(forest, np.stack([frame.squeezed for frame in frames]), target, fold),
        canonical=_scores(forest, np.stack([_features(mask) for mask in masks]), target, fold),
        after=_scores(forest, np.stack(matched), target, fold),
        majority=float(np.bincount(target).max() / len(target)),
        photographs=len(target),
        folds=int(fold.max()) + 1,
    )


def frame_features(pixels: Pixels) -> Features:
    """Nine numbers of the black frame, float64 (9,), each 0 to 1, as `FEATURES` names them.

    The margins are shares of the picture's side. A straight edge is the share of the lit box's side along which the
    retina reaches the box: short for a round disc, long for one that is cut off.
    """
    return _features(lit(pixels))


def _features(mask: Flags) -> Features:
    if not mask.any():
        return np.array([0.5] * 4 + [0.0] * 4 + [1.0])
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    box = mask[top : bottom + 1, left : right + 1]
    # A rim two pixels deep, for the edge of a squeezed or re-encoded photograph is ragged.
    edges = [box[:, :2].any(axis=1), box[:, -2:].any(axis=1), box[:2].any(axis=0), box[-2:].any(axis=0)]
    margins = [left / width, 1 - (right + 1) / width, top / height, 1 - (bottom + 1) / height]
    return np.array([*margins, *(edge.mean() for edge in edges), 1 - mask.mean()])


def _frame(entry: Entry, size: int) -> _FrameShape:
    photo = decode_listed(entry, size=size)
    canonical = crop(photo, find_field(photo), size=size)
    squeezed = cv2.resize(photo.pixels, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return _FrameShape(frame_features(squeezed), np.packbits(lit(canonical)), cut_depths(canonical))


def _cut(mask: Flags, hidden: Reals) -> Flags:
    """The mask without the rows that training blackens; hidden: fractions of the side at top and bottom."""
    middles = (np.arange(len(mask)) + 0.5) / len(mask)
    kept = (middles > hidden[0]) & (middles < 1 - hidden[1])
    return np.asarray(mask & kept[:, None])


def _folds(target: Integers, group_of: Integers, seed: int) -> Integers:
    """The fold of each photograph, int64 (N,); as many folds as the rarest grade allows, 2 to 5."""
    grades = np.unique(target)
    if len(grades) < 2:
        raise DataError("the photographs have one grade only, so the frame has nothing to tell")
    fewest = min(len(np.unique(group_of[target == grade])) for grade in grades)
    folds = min(max(fewest, 2), _MOST_FOLDS)
    fold = assign(group_of, target, np.full(folds, 1 / folds), np.random.default_rng(seed))
    if len(np.unique(fold)) < folds:
        raise DataError("too few independent photographs to cross-validate what the frame tells")
    return fold


def _forest(seed: int) -> Any:
    try:
        ensemble = import_module("sklearn.ensemble")
    except ModuleNotFoundError as error:
        raise UsageError("it needs scikit-learn; install it with: pip install scikit-learn") from error
    return ensemble.RandomForestClassifier(n_estimators=_TREES, min_samples_leaf=3, random_state=seed)


def _scores(forest: Any, features: Features, target: Integers, fold: Integers) -> FrameScores:
    probabilities = np.zeros((len(target), len(GRADES)))
    for number in np.unique(fold):
        unseen = fold == number
        forest.fit(features[~unseen], target[~unseen])
        probabilities[np.ix_(unseen, forest.classes_)] = forest.predict_proba(features[unseen])
    predicted = probabilities.argmax(axis=1)
    return FrameScores(
        accuracy=metrics.accuracy(target, predicted),
        quadratic_kappa=metrics.quadratic_kappa(target, predicted),
        referable_auroc=metrics.auroc(metrics.p_referable(probabilities), metrics.is_referable(target)),
    )
