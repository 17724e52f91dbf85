"""How well predicted grades and probabilities fit the target; pure functions of numpy arrays.

Arrays throughout: `target` and `predicted` are integers (N,) of 0..4; `probabilities` are floats (N, 5) whose rows
sum to 1; `score` is floats (N,) where more means worse; `positive` is bool (N,). A figure whose denominator is
zero is nan, never a made-up 0 or 1, so that averages and intervals can leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retigrade.arrays import Flags, Grades, Integers, Reals
from retigrade.icdr import GRADES, REFERABLE_FROM

K = len(GRADES)


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """The publication's equations 1-4 for each grade against the rest, with F1 and support.

    support: int64 (5,), photographs of that grade. The others: float64 (5,), 0..1, or nan where undefined:
    sensitivity of a grade without photographs; precision and F1 of a grade neither present nor predicted. A
    grade that is present and never predicted has precision 0.
    """

    support: Integers
    accuracy: Reals
    specificity: Reals
    sensitivity: Reals
    precision: Reals
    f1: Reals

    def macro(self) -> dict[str, float]:
        """Plain mean of each rate over the grades where it is defined."""
        return {name: mean_defined(getattr(self, name)) for name in RATES}

    def weighted(self) -> dict[str, float]:
        """Mean of each rate weighted by support; the weighted sensitivity equals the overall accuracy."""
        share = self.support / max(1, self.support.sum())
        some = self.support > 0
        return {name: float(share[some] @ getattr(self, name)[some]) if some.any() else float("nan") for name in RATES}


RATES = ("accuracy", "specificity", "sensitivity", "precision", "f1")


@dataclass(frozen=True, slots=True)
class ThresholdRates:
    """What a threshold on a score yields; a photograph at or above it is called positive."""

    threshold: float
    sensitivity: float
    specificity: float
    precision: float


def confusion(target: Grades, predicted: Grades) -> Integers:
    """Count photographs by true grade (row) and predicted grade (column): int64 (5, 5).

    Raises ValueError if the arrays are not whole grades 0..4 of one length.
    """
    check_grades(target, predicted)
    return np.bincount(target.astype(np.int64) * K + predicted, minlength=K * K).reshape(K, K)


def rates(counts: Integers) -> Rates:
    """Rates of each grade against the rest, from a confusion matrix (5, 5); publication, equations 1-4."""
    total = int(counts.sum())
    tp = np.diag(counts)
    fn = counts.sum(axis=1) - tp
    fp = counts.sum(axis=0) - tp
    tn = total - tp - fn - fp
    precision = _ratio(tp, tp + fp)
    precision[(tp + fp == 0) & (tp + fn > 0)] = 0.0
    return Rates(
        support=tp + fn,
        accuracy=_ratio(tp + tn, np.full(K, total)),
        specificity=_ratio(tn, tn + fp),
        sensitivity=_ratio(tp, tp + fn),
        precision=precision,
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
    )


def accuracy(target: Grades, predicted: Grades) -> float:
    """Share of photographs given their true grade, 0..1; nan without photographs."""
    check_grades(target, predicted)
    return float(np.mean(target == predicted)) if target.size else float("nan")


def balanced_accuracy(target: Grades, predicted: Grades) -> float:
    """Mean sensitivity over the grades present in the target, 0..1."""
    return rates(confusion(target, predicted)).macro()["sensitivity"]


def macro_f1(target: Grades, predicted: Grades) -> float:
    """Mean F1 over the grades present or predicted, 0..1."""
    return rates(confusion(target, predicted)).macro()["f1"]


def off_by_two(target: Grades, predicted: Grades) -> float:
    """Share of photographs predicted two or more grades off, 0..1."""
    check_grades(target, predicted)
    return float(np.mean(np.abs(target.astype(np.int64) - predicted) >= 2)) if target.size else float("nan")


def quadratic_kappa(target: Grades, predicted: Grades, *, weights: Reals | None = None) -> float:
    """Cohen's kappa with squared-distance weights (Cohen 1968): 1 perfect, 0 chance, below 0 worse.

    weights: floats (N,), how much each photograph counts; None counts all alike. nan where target and prediction hold
    one and the same single grade, for then chance alone agrees wholly.
    """
    if weights is None:
        return quadratic_kappa_of(confusion(target, predicted))
    check_grades(target, predicted)
    cells = target.astype(np.int64) * K + predicted
    return quadratic_kappa_of(np.bincount(cells, weights, minlength=K * K).reshape(K, K))


def quadratic_kappa_of(counts: Integers | Reals) -> float:
    """Quadratic weighted kappa of a confusion matrix (5, 5), of counts or of sums of weights."""
    total = counts.sum()
    expected = float(_SQUARED_DISTANCE.ravel() @ np.outer(counts.sum(axis=1), counts.sum(axis=0)).ravel())
    if total == 0 or expected == 0:
        return float("nan")
    return 1.0 - float((_SQUARED_DISTANCE * counts).sum()) * float(total) / expected


_SQUARED_DISTANCE: Integers = np.subtract.outer(np.arange(K), np.arange(K)) ** 2


def auroc(score: Reals, positive: Flags) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann-Whitney U); nan of one class only."""
    _check_scores(score, positive)
    negatives = np.sort(score[~positive])
    positives = score[positive]
    if not (negatives.size and positives.size):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    up_to = np.searchsorted(negatives, positives, side="right")
    return float((below + up_to).sum()) / (2.0 * negatives.size * positives.size)


