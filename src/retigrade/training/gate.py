"""Fit the gate's scores: fundus photographs against pictures of anything else, and readable ones against rejects.

    python -m retigrade.training.gate --fundus DATA... --not-fundus FOLDER [--readable CSV] [--measures FILE]

writes the fitted numbers to `retigrade/fundus/gate.json` and prints what the scores keep and refuse: each picture is
scored by a fit that did not see it, against limits chosen on the other folds. All views of one picture, and the eyes of
one patient, are in one fold. CSV: columns `image` (a file's name without its ending) and `quality`, 0 good, 1
usable, 2 reject, as EyeQ has them (Fu et al., MICCAI 2019), and perhaps `origin`, what sets some of a data set apart.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Flags, Reals
from retigrade.files import replacing
from retigrade.fundus.measures import MEASURES, SHAPE, Measures
from retigrade.fundus.quality import Score, Trees
from retigrade.training.gate_sample import FOLDS, REJECT, GateSample, gather

_log = logging.getLogger(__name__)

_KEPT, _KEPT_ANATOMY = 0.997, 0.998  # shares of photographs that the limits let through
_REFUSED = 0.61  # share of those called unusable that the limit of their score refuses: somewhat more than 0.6
_RIMLESS_MARGIN = 1.5  # logarithm of odds: more is asked where no rim was seen
_STRICT, _STRICT_REJECT = 3.0, 0.03  # inverse strengths of the penalty on the weights
_TREES = {"max_iter": 100, "max_leaf_nodes": 8, "learning_rate": 0.12, "l2_regularization": 1, "min_samples_leaf": 15}
_TREES_REJECT = {
    "max_iter": 80,
    "max_leaf_nodes": 6,
    "learning_rate": 0.08,
    "l2_regularization": 3,
    "min_samples_leaf": 20,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """Fundus data sets, the folder of other pictures, and who is readable; the command's arguments."""

    fundus: tuple[Path, ...]
    not_fundus: Path
    readable: Path | None = None
    every: int = 1
    """Use only every n-th photograph that has no quality label."""
    measures: Path | None = None
    """Keep what was measured in this file, an NPZ; where it is there already, it is taken instead of the pictures."""
    altered: str = "restored"
    """The origin whose photographs were altered: they are learned from, and choose no limit of quality."""
    output: Path = Path(__file__).parents[1] / "fundus" / "gate.json"


def fit(
    measures: Measures, wanted: Flags, weight: Reals, *, names: Sequence[str] = MEASURES, strict: float = _STRICT
) -> Score:
    """Fit a score that is high where `wanted`, bool (n,), to measures (n, 40); both sides weigh the same."""
    from sklearn.linear_model import LogisticRegression

    chosen = measures[:, [MEASURES.index(name) for name in names]]
    centre, spread = chosen[wanted].mean(axis=0), chosen[wanted].std(axis=0) + 1e-6
    blank = Score(
        measures=tuple(names),
        centre=_plain(centre),
        spread=_plain(spread),
        weights=(0.0,) * (2 * len(names)),
        offset=0.0,
    )
    z = blank.standard(measures)
    model = LogisticRegression(C=strict, solver="newton-cholesky")
    model.fit(np.concatenate([z, z**2], axis=1), wanted, sample_weight=even(wanted, weight))
    # Made anew: a copy would keep the arrays that the blank one has worked out.
    return Score(
        measures=blank.measures,
        centre=blank.centre,
        spread=blank.spread,
        weights=_plain(model.coef_[0]),
        offset=float(f"{model.intercept_[0]:.6g}"),
    )


