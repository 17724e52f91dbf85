"""Plots of a training and its results, as SVG or PNG bytes to embed; equal input gives equal bytes.

Drawn with matplotlib's objects alone: no window, no pyplot. Its settings are replaced while a plot is drawn, so a
user's own do not show, and put back after; do not draw from several threads at once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from retigrade.arrays import Flags, Integers, Reals
from retigrade.icdr import GRADES
from retigrade.metrics.calibration import ReliabilityDiagram
from retigrade.metrics.classification import ThresholdRates
from retigrade.report.style import FAINT, INK, PLOT_COLOURS

Format = Literal["svg", "png"]

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "retigrade",
}
STAGES = tuple(grade.stage for grade in GRADES)


def confusion_plot(matrices: Mapping[str, Integers], *, columns: int = 3, format: Format = "svg") -> bytes:
    """Confusion matrices side by side, each cell with its count and its share of the true stage's row.

    matrices: title to counts (5, 5), rows true and columns predicted; at most `columns` in a row.
    """
    _need(matrices, "confusion matrix")
    across = min(columns, len(matrices))
    down = math.ceil(len(matrices) / across)
    with _drawing(3.6 * across, 3.5 * down) as figure:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel in panels[len(matrices) :]:
            panel.set_visible(False)
        for panel, (title, counts) in zip(panels, matrices.items(), strict=False):
            _draw_confusion(panel, title, counts)
        return _render(figure, format)


def referable_plot(
    sets: Mapping[str, tuple[Reals, Flags]], *, points: Mapping[str, ThresholdRates], format: Format = "svg"
) -> bytes:
    """Receiver-operating and precision-recall curves of a score, with operating points marked on both.

    sets: name to score (N,) and whether each photograph is positive (N,); a set of one class only is named in
    the legend and not drawn. points: name to what a threshold yields.
    """
    _need(sets, "set of scores")
    with _drawing(8.0, 3.8) as figure:
        left, right = figure.subplots(1, 2)
        for colour, (name, (score, positive)) in zip(_colours(len(sets)), sets.items(), strict=True):
            if not positive.any() or positive.all():
                for panel in (left, right):
                    panel.plot([], [], color=colour, label=f"{name}: one class only")
                continue
            fall_out, sensitivity, _ = roc_curve(positive, score)
            precision, recall, _ = precision_recall_curve(positive, score)
            area = auc(fall_out, sensitivity)
            left.plot(fall_out, sensitivity, color=colour, label=f"{name} (area {area:.3f})")
            # scikit-learn's last point, recall 0 at precision 1, is of no threshold.
            right.plot(recall[:-1], precision[:-1], color=colour, label=f"{name} ({np.mean(positive):.0%} positive)")
        for marker, (name, point) in zip(_cycled("osD^v", len(points)), points.items(), strict=True):
            style = {"marker": marker, "linestyle": "none", "color": INK, "markerfacecolor": "white", "zorder": 3}
            left.plot([1 - point.specificity], [point.sensitivity], label=name, **style)
            right.plot([point.sensitivity], [point.precision], **style)
        left.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, zorder=0)
        _unit_square(left, "1 − specificity", "sensitivity", "Receiver operating characteristic")
        _unit_square(right, "sensitivity (recall)", "precision", "Precision and recall")
        left.legend(loc="lower right")
        right.legend(loc="lower left")
        return _render(figure, format)


def reliability_plot(diagrams: Mapping[str, ReliabilityDiagram], *, format: Format = "svg") -> bytes:
    """Accuracy against confidence, with the 95 % interval of each bin; on the dashed line confidence is earned."""
    _need(diagrams, "reliability diagram")
    with _drawing(4.4, 4.2) as figure:
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, zorder=0)
        for colour, (name, diagram) in zip(_colours(len(diagrams)), diagrams.items(), strict=True):
            # A Wilson interval holds its share, but for the rounding of floats at 0 and 1.
            below = np.maximum(0.0, diagram.accuracy - diagram.low)
            above = np.maximum(0.0, diagram.high - diagram.accuracy)
            panel.errorbar(
                diagram.confidence, diagram.accuracy, yerr=(below, above), color=colour, ecolor=colour, elinewidth=0.8,
                marker="o", markersize=4, label=f"{name} ({int(diagram.count.sum()):,} photos)",
            )  # fmt: skip
        _unit_square(panel, "confidence", "accuracy", "Reliability")
        panel.legend(loc="upper left")
        return _render(figure, format)


def counts_plot(series: Mapping[str, Sequence[int]], *, format: Format = "svg") -> bytes:
    """Photographs of each stage as bars, one group of bars for each stage, such as before and after balancing.

    series: name to five counts, grade 0 to 4.
    """
    _need(series, "series of counts")
    with _drawing(6.4, 3.4) as figure:
        panel = figure.subplots()
        width = 0.8 / len(series)
        for place, (colour, (name, counts)) in enumerate(zip(_colours(len(series)), series.items(), strict=True)):
            centres = np.arange(len(STAGES)) + (place - (len(series) - 1) / 2) * width
            bars = panel.bar(centres, list(counts), width * 0.94, color=colour, label=name)
            panel.bar_label(bars, labels=[f"{n:,}" for n in counts], fontsize=7, padding=1)
        panel.set_xticks(range(len(STAGES)), STAGES)
        panel.tick_params(axis="x", length=0)
        panel.set_ylabel("photographs")
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(axis="y")
        panel.set_axisbelow(True)
        panel.margins(y=0.1)
        figure.legend(loc="outside upper center", ncols=len(series))
        return _render(figure, format)


def training_plot(
    losses: Mapping[str, Sequence[float]], scores: Mapping[str, Sequence[float]], *, format: Format = "svg"
) -> bytes:
    """Loss and score by epoch, each score's best epoch marked.

    losses, scores: name to one value for each epoch, the first epoch being 1; nan leaves a gap.
    """
    _need({**losses, **scores}, "curve")
    with _drawing(8.0, 3.2) as figure:
        left, right = figure.subplots(1, 2)
        for panel, curves, title in ((left, losses, "Loss"), (right, scores, "Validation")):
            for colour, (name, values) in zip(_colours(len(curves)), curves.items(), strict=True):
                column = np.asarray(values, dtype=np.float64)
                epochs = np.arange(1, column.size + 1)
                label = name
                if panel is right and not np.isnan(column).all():
                    best = int(np.nanargmax(column))
                    panel.plot([epochs[best]], [column[best]], "o", color=colour, markersize=5)
                    label = f"{name} (best {column[best]:.3f}, epoch {epochs[best]})"
                panel.plot(epochs, column, color=colour, label=label, marker="." if column.size < 20 else None)
            panel.set_title(title)
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.grid(axis="y")
            if curves:
                panel.legend()
        return _render(figure, format)


def curves_plot(
    curves: Mapping[str, tuple[Reals, Reals]], *, x: str, y: str, title: str, format: Format = "svg"
) -> bytes:
    """Curves of shares against another share, both 0..1; curves: name to the points' places and heights, (M,) each."""
    _need(curves, "curve")
    with _drawing(4.4, 4.2) as figure:
        panel = figure.subplots()
        for colour, (name, (places, heights)) in zip(_colours(len(curves)), curves.items(), strict=True):
            panel.plot(places, heights, color=colour, label=name, marker="o", markersize=3.5)
        _unit_square(panel, x, y, title)
        panel.legend(loc="lower left")
        return _render(figure, format)


