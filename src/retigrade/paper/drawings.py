"""The publication's Figures 1 to 4, drawn from this run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retigrade.arrays import Pixels
from retigrade.fundus.field import WHOLE_FRAME
from retigrade.heatmap import disease_evidence, make_heatmap
from retigrade.icdr import GRADES, Grade
from retigrade.metrics.classification import confusion
from retigrade.metrics.decision import softmax
from retigrade.output.overlay import as_jpeg, fitted, thermal
from retigrade.paper.document import Figure, Table
from retigrade.paper.printed import STAGES, TABLE_1
from retigrade.paper.scores import Folds
from retigrade.paper.settings import Preparation, Protocol, printed_name, recipe_of
from retigrade.paper.study import Study
from retigrade.report.plots import confusion_plot, counts_plot, training_plot

Album = Callable[[Protocol, Preparation], Pixels]
"""The prepared photographs of a protocol, uint8 (N, S, S, 3)."""

_SIDE, _GAP = 224, 8
_PRINTED_FOLDS = 2


def balance_figure(study: Study) -> Figure:
    """Figure 1: photographs of each stage in training, before and after balancing."""
    job = study.settings.jobs()[0]
    recipe = recipe_of(job, size=study.settings.size)
    before = np.bincount(study.manifest.grades[study.parts(job).train], minlength=len(GRADES))
    drawn = max(1, int(before.sum()) // recipe.batch) * recipe.batch
    shares = np.where(before > 0, np.maximum(before, 1.0) ** (1 - recipe.class_balance), 0.0)
    after = np.rint(shares / shares.sum() * drawn).astype(int)
    series = {
        "printed": TABLE_1.training,
        "here, fold 1, before balancing": before.tolist(),
        "after, in one epoch": after.tolist(),
    }
    return Figure(
        "figure_1",
        "Figure 1: training photographs of each stage",
        counts_plot(series),
        "svg",
        "; ".join(f"{name}: {', '.join(map(str, counts))}" for name, counts in series.items()),
        "Balancing draws every stage equally often and augments each time anew; an epoch stays as long as it was. The "
        "printed figure shows the training column of Table 1.",
    )


def stages_figure(study: Study, album: Album) -> Figure:
    """Figure 2: one photograph of each stage, in every preparation, the first of its name."""
    chosen = [int(np.flatnonzero(study.manifest.grades == grade)[0]) for grade in _present(study)]
    rows = [[album(Protocol.PUBLISHED, kind)[index] for index in chosen] for kind in study.settings.preparations]
    names = ", ".join(STAGES[grade] for grade in _present(study))
    return Figure(
        "figure_2",
        "Figure 2: the stages",
        mosaic(rows),
        "jpg",
        f"one photograph of each stage: {names}",
        f"From left to right: {names}. Rows: {', '.join(study.settings.preparations)}.",
    )


def confusion_figures(study: Study, judged: Folds) -> list[Figure]:
    """Figure 3, once for each protocol: the first two folds of every network, as the publication shows them."""
    first, figures = study.settings.preparations[0], []
    for protocol in study.settings.protocols:
        matrices = {
            f"{printed_name(one.job.network)}, fold {one.job.fold}": confusion(one.target, one.predicted)
            for (kind, _, preparation), folds in judged.items()
            for one in folds
            if kind is protocol and preparation is first and one.job.fold <= _PRINTED_FOLDS
        }
        if matrices:
            figures.append(
                Figure(
                    f"figure_3_{protocol}",
                    f"Figure 3, {protocol} protocol: confusion matrices",
                    confusion_plot(matrices, columns=_PRINTED_FOLDS),
                    "svg",
                    f"confusion matrices of {', '.join(matrices)}",
                    "Rows are the true stage, columns the decided one, with the share of the row. "
                    + "; ".join(
                        f"{title}: {_off_by_two(counts)} of {counts.sum():,}" for title, counts in matrices.items()
                    )
                    + " lie two or more stages from the truth; the publication claims none.",
                )
            )
    return figures


def curves_plot(study: Study) -> Figure:
    """Loss and validation accuracy of the first network in the first preparation."""
    first = next(iter(study.finished))
    lines = {
        f"{job.protocol}, fold {job.fold}": trained.history
        for job, trained in study.finished.items()
        if (job.network, job.preparation) == (first.network, first.preparation)
    }
    return Figure(
        "curves",
        f"Training of {printed_name(first.network)}",
        training_plot(
            {name: [line.loss for line in history] for name, history in lines.items()},
            {name: [line.accuracy for line in history] for name, history in lines.items()},
        ),
        "svg",
        f"training loss and validation accuracy by epoch of {', '.join(lines)}",
        "Validation accuracy on what each protocol watches: the photographs that also judge (published), or "
        "photographs set aside for it (honest). The network kept is that of the epoch with the highest validation "
        "kappa.",
    )


def thermal_figure(study: Study, album: Album) -> tuple[Figure, Table]:
    """Figure 4: a photograph of each stage, the result, and the thermal map, of the first network's first fold."""
    job, trained = next(iter(study.finished.items()))
    photos, indices = album(job.protocol, job.preparation), study.shown(job)
    probabilities = softmax(trained.logits[indices])
    hottest = max(
        1e-3, *(float(disease_evidence(m, p).max()) for m, p in zip(trained.maps, probabilities, strict=True))
    )
    upper, lower, rows = [], [], []
    for index, maps, p in zip(indices, trained.maps, probabilities, strict=True):
        pixels = np.asarray(photos[index])
        height, width = pixels.shape[:2]
        heat = make_heatmap(
            maps,
            p,
            cam_maximum=hottest,
            receptive_field_offset=trained.centre,
            field=WHOLE_FRAME,
            width=width,
            height=height,
        )
        upper.append(pixels)
        lower.append(thermal(pixels, heat.in_source_pixels()))
        predicted = int(p.argmax())
        rows.append((STAGES[study.manifest.grades[index]], STAGES[predicted], float(p[predicted])))
    figure = Figure(
        "figure_4",
        "Figure 4: photograph, result and thermal map",
        mosaic([upper, lower]),
        "jpg",
        "photographs above, their thermal maps below; the results stand in the table",
        f"{job} ({study.contestants[job.network].start}). The publication does not say how its thermal images were "
        "made; these are class-activation maps, exact for a network that ends in pooling and one linear layer: the "
        "evidence for disease less that for none, on one scale for all. They are evidence, not lesion segmentation. "
        "The photographs are the first of each stage that the fold tests, chosen before anything was trained.",
    )
    columns = ("true", "predicted", "probability")
    return figure, Table("figure_4_results", "Figure 4: results, from left to right", columns, tuple(rows))


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


def _present(study: Study) -> list[Grade]:
    return [Grade(grade) for grade in np.unique(study.manifest.grades)]


def _off_by_two(counts: np.typing.NDArray[np.int64]) -> int:
    away = np.abs(np.subtract.outer(np.arange(len(GRADES)), np.arange(len(GRADES)))) >= 2
    return int(counts[away].sum())