def fit_trees(measures: Measures, wanted: Flags, weight: Reals, *, options: Mapping[str, float] | None = None) -> Trees:
    """Fit small boosted trees to the same, which see what depends on two measures or more.

    options: of scikit-learn's `HistGradientBoostingClassifier`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(**(options or _TREES), early_stopping=False, random_state=0)
    model.fit(measures, wanted, sample_weight=even(wanted, weight))
    columns: dict[str, list[float]] = {name: [] for name in ("feature", "threshold", "left", "right", "value")}
    roots, depth = [], 1
    for (predictor,) in model._predictors:  # scikit-learn has no public way to its trees
        first = len(columns["feature"])
        roots.append(first)
        for place, node in enumerate(predictor.nodes):
            leaf = bool(node["is_leaf"])
            depth = max(depth, int(node["depth"]))
            columns["feature"].append(0 if leaf else int(node["feature_idx"]))
            columns["threshold"].append(0.0 if leaf else float(node["num_threshold"]))
            columns["left"].append(first + (place if leaf else int(node["left"])))
            columns["right"].append(first + (place if leaf else int(node["right"])))
            columns["value"].append(float(f"{node['value']:.5g}") if leaf else 0.0)
    return Trees.model_validate(
        {
            **{name: tuple(values) for name, values in columns.items()},
            "measures": MEASURES,
            "roots": tuple(roots),
            "depth": depth,
            "offset": float(model._baseline_prediction.item()),
        }
    )


Fit = Callable[[Measures, Flags, Reals], Score | Trees]
"""Learns a score from measures, which of them are wanted, and their weights."""


def fit_reject(measures: Measures, wanted: Flags, weight: Reals) -> Score:
    """Fit a quadratic score of few examples."""
    return fit(measures, wanted, weight, strict=_STRICT_REJECT)


def fit_reject_trees(measures: Measures, wanted: Flags, weight: Reals) -> Trees:
    """Fit trees to few examples."""
    return fit_trees(measures, wanted, weight, options=_TREES_REJECT)


def fit_anatomy(measures: Measures, wanted: Flags, weight: Reals) -> Score:
    """Fit a score that does not see colours."""
    return fit(measures, wanted, weight, names=SHAPE)


def out_of_fold(sample: GateSample, wanted: Flags, weight: Reals, fits: Sequence[Fit]) -> Reals:
    """Score every picture, summed over `fits`, by fits that saw neither it nor another view of it: (n,).

    weight: (n,), 0 for what is not learned from; all are scored.
    """
    scores = np.zeros(len(wanted))
    for held in range(FOLDS):
        seen, there = (sample.fold != held) & (weight > 0), sample.fold == held
        for learn in fits:
            scores[there] += learn(sample.measures[seen], wanted[seen], weight[seen]).of(sample.measures[there])
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class GateScores:
    """Scores of every picture, out of fold, each (n,), and which of them choose the limits.

    photographs: of eyes; readable: those neither altered nor called unusable; rejected: called unusable, not altered.
    """

    eye: Reals
    anatomy: Reals
    reject: Reals
    photographs: Flags
    readable: Flags
    rejected: Flags

    def limits(self, of: Flags) -> tuple[float, float, float]:
        """Choose `eye_needed`, `anatomy_needed` and `reject_limit` by some of the pictures."""
        return (
            float(np.quantile(self.eye[self.photographs & self.readable & of], 1 - _KEPT)),
            float(np.quantile(self.anatomy[self.photographs & of], 1 - _KEPT_ANATOMY)),
            float(np.quantile(self.reject[self.rejected & of], 1 - _REFUSED)),
        )

    def verdicts(self, fold: npt.NDArray[np.int64]) -> tuple[Flags, Flags]:
        """Which are graded, and which have an eye's anatomy, by limits that the other folds chose."""
        graded, anatomy = np.zeros((2, len(fold)), bool)
        for held in range(FOLDS):
            there = fold == held
            eye_needed, anatomy_needed, reject_limit = self.limits(~there)
            graded[there] = (self.eye[there] >= eye_needed) & (self.reject[there] <= reject_limit)
            anatomy[there] = self.anatomy[there] >= anatomy_needed
        return graded, anatomy


def fit_gate(sample: GateSample, *, altered: str) -> dict[str, object]:
    """Fit the scores and choose their limits; report, out of fold, what they keep and refuse.

    altered: see `Gate`.
    """
    eyes, poor = sample.eyes, sample.quality == REJECT
    is_altered = sample.of_origin(altered)
    photographs, shaped = sample.kind == "eye", eyes | (sample.kind == "hue")
    learned = np.where(eyes & poor, 0, sample.weight)
    targets: Mapping[str, tuple[Flags, Reals, Sequence[Fit]]] = {
        "eye": (eyes, learned, (fit, fit_trees)),
        "anatomy": (shaped, learned, (fit_anatomy,)),
        "reject": (poor, sample.weight_of_judged, (fit_reject, fit_reject_trees)),
    }
    scores = GateScores(
        **{name: out_of_fold(sample, *target) for name, target in targets.items()},
        photographs=photographs,
        readable=~poor & ~is_altered,
        rejected=photographs & poor & ~is_altered,
    )
    _report_all(sample, *scores.verdicts(sample.fold), altered=altered)
    whole = {
        name: [
            learn(sample.measures[weight > 0], wanted[weight > 0], weight[weight > 0]).model_dump() for learn in fits
        ]
        for name, (wanted, weight, fits) in targets.items()
    }
    eye_needed, anatomy_needed, reject_limit = scores.limits(np.ones(len(eyes), bool))
    return {
        "eye_needed": round(eye_needed, 3),
        "eye_needed_rimless": round(eye_needed + _RIMLESS_MARGIN, 3),
        "anatomy_needed": round(anatomy_needed, 3),
        "reject_limit": round(reject_limit, 3),
        "eye": whole["eye"][0],
        "eye_trees": whole["eye"][1],
        "anatomy": whole["anatomy"][0],
        "reject": whole["reject"],
    }


def _report_all(sample: GateSample, graded: Flags, anatomy: Flags, *, altered: str) -> None:
    chosen = {f"of kind {kind}": sample.kind == kind for kind in dict.fromkeys(sample.kind.tolist())}
    chosen |= sample.parts(altered=altered)
    for name, which in chosen.items():
        if which.any():
            _log.info(
                "%6d %-26s %6.2f %% graded, %6.2f %% refused but with an eye's anatomy",
                which.sum(), name, 100 * graded[which].mean(), 100 * (~graded & anatomy)[which].mean(),
            )  # fmt: skip


def main(arguments: Gate) -> None:
    """Measure, fit, report, and write the numbers."""
    fitted = fit_gate(measured(arguments), altered=arguments.altered)
    with replacing(arguments.output) as part:
        part.write_text(json.dumps(fitted) + "\n", "utf-8")


def measured(arguments: Gate) -> GateSample:
    """Take what an earlier run measured, or gather it."""
    if arguments.measures is not None and arguments.measures.exists():
        with np.load(arguments.measures) as kept:
            return GateSample(**kept)
    sample = gather(arguments.fundus, arguments.not_fundus, readable=arguments.readable, every=arguments.every)
    if arguments.measures is not None:
        with replacing(arguments.measures) as part, part.open("wb") as file:
            np.savez_compressed(file, **{field.name: getattr(sample, field.name) for field in fields(sample)})
    return sample


def even(wanted: Flags, weight: Reals) -> Reals:
    """Weights by which both sides count the same."""
    return np.where(wanted, weight, weight * weight[wanted].sum() / max(float(weight[~wanted].sum()), 1e-9))


def _plain(values: Reals) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Gate)
