"""The publication's Figures 1 to 4, drawn from this experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retigrade.arrays import Pixels
from retigrade.fundus.field import WHOLE_FRAME
from retigrade.heatmap import disease_evidence, make_heatmap
from retigrade.icdr import GRADES
from retigrade.metrics.classification import confusion, off_by_two
from retigrade.metrics.decision import softmax
from retigrade.output.overlay import as_jpeg, fitted, thermal
from retigrade.paper.config import Preparation, Protocol, printed_name, recipe_for
from retigrade.paper.experiment import Experiment, Results
from retigrade.paper.printed import STAGES, TABLE_1
from retigrade.report.document import Image, Table
from retigrade.report.plots import confusion_plot, counts_plot, training_plot

Album = Callable[[Protocol, Preparation], Pixels]
"""The prepared photographs of a protocol, uint8 (N, S, S, 3)."""

_SIDE, _GAP = 224, 8
_PRINTED_FOLDS = 2


def balance_figure(experiment: Experiment) -> Image:
    """Figure 1: photographs of each stage in training, before and after balancing."""
    run = experiment.config.runs()[0]
    recipe, train = recipe_for(run, size=experiment.config.size), experiment.fold(run).train
    grades = experiment.manifest.grades[train]
    before = np.bincount(grades, minlength=len(GRADES))
    shares = np.where(before > 0, np.maximum(before, 1.0) ** (1 - recipe.class_balance), 0.0)
    drawn = max(1, len(train) // recipe.batch) * recipe.batch
    series = {
        "printed": TABLE_1.training,
        "here, fold 1, before balancing": before.tolist(),
        "after, in one epoch": np.rint(shares / shares.sum() * drawn).astype(int).tolist(),
    }
    return Image(
        counts_plot(series),
        "svg",
        "; ".join(f"{name}: {', '.join(map(str, counts))}" for name, counts in series.items()),
        key="figure_1",
        title="Figure 1: training photographs of each stage",
        note="Balancing draws every stage equally often and augments each time anew; an epoch stays as long as it was. "
        "The printed figure shows the training column of Table 1.",
    )


def stages_figure(experiment: Experiment, album: Album) -> Image:
    """Figure 2: one photograph of each stage, in every preparation, the first of its name."""
    grades = experiment.manifest.grades
    present = np.unique(grades).tolist()
    chosen = [int(np.flatnonzero(grades == grade)[0]) for grade in present]
    preparations = experiment.config.preparations
    names = ", ".join(STAGES[grade] for grade in present)
    return Image(
        mosaic([[album(Protocol.PUBLISHED, kind)[index] for index in chosen] for kind in preparations]),
        "jpg",
        f"one photograph of each stage: {names}",
        key="figure_2",
        title="Figure 2: the stages",
        note=f"From left to right: {names}. Rows: {', '.join(preparations)}.",
    )


def confusion_figures(experiment: Experiment, results: Results) -> list[Image]:
    """Figure 3, once for each protocol: the first two folds of every network, as the publication shows them."""
    first, figures = experiment.config.preparations[0], []
    for protocol in experiment.config.protocols:
        shown = {
            f"{printed_name(fold.run.network)}, fold {fold.run.fold}": fold
            for (kind, _, preparation), folds in results.items()
            for fold in folds
            if kind is protocol and preparation is first and fold.run.fold <= _PRINTED_FOLDS
        }
        if shown:
            far = (
                f"{title}: {round(off_by_two(fold.target, fold.predicted) * len(fold.target))} of {len(fold.target):,}"
                for title, fold in shown.items()
            )
            matrices = {title: confusion(fold.target, fold.predicted) for title, fold in shown.items()}
            figures.append(
                Image(
                    confusion_plot(matrices, columns=_PRINTED_FOLDS),
                    "svg",
                    f"confusion matrices of {', '.join(matrices)}",
                    key=f"figure_3_{protocol}",
                    title=f"Figure 3, {protocol} protocol: confusion matrices",
                    note="Rows are the true stage, columns the predicted one, with the share of the row. "
                    f"{'; '.join(far)} lie two or more stages from the truth; the publication claims none.",
                )
            )
    return figures


def curves_figure(experiment: Experiment) -> Image:
    """Loss and validation accuracy of the first network in the first preparation."""
    first = next(iter(experiment.finished))
    lines = {
        f"{run.protocol}, fold {run.fold}": result.history
        for run, result in experiment.finished.items()
        if (run.network, run.preparation) == (first.network, first.preparation)
    }
    return Image(
        training_plot(
            {name: [epoch.loss for epoch in history] for name, history in lines.items()},
            {name: [epoch.accuracy for epoch in history] for name, history in lines.items()},
        ),
        "svg",
        f"training loss and validation accuracy by epoch of {', '.join(lines)}",
        key="curves",
        title=f"Training of {printed_name(first.network)}",
        note="Validation accuracy on what each protocol watches: the photographs that also evaluate (published), or "
        "photographs set aside for it (honest). The network kept is that of the epoch with the highest validation "
        "kappa.",
    )


def thermal_figure(experiment: Experiment, album: Album) -> tuple[Image, Table]:
    """Figure 4: a photograph of each stage, the result, and the thermal map, of the first network's first fold."""
    run, result = next(iter(experiment.finished.items()))
    photos, indices = album(run.protocol, run.preparation), experiment.shown(run)
    probabilities = softmax(result.logits[indices])
    evidence = [float(disease_evidence(maps, p).max()) for maps, p in zip(result.maps, probabilities, strict=True)]
    upper, lower, rows = [], [], []
    for index, maps, p in zip(indices, result.maps, probabilities, strict=True):
        pixels = np.asarray(photos[index])
        height, width = pixels.shape[:2]
        heatmap = make_heatmap(
            maps,
            p,
            cam_maximum=max(1e-3, *evidence),
            receptive_field_offset=result.receptive_field_offset,
            field=WHOLE_FRAME,
            width=width,
            height=height,
        )
        upper.append(pixels)
        lower.append(thermal(pixels, heatmap.in_source_pixels()))
        predicted = int(p.argmax())
        rows.append((STAGES[experiment.manifest.grades[index]], STAGES[predicted], float(p[predicted])))
    image = Image(
        mosaic([upper, lower]),
        "jpg",
        "photographs above, their thermal maps below; the results stand in the table",
        key="figure_4",
        title="Figure 4: photograph, result and thermal map",
        note=f"{run} ({experiment.networks[run.network].start}). The publication does not say how its thermal images "
        "were made; these are class-activation maps, exact for a network that ends in pooling and one linear layer: "
        "the evidence for disease less that for none, on one scale for all. They are evidence, not lesion "
        "segmentation. The photographs are the first of each stage that the fold tests, chosen before anything was "
        "trained.",
    )
    headings = ("true", "predicted", "probability")
    title = "Figure 4: results, from left to right"
    return image, Table(headings, tuple(rows), key="figure_4_results", title=title)


def mosaic(rows: Sequence[Sequence[Pixels]]) -> bytes:
    """Pictures in rows, each fitted into 224 pixels on white, as a JPEG file."""
    height, width = len(rows), max(map(len, rows))
    step = _SIDE + _GAP
    canvas = np.full((height * step - _GAP, width * step - _GAP, 3), 255, np.uint8)
    for down, row in enumerate(rows):
        for across, pixels in enumerate(row):
            small = fitted(np.asarray(pixels), _SIDE)
            canvas[down * step :, across * step :][: small.shape[0], : small.shape[1]] = small
    return as_jpeg(canvas)