def grid_plot(
    panels: Mapping[str, Reals], *, rows: Sequence[str], columns: Sequence[str], x: str, format: Format = "svg"
) -> bytes:
    """Tables of shares as coloured cells, side by side; panels: title to values (rows, columns), nan if undefined."""
    _need(panels, "table")
    with _drawing(1.4 + 3.2 * len(panels), 0.9 + 0.3 * len(rows)) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False).ravel()
        for panel, (title, values) in zip(axes, panels.items(), strict=True):
            edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
            panel.pcolormesh(*edges, values, cmap="RdYlGn", vmin=0.5, vmax=1, edgecolors="white", linewidth=0.6)
            for (row, column), value in np.ndenumerate(values):
                text = "–" if math.isnan(value) else f"{value:.2f}"
                colour = "white" if value < 0.6 or value > 0.93 else INK  # the map is dark at both ends
                panel.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
            panel.set(title=title, xlabel=x, ylim=(len(rows) - 0.5, -0.5))
            panel.set_xticks(range(len(columns)), columns)
            panel.set_yticks(range(len(rows)), rows if panel is axes[0] else [""] * len(rows))
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
        return _render(figure, format)


def _draw_confusion(panel: Axes, title: str, counts: Integers) -> None:
    if counts.shape != (len(STAGES), len(STAGES)):
        raise ValueError(f"{title}: need a confusion matrix {len(STAGES), len(STAGES)}, got {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(1, totals)
    edges = np.arange(len(STAGES) + 1) - 0.5
    panel.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    panel.set(aspect="equal", ylim=(edges[-1], edges[0]))
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]:,}\n{share:.0%}" if totals[row, 0] else "0\n–"
        panel.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if share > 0.55 else INK)
    panel.set_title(title)
    panel.set_xticks(range(len(STAGES)), STAGES, rotation=30, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(STAGES)), STAGES)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")


def _unit_square(panel: Axes, x: str, y: str, title: str) -> None:
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, title=title, aspect="equal")
    panel.grid()
    panel.set_axisbelow(True)


def _colours(count: int) -> list[str]:
    return _cycled(PLOT_COLOURS, count)


def _cycled(values: Sequence[str], count: int) -> list[str]:
    return [values[place % len(values)] for place in range(count)]


def _need(given: Mapping[str, object], what: str) -> None:
    if not given:
        raise ValueError(f"a plot needs at least one {what}, got none")


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches, with our settings until it is rendered."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _render(figure: Figure, format: Format) -> bytes:
    """The figure's bytes, free of dates and versions."""
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    figure.savefig(out, format=format, dpi=144, metadata=metadata)
    return out.getvalue()
