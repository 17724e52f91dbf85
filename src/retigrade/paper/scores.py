"""The publication's Table 4 and Figure 3 in numbers, and the three protocols side by side on the same photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retigrade.arrays import Flags, Integers, Reals
from retigrade.metrics import classification as metrics
from retigrade.metrics.bootstrap import Bootstrap
from retigrade.metrics.estimate import Estimate
from retigrade.paper.config import Protocol, printed_name
from retigrade.paper.experiment import Experiment, FoldResult, ResultKey, Results
from retigrade.paper.printed import CLAIMS, NETWORKS, STAGES, TABLE_4
from retigrade.paper.tables import difference
from retigrade.report.document import Cell, Table

_WHO = ("protocol", "network", "start", "preparation")
_BESIDE = ("printed", "measured", "difference")
_MEASURES = {"precision": "precision", "recall": "sensitivity", "f1": "f1"}
"""The publication's averages by what `retigrade.metrics` calls them."""
_COMPARED = ("accuracy", "QWK", "F1", "macro F1", "balanced accuracy", "off by two or more", "referable AUROC")


def fold_table(experiment: Experiment, results: Results, protocol: Protocol) -> Table:
    """Table 4 under one protocol: each fold of each network, means weighted by support as the publication's."""
    rows: list[tuple[Cell, ...]] = []
    for result in (fold for key, folds in results.items() if key[0] is protocol for fold in folds):
        run, name = result.run, printed_name(result.run.network)
        printed = next((row for row in TABLE_4 if (row.network, row.fold) == (name, run.fold)), None)
        cells: list[Cell] = [name, experiment.networks[run.network].start, run.preparation, run.fold]
        cells += [result.trained.epoch, run.epochs]
        for measure, value in _weighted(result).items():
            cells += _beside(None if printed is None else getattr(printed, measure), value)
        support = len(result.target)
        cells += [None if printed is None else printed.support, support]
        cells += [None if printed is None else difference(support, printed.support)]
        kappa = metrics.quadratic_kappa(result.target, result.predicted)
        rows.append((*cells, metrics.accuracy(result.target, result.predicted), kappa))
    return Table(
        (
            *("network", "start", "preparation", "fold", "epoch picked", "epochs run"),
            *_columns("precision", "recall", "F1", "support"),
            *("accuracy", "QWK"),
        ),
        tuple(rows),
        key=f"table_4_{protocol}",
        title=f"Table 4, {protocol} protocol: each fold",
        note="Precision, recall and F1 are means over the stages weighted by support, so recall equals accuracy.",
    )


def means_table(experiment: Experiment, results: Results) -> Table:
    """Means over the folds beside those that the text quotes."""
    rows: list[tuple[Cell, ...]] = []
    for key, folds in results.items():
        name = printed_name(key[1])
        quoted = next((average for average in CLAIMS.averages if average.network == name), None)
        cells = [*_who(experiment, key), len(folds)]
        for measure in _MEASURES:
            mean = float(np.mean([_weighted(fold)[measure] for fold in folds]))
            cells += _beside(None if quoted is None else getattr(quoted, measure) / 100, mean)
        claimed = CLAIMS.accuracy / 100 if name == NETWORKS[0] else None
        cells += _beside(claimed, float(np.mean([metrics.accuracy(fold.target, fold.predicted) for fold in folds])))
        rows.append(tuple(cells))
    return Table(
        (*_WHO, "folds", *_columns("precision", "recall", "F1", "accuracy")),
        tuple(rows),
        key="means",
        title="Means over the folds",
        note="Printed: section 4, and for the accuracy the abstract.",
    )


def protocols_table(experiment: Experiment, results: Results, *, seed: int = 0) -> Table:
    """Every protocol on the same photographs: figures pooled over the folds, with 95 % intervals."""
    rows: list[tuple[Cell, ...]] = []
    for key, folds in results.items():
        estimates = _compared(folds, experiment.groups, seed)
        claimed = CLAIMS.accuracy / 100 if printed_name(key[1]) == NETWORKS[0] else None
        count = sum(len(fold.target) for fold in folds)
        less = difference(estimates[0].number, claimed)
        rows.append((*_who(experiment, key), len(folds), count, *estimates, claimed, less))
    return Table(
        (*_WHO, "folds", "evaluated", *_COMPARED, "printed accuracy", "accuracy less printed"),
        tuple(rows),
        key="protocols",
        title="Figures of each protocol",
        note="Pooled over the folds, with 95 % intervals by bootstrap, whole duplicate groups and patients resampled. "
        "QWK: quadratic weighted kappa. The publication claims that no photograph is predicted two or more stages from "
        "the truth.",
    )


