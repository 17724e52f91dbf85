"""What counts of lesions add to the answers of networks that saw nothing of a source.

    python -m retigrade.experiments.left_out_counts --maps FILE --predictions DIR --left-out DIR... --data DATA... \
        --splits FILE

A source that a network learned from cannot say how much to trust counts abroad. So each source is taken for abroad in
turn: its photographs are answered by networks that were trained without it (`--leave-source-out`), what counts are
worth is fitted on the other sources, and shares of that are added. It is asked of photographs that train alone, and of
those of more pixels than a network sees.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retigrade.arrays import Floats, Integers
from retigrade.errors import DataError
from retigrade.experiments.counting import worth_of_counts
from retigrade.experiments.lesion_sample import LesionSample
from retigrade.metrics.classification import auroc
from retigrade.metrics.decision import softmax
from retigrade.training.averaging import compared

SHARES = (0.0, 0.5, 1.0, 2.0)
"""Of the evidence of counts, that are added."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutCounts:
    """The maps of labelled photographs, what networks said of them, and their split; the command's arguments."""

    maps: Path
    """The lesion-maps-....npy of a run on the same photographs and split."""
    predictions: Path
    """The folder of a cross-validated run, beside whose answers counts are weighed."""
    left_out: tuple[Path, ...]
    """Folders of runs with --leave-source-out; the mean of their logits is taken."""
    data: tuple[Path, ...]
    splits: Path
    kinds: tuple[str, ...] = ("microaneurysm",)
    """Of lesions, that are counted."""
    side: int = 352
    """In pixels, that photographs must exceed to be fitted to and asked."""
    pull: float = 0.001
    """How strongly the evidence is held to none."""


def main(arguments: LeftOutCounts) -> None:
    """Fit without each source in turn, and say what shares of the evidence are worth there, by subset."""
    sample = LesionSample.read(arguments.data, arguments.splits, arguments.maps)
    counts, abroad = sample.counts(arguments.kinds), sample.logits(arguments.left_out)
    large = sample.larger_than(arguments.side)
    grades, subsets, sources = sample.grades, sample.subsets, sample.manifest.sources[sample.train]
    for source in np.unique(sources[large]):
        others = large & (sources != source)
        if not others.any():
            raise DataError(f"all photographs are of {source}: there is no source to fit to where one is left out")
        worth = worth_of_counts(sample, [arguments.predictions], others, kinds=arguments.kinds, pull=arguments.pull)
        evidence = np.asarray(counts @ worth[:, :-1].T + worth[:, -1], np.float32)
        unseen = large & (sources == source)
        for subset in np.unique(subsets[unseen]):
            here = unseen & (subsets == subset)
            for share in SHARES:
                figures = _figures(abroad[here] + share * evidence[here], grades[here])
                _log.info("%s (%d), %g of the evidence: %s", subset, here.sum(), share, ", ".join(figures))


def _figures(logits: Floats, grades: Integers) -> Iterator[str]:
    """Figures, all but the last after calibration on the same photographs."""
    yield from compared(logits, grades, np.ones(len(grades)))
    yield f"AUROC of any stage {auroc(1 - softmax(logits)[:, 0], grades > 0):.3f}"


if __name__ == "__main__":
    from retigrade.module_command import run_module

    run_module(main, LeftOutCounts)
