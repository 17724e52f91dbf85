"""How five probabilities become one grade: the rule is chosen on validation, for stages are ordered."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from retigrade.arrays import Grades, Integers, Reals
from retigrade.metrics.classification import K, check_probabilities, quadratic_kappa

Rule = Literal["argmax", "median", "mean"]
Cuts = tuple[float, float, float, float]

PLAIN_CUTS: Cuts = (0.5, 1.5, 2.5, 3.5)
REACH = 0.25
"""How far a tuned cut may lie from its plain place: further fits the validation photographs, not the scale."""
STEP = 0.05
MARGIN = 0.002
"""The kappa by which a less simple rule must win."""
TUNED_MARGIN = 0.005
LOST_ACCURACY = 0.015
"""What a rule may lose in accuracy against the most probable grade, whatever kappa it gains."""
FEWEST_PHOTOS = 50
FOLDS = 5


def decide(probabilities: Reals, rule: Rule, cuts: Cuts = PLAIN_CUTS) -> Integers:
    """Decide a grade for each row of probabilities (N, 5): int64 (N,).

    argmax: the most probable, the milder on a tie; median: the first grade at which the cumulative probability
    reaches one half; mean: the number of `cuts` at or below the expected grade. A bundle decides in the same way.
    Raises ValueError on another rule.
    """
    match rule:
        case "argmax":
            return np.asarray(probabilities.argmax(axis=1))
        case "median":
            return np.asarray((np.cumsum(probabilities, axis=1) >= 0.5).argmax(axis=1))
        case "mean":
            return _cut(expected_grade(probabilities), np.array(cuts))
        case _:
            raise ValueError(f"the rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")


def expected_grade(probabilities: Reals) -> Reals:
    """Mean of the grades weighted by their probabilities, float64 (N,) of 0..4."""
    return np.asarray(probabilities.astype(np.float64) @ np.arange(K))


def fit_decision(probabilities: Reals, target: Grades) -> tuple[Rule, Cuts]:
    """The rule and cuts with the highest quadratic weighted kappa on validation photographs.

    Tried from simple to less so: argmax, median, mean (rounded), mean with tuned cuts. A rule replaces a simpler one
    only if it gains 0.002, tuned cuts 0.005 and that on photographs that did not tune them (5-fold), and only with 50
    photographs or more; none may lose more than 0.015 of argmax's accuracy. Tuned cuts stay within 0.25 of the plain
    ones. Where kappa is undefined the rule is argmax.
    """
    check_probabilities(probabilities, target)
    best: Rule = "argmax"
    top = decide(probabilities, best)
    kappa, needed = quadratic_kappa(target, top), np.mean(top == target) - LOST_ACCURACY
    for rule in get_args(Rule):
        predicted = decide(probabilities, rule)
        if np.mean(predicted == target) >= needed and quadratic_kappa(target, predicted) > kappa + MARGIN:
            best, kappa = rule, quadratic_kappa(target, predicted)
    if target.size >= FEWEST_PHOTOS:
        expected = expected_grade(probabilities)
        predicted = _decided_out_of_fold(expected, target)
        if np.mean(predicted == target) >= needed and quadratic_kappa(target, predicted) > kappa + TUNED_MARGIN:
            return "mean", _tune(expected, target)
    return best, PLAIN_CUTS


def _decided_out_of_fold(expected: Reals, target: Grades) -> Integers:
    """Grades decided by cuts that were tuned on the other folds; folds are dealt out grade by grade."""
    fold = np.empty(target.size, np.int64)
    fold[np.argsort(target, kind="stable")] = np.arange(target.size) % FOLDS
    predicted = np.empty(target.size, np.int64)
    for part in range(FOLDS):
        held = fold == part
        predicted[held] = _cut(expected[held], np.array(_tune(expected[~held], target[~held])))
    return predicted


def _tune(expected: Reals, target: Grades) -> Cuts:
    """Coordinate search on a grid; each cut moves while that raises kappa, the smaller move winning a tie."""
    steps = round(REACH / STEP)
    moves = sorted(range(-steps, steps + 1), key=abs)
    cuts = np.array(PLAIN_CUTS)
    kappa = quadratic_kappa(target, _cut(expected, cuts))
    improving = True
    while improving:
        improving = False
        for place, plain in enumerate(PLAIN_CUTS):
            for move in moves:
                tried = cuts.copy()
                tried[place] = round(plain + move * STEP, 2)
                result = quadratic_kappa(target, _cut(expected, tried))
                if result > kappa + 1e-9:
                    cuts, kappa, improving = tried, result, True
    first, second, third, fourth = (float(cut) for cut in cuts)
    return first, second, third, fourth


def _cut(expected: Reals, cuts: Reals) -> Integers:
    return np.asarray(np.searchsorted(cuts, expected, side="right"))
