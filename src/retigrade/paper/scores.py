"""The publication's Figure 3 and Table 4 in numbers, and the three protocols side by side on the same photographs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from retigrade.arrays import Integers, Reals
from retigrade.metrics import classification as metrics
from retigrade.metrics.bootstrap import Bootstrap
from retigrade.metrics.estimate import Estimate
from retigrade.paper.document import Cell, Table
from retigrade.paper.printed import CLAIMS, NETWORKS, STAGES, TABLE_4
from retigrade.paper.settings import Protocol, printed_name
from retigrade.paper.study import Judged, Key, Study
from retigrade.paper.tables import difference, seen

Folds = Mapping[Key, Sequence[Judged]]

_MEASURES = ("precision", "recall", "f1")
_COMPARED = ("accuracy", "QWK", "F1", "macro F1", "balanced accuracy", "off by two or more", "referable AUROC")


def fold_table(study: Study, judged: Folds, protocol: Protocol) -> Table:
    """Table 4 under one protocol: each fold of each network, means weighted by support as the publication's."""
    rows: list[tuple[Cell, ...]] = []
    for one in _flat(judged, protocol):
        name, weighted = printed_name(one.job.network), _weighted(one)
        printed = next((row for row in TABLE_4 if (row.network, row.fold) == (name, one.job.fold)), None)
        cells: list[Cell] = [name, study.contestants[one.job.network].start, one.job.preparation, one.job.fold]
        cells += [one.trained.epoch, one.job.epochs]
        for measure in _MEASURES:
            cells += _beside(None if printed is None else getattr(printed, measure), weighted[measure])
        support = len(one.target)
        said = None if printed is None else printed.support
        cells += [said, support, None if said is None else difference(support, said)]
        kappa = metrics.quadratic_kappa(one.target, one.predicted)
        rows.append((*cells, metrics.accuracy(one.target, one.predicted), kappa))
    return Table(
        f"table_4_{protocol}",
        f"Table 4, {protocol} protocol: each fold",
        (
            *("network", "start", "preparation", "fold", "epoch picked", "epochs run"),
            *(f"{name}: {what}" for name in ("precision", "recall", "F1", "support") for what in _BESIDE),
            *("accuracy", "QWK"),
        ),
        tuple(rows),
        "Precision, recall and F1 are means over the stages weighted by support, so recall equals accuracy.",
    )


_BESIDE = ("printed", "measured", "difference")


def means_table(study: Study, judged: Folds) -> Table:
    """Means over the folds beside those that the text quotes."""
    rows: list[tuple[Cell, ...]] = []
    for (protocol, network, preparation), folds in judged.items():
        name = printed_name(network)
        quoted = next((average for average in CLAIMS.averages if average.network == name), None)
        cells: list[Cell] = [protocol, name, study.contestants[network].start, preparation, len(folds)]
        for measure in _MEASURES:
            mean = float(np.mean([_weighted(one)[measure] for one in folds]))
            cells += _beside(None if quoted is None else getattr(quoted, measure) / 100, mean)
        said = CLAIMS.accuracy / 100 if name == NETWORKS[0] else None
        cells += _beside(said, float(np.mean([metrics.accuracy(one.target, one.predicted) for one in folds])))
        rows.append(tuple(cells))
    return Table(
        "means",
        "Means over the folds",
        (
            *("protocol", "network", "start", "preparation", "folds"),
            *(f"{name}: {what}" for name in ("precision", "recall", "F1", "accuracy") for what in _BESIDE),
        ),
        tuple(rows),
        "Printed: section 4, and for the accuracy the abstract.",
    )


def protocols_table(study: Study, judged: Folds, *, seed: int = 0) -> Table:
    """Every protocol on the same photographs: figures pooled over the folds, with 95 % intervals."""
    rows: list[tuple[Cell, ...]] = []
    for (protocol, network, preparation), folds in judged.items():
        found = _compared(folds, study.units, seed)
        cells: list[Cell] = [protocol, printed_name(network), study.contestants[network].start, preparation]
        cells += [len(folds), sum(len(one.target) for one in folds)]
        cells += found
        said = CLAIMS.accuracy / 100 if printed_name(network) == NETWORKS[0] else math.nan
        rows.append((*cells, said, difference(found[0].number, said)))
    return Table(
        "protocols",
        "The protocols side by side",
        (
            *("protocol", "network", "start", "preparation", "folds", "judged"),
            *_COMPARED,
            *("printed accuracy", "accuracy less printed"),
        ),
        tuple(rows),
        "Pooled over the folds, with 95 % intervals by bootstrap, whole duplicate groups and patients resampled. "
        "QWK: quadratic weighted kappa. The publication claims that no photograph is decided two or more stages from "
        "the truth.",
    )


