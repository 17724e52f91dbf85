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
import numpy.typing as npt

from retigrade.arrays import Flags, Floats, Integers, Pixels, Reals
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
    GOOD,
    REJECT,
    USABLE,
    WEIGHT_ADVANCED,
    WEIGHT_USABLE,
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


@dataclass(frozen=True, slots=True, eq=False)
class QualitySample:
    """What a network sees in photographs, and whether they could be read.

    features: float32 (n, C). measures: as the gate's, (n, 40). quality: as labelled, "" where it is not, (n,). source:
    the data set and the origin within it, (n,). patient: equal for eyes of one, int64 (n,). grade: int64 (n,).
    """

    features: Floats
    measures: Measures
    quality: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]
    patient: Integers
    grade: Integers

    @property
    def weight(self) -> Reals:
        """How much each counts, (n,): what must not be refused more, and what nobody judged among others not at all."""
        labelled = np.isin(self.source, np.unique(self.source[self.quality != ""]))
        weight = np.where(self.quality == USABLE, WEIGHT_USABLE, 1.0)
        weight[(self.grade >= ADVANCED) & (self.quality != REJECT)] *= WEIGHT_ADVANCED
        return np.where(labelled & (self.quality == ""), 0, weight)


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


def refused_out_of_fold(sample: QualitySample, *, altered: str) -> tuple[Flags, QualityHead, Score]:
    """Which photographs are refused by fits and limits that did not see them, bool (n,); and the fits to all of them.

    Raises DataError where too few unaltered photographs are labelled as ones that could not be read.
    """
    rejected, weight = sample.quality == REJECT, sample.weight
    choosing = rejected & ~np.char.endswith(sample.source, f" {altered}")
    if len(np.unique(sample.patient[choosing])) < FOLDS:
        raise DataError(
            f"{choosing.sum()} unaltered photographs are labelled as unreadable ({REJECT}), and a limit is chosen by "
            f"those of at least {FOLDS} patients: label more, or leave the bundle to the gate"
        )
    rng, scores = np.random.default_rng(1), np.zeros(len(weight))
    for _ in range(_REPEATS):
        fold = rng.permutation(sample.patient.max() + 1)[sample.patient] % FOLDS
        for held in range(FOLDS):
            there = fold == held
            scores[there] += _scores(sample, ~there & (weight > 0), there) / _REPEATS
    limits = [float(np.quantile(scores[choosing & (fold != held)], 1 - _REFUSED)) for held in range(FOLDS)]
    limit, known = float(np.quantile(scores[choosing], 1 - _REFUSED)), weight > 0
    head = fit_quality_head(sample.features[known], rejected[known], weight[known], limit=limit)
    gate = fit_gate_score(sample.measures[known], rejected[known], weight[known])
    return scores > np.array(limits)[fold], head, gate


def _scores(sample: QualitySample, seen: Flags, asked: Flags) -> Reals:
    """The scores of some photographs by fits to others."""
    rejected, weight = sample.quality[seen] == REJECT, sample.weight[seen]
    head = fit_quality_head(sample.features[seen], rejected, weight, limit=0)
    gate = fit_gate_score(sample.measures[seen], rejected, weight)
    return head.score(sample.features[asked], gate.of(sample.measures[asked]))


def main(arguments: Refit) -> None:
    """Fit, report, and write the bundle."""
    bundle = Bundle.load(arguments.bundle)
    sample = _gather(bundle, arguments)
    refused, head, gate = refused_out_of_fold(sample, altered=arguments.altered)
    _report(sample, refused, altered=arguments.altered)
    limits = bundle.metadata.quality.model_copy(update={"reject": gate, "reject_limit": None})
    update = {"schema_version": SCHEMA_VERSION, "quality_head": head, "quality": limits}
    sealed = reseal(arguments.bundle.read_bytes(), bundle.metadata.model_copy(update=update))
    with replacing(arguments.output or arguments.bundle) as part:
        part.write_bytes(sealed)


def _gather(bundle: Bundle, arguments: Refit) -> QualitySample:
    labels = labels_in(arguments.readable)
    taken: list[tuple[Entry, QualityLabel]] = []
    measured: list[Measures] = []

    def prepared() -> Iterator[Pixels]:
        entries = read_manifest(list(arguments.fundus), skip_unreadable=True).entries
        for entry, pixels in photographs(entries, size=bundle.metadata.input_size):
            if (measures := measure(pixels)) is not None:
                taken.append((entry, label_of(entry, labels)))
                measured.append(measures)
                yield pixels

    features = features_of(bundle, prepared())
    patients = np.array([f"{entry.source} {entry.patient}" for entry, _ in taken])
    return QualitySample(
        features=features,
        measures=np.stack(measured),
        quality=np.array([label.quality for _, label in taken]),
        source=np.array([f"{entry.source} {label.origin}".strip() for entry, label in taken]),
        patient=np.unique(patients, return_inverse=True)[1],
        grade=np.array([int(entry.grade) for entry, _ in taken]),
    )


def _report(sample: QualitySample, refused: Flags, *, altered: str) -> None:
    poor, unaltered = sample.quality == REJECT, ~np.char.endswith(sample.source, f" {altered}")
    labels = {"good": (GOOD,), "usable": (USABLE,), "good or usable": (GOOD, USABLE), "reject": (REJECT,)}
    chosen = {
        f"{part}labelled {name}": which & np.isin(sample.quality, kinds)
        for part, which in (("unaltered, ", unaltered), ("altered, ", ~unaltered))
        for name, kinds in labels.items()
    }
    chosen |= {f"of {source}, not reject": (sample.source == source) & ~poor for source in np.unique(sample.source)}
    chosen["severe or worse, not reject"] = (sample.grade >= ADVANCED) & ~poor
    for name, which in chosen.items():
        if which.any():
            _log.info("%6d %-36s %6.2f %% refused", which.sum(), name, 100 * refused[which].mean())


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, Refit)
