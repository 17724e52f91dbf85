"""Fit a bundle's quality head: which photographs nobody can read, by what its own network sees in them.

    python -m retigrade.training.quality_head --bundle FILE --fundus DATA... --readable CSV [--output FILE]

The gate's score of that knows measures of light, colour and sharpness alone. It is fitted anew, and the head adds what
the network sees. CSV: as of `retigrade.training.gate`; data sets without a label were published as readable. Prints
what is refused: each photograph is scored by fits that did not see it, nor another of its patient, against a limit
chosen on the other folds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.arrays import Flags, Floats, Pixels, Reals
from retigrade.bundle import Bundle, reseal
from retigrade.data.manifest import Entry, read_manifest
from retigrade.errors import DataError
from retigrade.files import replacing
from retigrade.fundus.measures import Measures, measure
from retigrade.fundus.quality import Score
from retigrade.metadata import SCHEMA_VERSION, QualityHead, direction
from retigrade.training.gate import even, fit
from retigrade.training.gate_sample import (
    ADVANCED,
    FOLDS,
    REJECT,
    WEIGHT_ADVANCED,
    GateSample,
    QualityLabel,
    label_of,
    labels_in,
    photographs,
)
from retigrade.training.out_of_distribution import features_of

_GATE = 0.5  # weight of the gate's score, beside 1 of the features'
_STRICT, _STRICT_GATE = 0.003, 0.03  # inverse strengths of the penalty on the weights of features, and of measures
_REFUSED = 0.61  # share of those called unusable beyond the limit: somewhat more than 0.6
_REPEATS = 4  # of cross-validation, whose folds differ in what few rejects they hold
_LEAST = 1e-3  # standard deviation, so that what hardly varies does not count for much
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refit:
    """The bundle, fundus data sets, and who is readable; the command's arguments."""

    bundle: Path
    fundus: tuple[Path, ...]
    readable: Path
    altered: str = "restored"
    """The origin whose photographs were altered: they are learned from, and do not choose the limit."""
    output: Path | None = None
    """Where the bundle goes; without it, in its own place."""


def fit_quality_head(features: Floats, rejected: Flags, weight: Reals, *, limit: float) -> QualityHead:
    """Fit by logistic regression which photographs nobody could read, the gate apart; both sides weigh the same.

    features: float32 (n, C). rejected: bool (n,). weight: (n,), how much each counts.
    """
    from sklearn.linear_model import LogisticRegression

    known = direction(features)
    mean, spread = known.mean(axis=0), np.maximum(known.std(axis=0), _LEAST)
    model = LogisticRegression(C=_STRICT, max_iter=1000)
    model.fit((known - mean) / spread, rejected, sample_weight=even(rejected, weight))
    weights = model.coef_[0] / spread
    return QualityHead.pack(
        weights=weights, gate=_GATE, offset=float(model.intercept_[0] - weights @ mean), limit=limit
    )


def fit_gate_score(measures: Measures, rejected: Flags, weight: Reals) -> Score:
    """Fit a score of measures, (n, 40), of which photographs nobody could read, the spread of the others its unit."""
    readable = fit(measures, ~rejected, weight, strict=_STRICT_GATE)
    turned = {"weights": tuple(-each for each in readable.weights), "offset": -readable.offset}
    return Score(**{**readable.model_dump(), **turned})


def weight_of(sample: GateSample) -> Reals:
    """How much each photograph counts, (n,): what must not be refused for more."""
    costly = (sample.grade >= ADVANCED) & (sample.quality != REJECT)
    return sample.weight_of_judged * np.where(costly, WEIGHT_ADVANCED, 1.0)


def refused_out_of_fold(sample: GateSample, features: Floats, *, altered: str) -> tuple[Flags, QualityHead, Score]:
    """Which photographs are refused by fits and limits that did not see them, bool (n,); and the fits to all of them.

    sample: of photographs alone. features: float32 (n, C), what the network sees in them. Raises DataError where too
    few unaltered photographs are labelled as ones that could not be read.
    """
    rejected, weight = sample.quality == REJECT, weight_of(sample)
    choosing = rejected & ~sample.of_origin(altered)
    if len(np.unique(sample.picture[choosing])) < FOLDS:
        raise DataError(
            f"{choosing.sum()} unaltered photographs are labelled as unreadable ({REJECT}), and a limit is chosen by "
            f"those of at least {FOLDS} patients: label more, or leave the bundle to the gate"
        )

    def fits(seen: Flags, limit: float) -> tuple[QualityHead, Score]:
        known = rejected[seen], weight[seen]
        return fit_quality_head(features[seen], *known, limit=limit), fit_gate_score(sample.measures[seen], *known)

    rng, scores = np.random.default_rng(1), np.zeros(len(weight))
    for _ in range(_REPEATS):
        fold = rng.permutation(sample.picture.max() + 1)[sample.picture] % FOLDS
        for held in range(FOLDS):
            there = fold == held
            head, gate = fits(~there & (weight > 0), 0)
            scores[there] += head.score(features[there], gate.of(sample.measures[there])) / _REPEATS
    limits = [float(np.quantile(scores[choosing & (fold != held)], 1 - _REFUSED)) for held in range(FOLDS)]
    whole = fits(weight > 0, float(np.quantile(scores[choosing], 1 - _REFUSED)))
    return scores > np.array(limits)[fold], *whole


def main(arguments: Refit) -> None:
    """Fit, report, and write the bundle."""
    bundle = Bundle.load(arguments.bundle)
    sample, features = _gather(bundle, arguments)
    refused, head, gate = refused_out_of_fold(sample, features, altered=arguments.altered)
    _report(sample, refused, altered=arguments.altered)
    limits = bundle.metadata.quality.model_copy(update={"reject": gate, "reject_limit": None})
    update = {"schema_version": SCHEMA_VERSION, "quality_head": head, "quality": limits}
    sealed = reseal(arguments.bundle.read_bytes(), bundle.metadata.model_copy(update=update))
    with replacing(arguments.output or arguments.bundle) as part:
        part.write_bytes(sealed)


def _gather(bundle: Bundle, arguments: Refit) -> tuple[GateSample, Floats]:
    labels = labels_in(arguments.readable)
    taken: list[tuple[Measures, Entry, QualityLabel]] = []

    def prepared() -> Iterator[Pixels]:
        entries = read_manifest(list(arguments.fundus), skip_unreadable=True).entries
        for entry, pixels in photographs(entries, size=bundle.metadata.input_size):
            if (measures := measure(pixels)) is not None:
                taken.append((measures, entry, label_of(entry, labels)))
                yield pixels

    features = features_of(bundle, prepared())
    patients = np.array([f"{entry.source} {entry.patient}" for _, entry, _ in taken])
    sample = GateSample(
        measures=np.stack([measures for measures, _, _ in taken]),
        kind=np.full(len(taken), "eye"),
        picture=np.unique(patients, return_inverse=True)[1],
        source=np.array([f"{entry.source} {label.origin}".strip() for _, entry, label in taken]),
        quality=np.array([label.quality for _, _, label in taken]),
        grade=np.array([int(entry.grade) for _, entry, _ in taken]),
    )
    return sample, features


def _report(sample: GateSample, refused: Flags, *, altered: str) -> None:
    for name, which in sample.parts(altered=altered).items():
        if which.any():
            _log.info("%6d %-26s %6.2f %% refused", which.sum(), name, 100 * refused[which].mean())


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Refit)
