"""What is fitted on validation photographs so that probabilities and decisions mean what they say; needs SciPy."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from retigrade.arrays import Flags, Grades, Integers, Reals
from retigrade.metrics.classification import check_probabilities, is_referable, quadratic_kappa
from retigrade.metrics.decision import PLAIN_CUTS, Cuts, Decision, Rule, expected_grade, softmax

TEMPERATURES = (0.1, 10.0)
"""The range searched: outside it the validation grades are separated or pure noise, and no temperature helps."""
REACH = 0.25
"""How far a tuned cut may lie from its plain place: further fits the validation photographs, not the scale."""
STEP = 0.05
MARGIN = 0.002
"""The kappa by which a less simple rule must win."""
TUNED_MARGIN = 0.005
LOST_ACCURACY = 0.015
"""What a rule may lose in accuracy against the most probable grade, whatever kappa it gains."""
FEWEST_PHOTOS = 50
"""With fewer, no cuts are tuned."""
ENOUGH_PHOTOS, ENOUGH_OF_EACH = 200, 50
"""Calibration on fewer photographs, or fewer referable or other ones, is said to be unreliable."""
FOLDS = 5


def calibration_caveat(target: Grades) -> str:
    """What to say of a bundle that was calibrated on photographs of these grades, (N,); empty where they are enough."""
    referable = int(is_referable(target).sum())
    if target.size >= ENOUGH_PHOTOS and min(referable, target.size - referable) >= ENOUGH_OF_EACH:
        return ""
    return (
        f"Probabilities and thresholds were fitted on {target.size} photographs, {referable} of them referable: too "
        f"few (fewer than {ENOUGH_PHOTOS} in all, or {ENOUGH_OF_EACH} of either kind) to rely on them."
    )


def fit_temperature(logits: Reals, target: Grades, *, weights: Reals | None = None) -> float:
    """The temperature that makes logits (N, 5) most likely on validation (Guo et al. 2017), within 0.1..10.

    weights: floats (N,), how much each photograph counts; None counts all alike. The loss is convex in 1/T, so it has
    one valley in log T. Raises ValueError without photographs or on logits that do not fit.
    """
    if not target.size:
        raise ValueError("a temperature needs at least one validation photograph, got none")
    check_probabilities(softmax(logits), target)
    exact = logits.astype(np.float64)
    chosen = exact[np.arange(target.size), target]

    def loss(log_temperature: float) -> float:
        sharpness = math.exp(-log_temperature)
        return float(np.average(logsumexp(exact * sharpness, axis=1) - chosen * sharpness, weights=weights))

    bounds = tuple(math.log(end) for end in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def fit_prior(logits: Reals, target: Grades, *, weights: Reals | None = None, pull: float = 0.005) -> Reals:
    """Find what to add to the logits of each grade so that grades come as often as they are, float64 (5,), mean 0.

    Training draws rare grades more often than they occur, which shifts the logits (Saerens, Latinne and Decaestecker
    2002); the shift is the intercept that minimises the negative log-likelihood, `pull` drawing it towards 0.
    logits: floats (N, 5); target: integers (N,) of 0..4; weights: floats (N,), how much each photograph counts, None
    counts all alike.
    """
    exact, one_hot = logits.astype(np.float64), np.eye(logits.shape[1])[target]
    shares = np.full(len(exact), 1 / len(exact)) if weights is None else weights / weights.sum()

    def loss(shift: Reals) -> tuple[float, Reals]:
        likelihood = shares @ (logsumexp(exact + shift, axis=1) - ((exact + shift) * one_hot).sum(axis=1))
        slope = shares @ (softmax(exact + shift) - one_hot) + pull * shift
        return float(likelihood + pull / 2 * shift @ shift), slope

    def curvature(shift: Reals) -> Reals:
        p = softmax(exact + shift)
        return np.asarray(np.diag(shares @ p) - (p * shares[:, None]).T @ p + pull * np.eye(len(shift)))

    start = np.zeros(logits.shape[1])
    shift = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9}).x
    return np.asarray(shift - shift.mean())


def fit_decision(probabilities: Reals, target: Grades, *, weights: Reals | None = None) -> Decision:
    """The rule and cuts with the highest quadratic weighted kappa on validation photographs.

    weights: floats (N,), how much each photograph counts; None counts all alike.
    Tried from simple to less so: argmax, median, mean (rounded), mean with tuned cuts. A rule replaces a simpler one
    only if it gains 0.002, tuned cuts 0.005 and that on photographs that did not tune them (5-fold), and only with 50
    photographs or more; none may lose more than 0.015 of argmax's accuracy. Tuned cuts stay within 0.25 of the plain
    ones. Where kappa is undefined the rule is argmax.
    """
    check_probabilities(probabilities, target)
    best = Decision(rule="argmax", cuts=PLAIN_CUTS)
    weights = np.ones(target.size) if weights is None else weights

    def right(predicted: Integers) -> float:
        return float(np.average(predicted == target, weights=weights))

    top = best.decide_all(probabilities)
    kappa, needed = quadratic_kappa(target, top, weights=weights), right(top) - LOST_ACCURACY
    for rule in get_args(Rule):
        candidate = Decision(rule=rule, cuts=PLAIN_CUTS)
        predicted = candidate.decide_all(probabilities)
        reached = quadratic_kappa(target, predicted, weights=weights)
        if right(predicted) >= needed and reached > kappa + MARGIN:
            best, kappa = candidate, reached
    if target.size >= FEWEST_PHOTOS:
        expected = expected_grade(probabilities)
        predicted = _predicted_out_of_fold(expected, target, weights)
        reached = quadratic_kappa(target, predicted, weights=weights)
        if right(predicted) >= needed and reached > kappa + TUNED_MARGIN:
            return Decision(rule="mean", cuts=_tune(expected, target, weights))
    return best


def _predicted_out_of_fold(expected: Reals, target: Grades, weights: Reals) -> Integers:
    """Grades predicted by cuts that were tuned on the other folds; folds are dealt out grade by grade."""
    fold = np.empty(target.size, np.int64)
    fold[np.argsort(target, kind="stable")] = np.arange(target.size) % FOLDS
    predicted = np.empty(target.size, np.int64)
    for number in range(FOLDS):
        held: Flags = fold == number
        cuts = _tune(expected[~held], target[~held], weights[~held])
        predicted[held] = np.searchsorted(cuts, expected[held], side="right")
    return predicted


def _tune(expected: Reals, target: Grades, weights: Reals) -> Cuts:
    """Coordinate search on a grid; each cut moves while that raises kappa, the smaller move winning a tie."""
    steps = round(REACH / STEP)
    moves = sorted(range(-steps, steps + 1), key=abs)

    def reached(cuts: Reals) -> float:
        return quadratic_kappa(target, np.searchsorted(cuts, expected, side="right"), weights=weights)

    cuts = np.array(PLAIN_CUTS)
    kappa = reached(cuts)
    improving = True
    while improving:
        improving = False
        for place, plain in enumerate(PLAIN_CUTS):
            for move in moves:
                tried = cuts.copy()
                tried[place] = round(plain + move * STEP, 2)
                if reached(tried) > kappa + 1e-9:
                    cuts, kappa, improving = tried, reached(tried), True
    first, second, third, fourth = (float(cut) for cut in cuts)
    return first, second, third, fourth