def leak_table(experiment: Experiment, results: Results) -> Table:
    """What each protocol's accuracy is made of: photographs that were learned from, their twins, and others."""
    rows: list[tuple[Cell, ...]] = []
    for key, folds in results.items():
        right = np.concatenate([fold.target == fold.predicted for fold in folds])
        pairs = [fold.seen(experiment.groups) for fold in folds]
        trained_on, twins = (np.concatenate(flags) for flags in zip(*pairs, strict=True))
        cells = _who(experiment, key)
        for chosen in (trained_on, twins, ~(trained_on | twins)):
            cells += [int(chosen.sum()), _share(right[chosen])]
        rows.append(tuple(cells))
    kinds = ("trained on", "a duplicate or the patient trained on", "neither")
    return Table(
        (*_WHO, *(column for kind in kinds for column in (f"{kind}: evaluated", f"{kind}: accuracy"))),
        tuple(rows),
        key="leaks",
        title="What the accuracy is made of",
        note="Photographs evaluated, pooled over the folds, by what the network had seen of them in training.",
    )


def stages_table(experiment: Experiment, results: Results) -> Table:
    """Figure 3 and equations 1 to 4 in numbers: each stage under each protocol, pooled over the folds."""
    rows: list[tuple[Cell, ...]] = []
    for key, folds in results.items():
        rates = metrics.rates(pooled(folds))
        for grade, stage in enumerate(STAGES):
            floor = CLAIMS.accuracy_over[grade] / 100 if printed_name(key[1]) == NETWORKS[0] else None
            cells = [*_who(experiment, key), stage, CLAIMS.validated[grade], int(rates.support[grade])]
            cells += _beside(floor, float(rates.sensitivity[grade]))
            cells += [float(column[grade]) for column in (rates.accuracy, rates.specificity, rates.precision)]
            rows.append(tuple(cells))
    return Table(
        (
            *(*_WHO, "stage", "photographs: printed, one fold", "photographs: evaluated, all folds"),
            *("sensitivity: printed, over", "sensitivity: measured", "difference"),
            *("accuracy", "specificity", "precision"),
        ),
        tuple(rows),
        key="stages",
        title="Equations 1 to 4 by stage",
        note="The text gives a floor for each stage's accuracy (99, 75, 92, 60 and 85 %), which can only be the share "
        "of that stage's photographs that were predicted right, equation 3; equation 1 counts every photograph of the "
        "other stages too.",
    )


def confusion_table(experiment: Experiment, results: Results) -> Table:
    """Every fold's confusion matrix in numbers, from which Figure 3 can be drawn again."""
    rows: list[tuple[Cell, ...]] = []
    for key, folds in results.items():
        for fold in folds:
            counts = metrics.confusion(fold.target, fold.predicted).tolist()
            for stage, row in zip(STAGES, counts, strict=True):
                rows.append((*_who(experiment, key), fold.run.fold, stage, *row))
    return Table(
        (*_WHO, "fold", "true stage", *(f"predicted {stage}" for stage in STAGES)),
        tuple(rows),
        key="confusion",
        title="Figure 3 in numbers",
    )


def pooled(folds: Sequence[FoldResult]) -> Integers:
    """The confusion matrix of all folds together: int64 (5, 5), rows true."""
    return np.asarray(np.sum([metrics.confusion(fold.target, fold.predicted) for fold in folds], axis=0))


def _who(experiment: Experiment, key: ResultKey) -> list[Cell]:
    protocol, network, preparation = key
    return [protocol, printed_name(network), experiment.networks[network].start, preparation]


def _columns(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}: {what}" for name in names for what in _BESIDE)


def _weighted(result: FoldResult) -> dict[str, float]:
    """Precision, recall and F1 weighted by support."""
    weighted = metrics.rates(metrics.confusion(result.target, result.predicted)).weighted()
    return {measure: weighted[name] for measure, name in _MEASURES.items()}


def _beside(printed: float | None, measured: float) -> list[Cell]:
    return [printed, measured, difference(measured, printed)]


def _compared(folds: Sequence[FoldResult], groups: Integers, seed: int) -> tuple[Estimate, ...]:
    target, predicted = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("target", "predicted"))
    score = metrics.p_referable(np.concatenate([fold.probabilities for fold in folds]))
    units = np.concatenate([groups[fold.indices] for fold in folds])
    return Bootstrap(seed=seed).estimates(_figures, target, predicted, score, groups=units)


def _figures(target: Integers, predicted: Integers, score: Reals) -> Reals:
    """One figure for each name in `_COMPARED`."""
    counts = metrics.confusion(target, predicted)
    rates = metrics.rates(counts)
    macro = rates.macro()
    return np.array(
        [
            metrics.accuracy(target, predicted),
            metrics.quadratic_kappa_of(counts),
            rates.weighted()["f1"],
            macro["f1"],
            macro["sensitivity"],
            metrics.off_by_two(target, predicted),
            metrics.auroc(score, metrics.is_referable(target)),
        ]
    )


def _share(right: Flags) -> float | None:
    return float(right.mean()) if right.size else None
