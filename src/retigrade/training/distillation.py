"""Distillation: targets mixed with what other networks predict, cross-fitted or of finished bundles.

Cross-fitted: the training photographs are cut into shares; for each share, a teacher that learned from the others
alone predicts it, and the targets become a mixture of grade and prediction. A grade that nobody else would give pulls
less, and the probability of the stages beside it comes from what the photograph shows (Northcutt, Jiang and Chuang,
"Confident Learning", JAIR 2021, for predictions from outside; Hinton, Vinyals and Dean, 2015, for learning from them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from retigrade.arrays import Floats, Integers, Pixels, Reals
from retigrade.bundle import Bundle
from retigrade.data.manifest import Manifest
from retigrade.data.splits import Splits, within
from retigrade.metrics.decision import softmax
from retigrade.training.dataset import TrainingData
from retigrade.training.recipe import Recipe

Teach = Callable[[str, TrainingData, Recipe, Integers], Floats]
"""Trains a teacher by a name, training data and a recipe; returns its logits for some photographs, float32 (n, 5)."""


def teacher_shares(
    manifest: Manifest, splits: Splits, train: Integers, *, teachers: int, seed: int
) -> dict[str, Integers]:
    """Cut training photographs into as many shares as there are teachers; none shares a duplicate or a patient."""
    shares = {f"teacher{number}": 1 / teachers for number in range(1, teachers + 1)}
    return within(manifest, splits, train, shares=shares, seed=seed)


def cross_fitted_targets(
    data: TrainingData, recipe: Recipe, *, shares: Mapping[str, Integers], teach: Teach
) -> TrainingData:
    """The training data with targets of which `recipe.teacher_weight` is a teacher's prediction.

    shares: of the training photographs, by their teacher's name; none may share a duplicate or a patient with another.
    """
    shorter = replace(recipe, epochs=max(1, round(recipe.epochs * recipe.teacher_epochs)))
    targets = data.targets.copy()
    for name, unseen in shares.items():
        seen = np.setdiff1d(data.train, unseen)
        apart = replace(data, train=seen, fingerprint=f"{data.fingerprint} without {name}")
        predicted = softmax(teach(name, apart, shorter, unseen))
        targets[unseen] = (1 - recipe.teacher_weight) * targets[unseen] + recipe.teacher_weight * predicted
    return replace(data, targets=targets.astype(np.float32), fingerprint=f"{data.fingerprint} with teachers")


def distilled_targets(data: TrainingData, recipe: Recipe, predicted: Reals) -> TrainingData:
    """The training data with targets of which `recipe.teacher_weight` is predicted, float (N, 5), rows sum to 1."""
    targets = (1 - recipe.teacher_weight) * data.targets + recipe.teacher_weight * predicted
    return replace(data, targets=targets.astype(np.float32), fingerprint=f"{data.fingerprint} with bundles")


def mean_prediction(predictions: Sequence[tuple[Reals, int]]) -> Reals:
    """The geometric mean of predictions, float (N, 5) above 0, each counted so many times; rows sum to 1."""
    logarithms = [np.log(predicted) for predicted, _ in predictions]
    return softmax(np.average(logarithms, axis=0, weights=[times for _, times in predictions]))


def mean_logits(bundles: Sequence[Bundle], photos: Pixels, *, batch: int = 32) -> Floats:
    """The mean over bundles of their logits for prepared photographs, uint8 (N, S, S, 3), each at its own size."""
    means = []
    for begin in range(0, len(photos), batch):
        part = photos[begin : begin + batch]
        means.append(np.mean([bundle.run(_resized(part, bundle.metadata.input_size)).logits for bundle in bundles], 0))
    return np.concatenate(means).astype(np.float32)


def _resized(photos: Pixels, size: int) -> Pixels:
    if photos.shape[1] == size:
        return np.ascontiguousarray(photos)
    kind = cv2.INTER_AREA if size < photos.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(photo, (size, size), interpolation=kind) for photo in photos])
