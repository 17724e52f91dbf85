"""The audit of the publication's results: Table 4 against the averages, the accuracy and the ranking in the text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from retigrade.paper import sums
from retigrade.paper.audit_data import PUBLIC_TRAINING
from retigrade.paper.finding import Finding, Verdict, verdict
from retigrade.paper.printed import CLAIMS, NETWORKS, STAGES, TABLE_1, TABLE_3, TABLE_4, Average, Score

UNIT = 0.01
"""The step of Table 4's figures."""


def on_scores() -> Iterator[Finding]:
    """Findings on the averages and the accuracy (abstract, section 4, Table 4)."""
    for quoted in CLAIMS.averages:
        yield _average(quoted)
    best, said = CLAIMS.ranking[0], CLAIMS.accuracy
    recalls = [row.recall for row in _rows(best)]
    mean, low, high = sums.mean_of_rounded(recalls, unit=UNIT)
    yield Finding(
        "accuracy",
        f"average accuracy of {said} %",
        "abstract, sections 4 and 5",
        f"mean recall {100 * mean:.2f} % ({100 * low:.2f} to {100 * high:.2f} before rounding), best fold below "
        f"{100 * (max(recalls) + UNIT / 2):.1f} %",
        verdict(sums.overlap((low, high), (said / 100, said / 100))),
        "Recall averaged by support equals accuracy; finding `accuracy-floors` says why Table 4 averages so.",
    )
    floors = sums.weighted_mean(CLAIMS.accuracy_over, CLAIMS.validated)
    plain = sum(CLAIMS.accuracy_over) / len(STAGES)
    yield Finding(
        "accuracy-floors",
        f"accuracy over {', '.join(map(str, CLAIMS.accuracy_over))} % by stage",
        "section 4",
        f"by support {floors:.1f} %, plain {plain:.1f} %; Table 4 has {100 * mean:.1f} %",
        verdict(floors / 100 <= high),
        "The floors averaged by support come just under the printed recall. Averaged plainly they fall "
        f"{100 * mean - plain:.1f} points short of it, and each stage would have to lie that far above its floor.",
    )
    validated = sum(CLAIMS.validated)
    public = sum(PUBLIC_TRAINING)
    sizes = (validated, sum(TABLE_1.testing), CLAIMS.photographs // 5, public // 5, CLAIMS.photographs, public)
    hits = [size for size in sizes if sums.reachable(said, size, decimals=2)]
    in_all = CLAIMS.folds * validated
    yield Finding(
        "accuracy-whole-photographs",
        f"accuracy of {said} %",
        "abstract",
        f"of {', '.join(f'{n:,}' for n in sizes)} photographs: {', '.join(f'{n:,}' for n in hits) or 'none'} can give "
        f"it; {CLAIMS.folds} folds together ({in_all:,}): "
        + ("prediction_set" if sums.reachable(said, in_all, decimals=2) else "impossible"),
        verdict(bool(hits) or sums.reachable(said, in_all, decimals=2)),
        "Whether a whole number of correct photographs rounds to it: not on any one set that the text names, only as "
        "an average over the folds.",
    )
    least = min(sums.highest_mean_f1(row.precision + UNIT / 2, row.recall + UNIT / 2) - row.f1 for row in TABLE_4)
    yield Finding(
        "f1",
        "F1 below precision and recall",
        "abstract, Table 4",
        f"2PR/(P+R) of the abstract's averages is {100 * _harmonic(CLAIMS.averages[0]):.1f} %, quoted "
        f"{CLAIMS.averages[0].f1} %; every row keeps below its bound",
        verdict(least >= -UNIT / 2),
        "A mean of F1 over grades may lie under 2PR/(P+R) of the means, and under both, but never over it.",
    )


def _average(quoted: Average) -> Finding:
    rows = _rows(quoted.network)
    parts, fits, plain = [], True, True
    for name, said in (("precision", quoted.precision), ("recall", quoted.recall), ("F1", quoted.f1)):
        mean, low, high = sums.mean_of_rounded([getattr(row, name.lower()) for row in rows], unit=UNIT)
        parts.append(f"{name} {100 * mean:.2f} (quoted {said})")
        fits &= sums.overlap((low, high), ((said - 0.5) / 100, (said + 0.5) / 100))
        plain &= abs(100 * mean - said) <= 0.5
    return Finding(
        f"averages-{quoted.network}",
        f"{quoted.network}: precision {quoted.precision} %, recall {quoted.recall} %, F1 {quoted.f1} %",
        "section 4",
        ", ".join(parts),
        verdict(fits),
        "Means of Table 4 over the folds, which rounding may have moved by half a point."
        + ("" if plain else " The printed rows round to another figure; only unprinted decimals can give the quoted."),
    )


def on_conclusions() -> Iterator[Finding]:
    """Findings on what the text concludes (sections 2.4, 4 and 5, Table 3)."""
    kept = {measure: _in_printed_order(measure) for measure in ("precision", "recall", "f1")}
    recall = {network: sums.mean_of_rounded([row.recall for row in _rows(network)], unit=UNIT) for network in NETWORKS}
    yield Finding(
        "ranking",
        f"by overall accuracy, best {CLAIMS.ranking[0]}, then {CLAIMS.ranking[1]}, then {CLAIMS.ranking[2]}",
        "section 4",
        "mean recall " + ", ".join(f"{network} {100 * mean[0]:.1f} %" for network, mean in recall.items()) + "; "
        f"the order holds for {', '.join(measure for measure, holds in kept.items() if holds)}",
        verdict(kept["recall"]),
        "Means of Table 4 over the folds. Recall, which is accuracy, puts the second behind the third by more than "
        "rounding.",
    )
    batches = [int(size) for size in next(row.values for row in TABLE_3 if row.name == "Batch size")]
    flips = next(row.values for row in TABLE_3 if row.name == "Horizontal flipping")
    yield Finding(
        "same-conditions",
        f"{CLAIMS.ranking[0]} is superior to the other networks",
        "sections 4 and 5, Table 3",
        f"batches of {', '.join(map(str, batches))}: {batches[0] / batches[1]:.1f} x as many updates for the others; "
        f"flips: {', '.join(flip or 'not stated' for flip in flips)}",
        Verdict.UNVERIFIABLE,
        "Table 3 read across: the networks were not trained alike, so the table cannot say which is better.",
    )
    epochs = [int(value) for value in next(row.values for row in TABLE_3 if row.name == "Epoch")]
    yield Finding(
        "epochs",
        f"{CLAIMS.epochs_in_all} epochs for each network",
        "section 2.4",
        f"{CLAIMS.folds} x {epochs[0]} = {CLAIMS.folds * epochs[0]}",
        verdict(all(CLAIMS.folds * n == CLAIMS.epochs_in_all for n in epochs)),
        "Folds times epochs of Table 3.",
    )
    yield Finding(
        "photographs-again",
        f"{CLAIMS.photographs_in_discussion:,} photographs used for training",
        "section 4",
        f"{CLAIMS.photographs:,} in all, {sum(TABLE_1.training):,} for training",
        verdict(CLAIMS.photographs_in_discussion in (CLAIMS.photographs, sum(TABLE_1.training))),
        "Compared with section 2.1 and Table 1.",
    )
    yield Finding(
        "adjacent-stages",
        "no photograph is decided more than one stage from the truth",
        "section 4, Figure 3",
        "no number is printed",
        Verdict.UNVERIFIABLE,
        "The confusion matrices are a picture of folds 1 and 2 alone.",
    )


def _in_printed_order(measure: str) -> bool:
    """Whether rounding allows the printed ranking by this column of Table 4."""
    means = [sums.mean_of_rounded([getattr(row, measure) for row in _rows(name)], unit=UNIT) for name in CLAIMS.ranking]
    return all(better[2] >= worse[1] for better, worse in pairwise(means))


def _rows(network: str) -> list[Score]:
    return [row for row in TABLE_4 if row.network == network]


def _harmonic(average: Average) -> float:
    return sums.highest_mean_f1(average.precision / 100, average.recall / 100)