def leak_table(study: Study, judged: Folds) -> Table:
    """What each protocol's accuracy is made of: photographs that were learned from, their twins, and others."""
    rows: list[tuple[Cell, ...]] = []
    for (protocol, network, preparation), folds in judged.items():
        right = np.concatenate([one.target == one.predicted for one in folds])
        pairs = [seen(one.indices, one.learned, study.units) for one in folds]
        both, twins = (np.concatenate(flags) for flags in zip(*pairs, strict=True))
        cells: list[Cell] = [protocol, printed_name(network), study.contestants[network].start, preparation]
        for chosen in (both, twins, ~(both | twins)):
            cells += [int(chosen.sum()), _share(right[chosen])]
        rows.append(tuple(cells))
    kinds = ("trained on", "a duplicate or the patient trained on", "neither")
    return Table(
        "leaks",
        "What the accuracy is made of",
        (
            *("protocol", "network", "start", "preparation"),
            *(column for kind in kinds for column in (f"{kind}: judged", f"{kind}: accuracy")),
        ),
        tuple(rows),
        "Photographs judged, pooled over the folds, by what the network had seen of them in training.",
    )


def stages_table(study: Study, judged: Folds) -> Table:
    """Figure 3 and equations 1 to 4 in numbers: each stage under each protocol, pooled over the folds."""
    rows: list[tuple[Cell, ...]] = []
    for (protocol, network, preparation), folds in judged.items():
        rates = metrics.rates(pooled(folds))
        name = printed_name(network)
        about_this = name == NETWORKS[0]
        for grade, stage in enumerate(STAGES):
            said = CLAIMS.accuracy_over[grade] / 100 if about_this else None
            recall = float(rates.sensitivity[grade])
            cells: list[Cell] = [protocol, name, study.contestants[network].start, preparation, stage]
            cells += [CLAIMS.validated[grade], int(rates.support[grade]), *_beside(said, recall)]
            cells += [float(rates.accuracy[grade]), float(rates.specificity[grade]), float(rates.precision[grade])]
            rows.append(tuple(cells))
    return Table(
        "stages",
        "Equations 1 to 4 by stage",
        (
            *("protocol", "network", "start", "preparation", "stage"),
            *("photographs: printed, one fold", "photographs: judged, all folds"),
            *("sensitivity: printed, over", "sensitivity: measured", "difference"),
            *("accuracy", "specificity", "precision"),
        ),
        tuple(rows),
        "The text gives a floor for each stage's accuracy (99, 75, 92, 60 and 85 %), which can only be the share of "
        "that stage's photographs that were decided right, equation 3; equation 1 counts every photograph of the "
        "other stages too.",
    )


def pooled(folds: Sequence[Judged]) -> Integers:
    """The confusion matrix of all folds together: int64 (5, 5), rows true."""
    return np.asarray(np.sum([metrics.confusion(one.target, one.predicted) for one in folds], axis=0))


def _flat(judged: Folds, protocol: Protocol) -> Iterator[Judged]:
    return (one for key, folds in judged.items() if key[0] is protocol for one in folds)


def _weighted(one: Judged) -> dict[str, float]:
    """Precision, recall and F1 weighted by support."""
    found = metrics.rates(metrics.confusion(one.target, one.predicted)).weighted()
    return {"precision": found["precision"], "recall": found["sensitivity"], "f1": found["f1"]}


def _beside(printed: float | None, measured: float) -> list[Cell]:
    return [printed, measured, None if printed is None else difference(measured, printed)]


def _compared(folds: Sequence[Judged], units: npt.NDArray[np.int64], seed: int) -> tuple[Estimate, ...]:
    target, predicted = (np.concatenate([getattr(one, name) for one in folds]) for name in ("target", "predicted"))
    score = metrics.p_referable(np.concatenate([one.probabilities for one in folds]))
    groups = np.concatenate([units[one.indices] for one in folds])
    return Bootstrap(seed=seed).estimates(_figures, target, predicted, score, groups=groups)


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


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if right.size else None