def auroc_per_grade(probabilities: Reals, target: Grades) -> Reals:
    """AUROC of each grade's probability against the rest, float64 (5,); nan for an absent or an only grade."""
    check_probabilities(probabilities, target)
    return np.array([auroc(probabilities[:, grade], target == grade) for grade in GRADES])


def p_referable(probabilities: Reals) -> Reals:
    """Probability of grade 2 or above, float64 (N,)."""
    return np.asarray(probabilities[:, REFERABLE_FROM:].sum(axis=1, dtype=np.float64))


def referral_score(probabilities: Reals, predicted: Grades) -> Reals:
    """What is compared with a threshold to refer, float64 (N,) of 0..1: p_referable, or 1 where the stage is referable.

    At or above any threshold up to 1 it refers as `retigrade.metadata.Metadata.decide` does.
    """
    return np.where(is_referable(predicted), 1.0, np.minimum(p_referable(probabilities), 1.0))


def p_any(probabilities: Reals) -> Reals:
    """Probability of any retinopathy (grade 1 or above), float64 (N,)."""
    return np.asarray(1.0 - probabilities[:, 0].astype(np.float64))


def is_referable(target: Grades) -> Flags:
    """Whether each photograph is of grade 2 or above, bool (N,)."""
    return np.asarray(target >= int(REFERABLE_FROM))


def at_threshold(score: Reals, positive: Flags, threshold: float, *, weights: Reals | None = None) -> ThresholdRates:
    """Sensitivity, specificity and precision when every score >= `threshold` is called positive.

    weights: floats (N,), how much each photograph counts; None counts all alike.
    """
    _check_scores(score, positive)
    weights = np.ones(score.size) if weights is None else weights
    called = score >= threshold
    tp, fp = float(weights[called & positive].sum()), float(weights[called & ~positive].sum())
    fn, tn = float(weights[~called & positive].sum()), float(weights[~called & ~positive].sum())
    return ThresholdRates(threshold, _share(tp, tp + fn), _share(tn, tn + fp), _share(tp, tp + fp))


def threshold_for_sensitivity(score: Reals, positive: Flags, sensitivity: float) -> float:
    """The highest threshold whose sensitivity on these photographs is at least `sensitivity` (0..1].

    Raises ValueError if there is no positive photograph or `sensitivity` lies outside 0..1.
    """
    _check_scores(score, positive)
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must lie above 0 and at most at 1, got {sensitivity}")
    positives = np.sort(score[positive])[::-1]
    if not positives.size:
        raise ValueError("a sensitivity needs at least one positive photograph, got none")
    needed = int(np.ceil(sensitivity * positives.size - 1e-9))
    return float(positives[needed - 1])


def mean_defined(values: Reals) -> float:
    """Mean of the values that are not nan; nan where there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def check_grades(target: Grades, predicted: Grades) -> None:
    """Raise ValueError unless both are whole grades 0..4, (N,), of one length."""
    for name, grades in (("target", target), ("predicted", predicted)):
        if grades.ndim != 1 or not np.issubdtype(grades.dtype, np.integer):
            raise ValueError(f"{name} must be whole grades (N,), got {grades.dtype} {grades.shape}")
        if grades.size and not (grades.min() >= 0 and grades.max() < K):
            raise ValueError(f"{name} must be grades 0..{K - 1}, got {grades.min()}..{grades.max()}")
    if target.shape != predicted.shape:
        raise ValueError(f"target and predicted must be of one length, got {target.size} and {predicted.size}")


def check_probabilities(probabilities: Reals, target: Grades) -> None:
    """Raise ValueError unless `probabilities` (N, 5) are distributions for the N grades of `target`."""
    check_grades(target, target)
    if probabilities.shape != (target.size, K):
        raise ValueError(f"need probabilities ({target.size}, {K}), got {probabilities.shape}")
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)):
        raise ValueError("each row of probabilities must be non-negative and sum to 1")


def _check_scores(score: Reals, positive: Flags) -> None:
    if score.ndim != 1 or score.shape != positive.shape or positive.dtype != np.bool_:
        raise ValueError(
            f"need scores (N,) and bool flags (N,), got {score.shape} and {positive.dtype} {positive.shape}"
        )
    if np.isnan(score).any():
        raise ValueError(f"{int(np.isnan(score).sum())} of {score.size} scores are nan")


def _ratio(part: Integers, whole: Integers) -> Reals:
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole != 0)
    return out


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
