"""Correct out-of-fold predictions by what segmentation networks saw of lesions, to learn from them.

    python -m retigrade.experiments.lesion_evidence --maps FILE --predictions DIR --data DATA... --splits FILE --out DIR

A network that learned from stages alone overlooks what is small, and a single reader's stages are noise. How many
lesions of each kind there are tells both apart. The predictions of the photographs that train are corrected by
multinomial logistic regression, each by one that did not learn from its patient or its duplicates; `--distill` takes
what is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Floats, Integers, Pixels, Reals
from retigrade.data.manifest import Manifest
from retigrade.data.splits import Splits, within
from retigrade.experiments.head import fit_head
from retigrade.experiments.lesion_sample import LesionSample
from retigrade.experiments.predictions import TEST, out_of_fold, read_predictions, write_predictions
from retigrade.files import make_folder
from retigrade.metrics.classification import auroc, is_referable, p_referable
from retigrade.metrics.decision import softmax
from retigrade.training.counting import lesion_counts

FOLDS = 5
_STRONGEST = (0, 7, 31)  # of the cells, the strongest first
_FAINT = 0.01
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionEvidence:
    """The maps and predictions of labelled photographs, their split, and where the corrected predictions go."""

    maps: Path
    """The lesion-maps-....npy of a run on the same photographs and split."""
    predictions: Path
    """The folder of a cross-validated run."""
    data: tuple[Path, ...]
    splits: Path
    out: Path
    pull: float = 0.003
    """How strongly the correction is held to none."""
    seed: int = 1


def lesion_features(maps: Pixels) -> Floats:
    """What maps, uint8 (n, s, s, k), hold of each kind, in logarithms: float32 (n, 6 k).

    What is counted, as `lesion_counts`, and how surely lesions are in the strongest cells.
    """
    cells = maps.reshape(len(maps), -1, maps.shape[-1]).astype(np.float32) / 255
    strongest = np.log(-np.sort(-cells, axis=1)[:, _STRONGEST] + _FAINT).reshape(len(maps), -1)
    return np.concatenate([lesion_counts(maps), strongest], axis=1)


def corrected(
    predicted: Reals, features: Floats, targets: Floats, *, weights: Reals, folds: list[Integers], pull: float
) -> Reals:
    """Predictions, float (n, 5) above 0, corrected by features, float32 (n, C): float64 (n, 5), rows sum to 1.

    targets: float (n, 5), rows sum to 1. weights: (n,), how much each photograph counts. folds: of positions; each is
    corrected by what the others say.
    """
    logits = np.log(predicted).astype(np.float32)
    known = np.concatenate([features, logits], axis=1)
    scaled = np.asarray((known - known.mean(axis=0)) / np.maximum(known.std(axis=0), _FAINT), np.float32)
    answers = np.empty_like(predicted, np.float64)
    for fold in folds:
        others = np.setdiff1d(np.arange(len(predicted)), fold)
        change = fit_head(logits[others], scaled[others], targets[others], weights=weights[others], pull=pull)
        answers[fold] = softmax(logits[fold] + scaled[fold] @ change[:, :-1].T + change[:, -1])
    return answers


def main(arguments: LesionEvidence) -> None:
    """Correct, say how much better the corrected predictions are, and write them."""
    sample = LesionSample.read(arguments.data, arguments.splits, arguments.maps)
    manifest, train, subsets = sample.manifest, sample.train, sample.subsets
    predicted = out_of_fold([arguments.predictions], manifest)
    folds = list(_positions(manifest, sample.splits, train, seed=arguments.seed))
    own = (subsets[:, None] == np.unique(subsets)).astype(np.float32)
    seen = lesion_features(sample.maps)
    seen = (seen - seen.mean(axis=0)) / np.maximum(seen.std(axis=0), _FAINT)
    # What a lesion tells differs from data set to data set, for their readers and their sharpness do.
    by_subset = np.concatenate([own, seen, (seen[:, None] * own[:, :, None]).reshape(len(seen), -1)], axis=1)
    answers = {
        name: corrected(
            predicted[train], features, sample.targets, weights=sample.weights, folds=folds, pull=arguments.pull
        )
        for name, features in (("fitted again", own), ("corrected by lesions", by_subset))
    }
    for name, given in {"as predicted": predicted[train], **answers}.items():
        for line in _figures(given, sample.grades, subsets):
            _log.info("%s, %s", name, line)
    predicted[train] = answers["corrected by lesions"]
    _write(arguments, manifest, predicted)


def _positions(manifest: Manifest, splits: Splits, train: Integers, *, seed: int) -> Iterator[Integers]:
    shares = {f"fold{number}": 1 / FOLDS for number in range(1, FOLDS + 1)}
    for fold in within(manifest, splits, train, shares=shares, seed=seed).values():
        yield np.searchsorted(train, fold)


def _figures(predicted: Reals, grades: Integers, subsets: npt.NDArray[np.str_]) -> Iterator[str]:
    for name in ("all", *np.unique(subsets)):
        here = np.full(len(grades), True) if name == "all" else subsets == name
        given, true = predicted[here], grades[here]
        likelihood = -np.log(given[np.arange(len(true)), true]).mean()
        referable, ill = auroc(p_referable(given), is_referable(true)), auroc(1 - given[:, 0], true > 0)
        areas = f"AUROC referable {referable:.3f}, any {ill:.3f}"
        yield f"{name} ({len(true)}): negative log-likelihood {likelihood:.3f}, {areas}"


def _write(arguments: LesionEvidence, manifest: Manifest, predicted: Reals) -> None:
    place = {entry.sha256: index for index, entry in enumerate(manifest.entries)}
    rows = []
    for row in read_predictions(arguments.predictions):
        if row.part == TEST and row.sha256 in place:
            given = predicted[place[row.sha256]]
            rows.append(row.model_copy(update={"probabilities": tuple(given), "predicted": int(given.argmax())}))
    make_folder(arguments.out)
    write_predictions(arguments.out, rows)


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, LesionEvidence)
