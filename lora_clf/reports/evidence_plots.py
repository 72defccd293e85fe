"""The plots behind the answer: confusion matrices, reliability, precision against recall, and how training went.

Shapes: C classes, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.evaluation.drawing import COLOURS, DASHES, FAINT, MARKERS, empty_figure, plain
from lora_clf.metrics.probability import reliability
from lora_clf.metrics.thresholds import cuts

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lora_clf.comparison.comparison import Comparison

BINS = 10
NUMBERED = 8  # classes up to which the cells of a confusion matrix are numbered
MOST = 9  # strategies in one plot; with more it shows nothing


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of the strategy with that number in the plan."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _strategies(comparison: Comparison) -> list[str]:
    """Those with a row; the last ``MOST`` of the table are too many for one plot."""
    return [row.label for row in comparison.standings if row.kind == "strategy"][:MOST]


def _shown(comparison: Comparison) -> list[str]:
    """The strategies and the strongest baseline."""
    return [*_strategies(comparison), *([comparison.rival] if comparison.rival else [])]


def _pooled(comparison: Comparison, label: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (N,) and probabilities (N, C) of all seeds together."""
    parts = comparison.pools[label].predictions
    return np.concatenate([part.labels for part in parts]), np.concatenate([part.probabilities for part in parts])


def confusions(comparison: Comparison) -> Figure | None:
    """A matrix for each strategy and the strongest baseline: shares of each true class."""
    labels, names = _shown(comparison), comparison.labels
    if not labels:
        return None
    across = min(3, len(labels))
    down = math.ceil(len(labels) / across)
    size = 2.6 if len(names) <= NUMBERED else 3.2
    figure = empty_figure(across * size + 0.8, down * (size + 0.5))
    matrices = {row.label: np.array(row.scores["confusion_matrix"], dtype=float) for row in comparison.standings}
    panels = np.atleast_1d(figure.subplots(down, across)).reshape(-1)
    for axes, label in zip(panels, labels, strict=False):
        counts = matrices[label]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(label, fontsize=10.5, loc="left")
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 4 else 60, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("predicted", fontsize=8)
        axes.set_ylabel("true", fontsize=8)
        if len(names) <= NUMBERED:
            for (row, column), share in np.ndenumerate(shares):
                ink = "white" if share > 0.55 else "#222222"
                axes.text(column, row, f"{share * 100:.1f}", ha="center", va="center", fontsize=8, color=ink)
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    return figure


def reliabilities(comparison: Comparison) -> Figure | None:
    """How often each strategy is right at each confidence; the diagonal is what it promises."""
    labels = _strategies(comparison)
    if not labels:
        return None
    figure = empty_figure(6.2, 5.2)
    axes = figure.add_subplot()
    plain(axes)
    low = 1 / len(comparison.labels)
    axes.plot([low * 100, 100], [low * 100, 100], color=FAINT, linewidth=1.2, linestyle=DASHES[1], label="as promised")
    for number, label in enumerate(labels):
        truth, table = _pooled(comparison, label)
        bins = reliability(truth, table, BINS)
        there = bins.counts > 0
        axes.plot(bins.confidence[there] * 100, bins.accuracy[there] * 100, linewidth=1.3, label=label, **_look(number))
    axes.set_xlabel("confidence, % (means of bins of equal width)")
    axes.set_ylabel("right, %")
    axes.legend(frameon=False, fontsize=9)
    return figure


def precision_recalls(comparison: Comparison) -> Figure | None:
    """Precision against recall of the class that is looked for; without one, of every class, best strategy."""
    labels, names = _shown(comparison), comparison.labels
    if not labels:
        return None
    curves: list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]] = []
    if comparison.positive_label is not None:
        column = names.index(comparison.positive_label)
        for label in labels:
            truth, table = _pooled(comparison, label)
            curves.append((label, truth == column, table[:, column]))
        title = f"of {comparison.positive_label}, all seeds together"
    else:
        best = next((row.label for row in comparison.standings if row.recommended or row.best), labels[0])
        truth, table = _pooled(comparison, best)
        curves = [(name, truth == place, table[:, place]) for place, name in enumerate(names[:MOST])]
        title = f"of each class by {best}, all seeds together"
    figure = empty_figure(6.2, 5.2)
    axes = figure.add_subplot()
    plain(axes)
    for number, (label, hits, scores) in enumerate(curves):
        if hits.any():
            recall, precision = precision_recall(hits, scores)
            line = ("-", *DASHES)[number % (len(DASHES) + 1)]  # lines need no colour to be told apart
            recall, precision = np.append(0.0, recall), np.append(precision[0], precision)
            axes.step(recall * 100, precision * 100, where="pre", linewidth=1.4, linestyle=line,
                      color=COLOURS[number % len(COLOURS)], label=label)  # fmt: skip
    axes.set_xlabel(f"recall, % ({title})")
    axes.set_ylabel("precision, %")
    axes.set_xlim(0, 101)
    axes.set_ylim(top=101)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    return figure


def precision_recall(hits: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Recall and precision at every threshold, from the highest score down; equal scores share a threshold."""
    found = cuts(hits, scores)
    return found.hits / found.positives, found.hits / found.flagged


def trainings(comparison: Comparison) -> Figure | None:
    """Loss and accuracy of each epoch, mean over runs; below the epochs stand the examples that were seen."""
    histories = {}
    for number, label in enumerate(_strategies(comparison)):
        runs = [cell.history for cell in comparison.outcomes_of(label) if len(cell.history) > 1]
        if runs:
            histories[label] = number, runs
    if not histories:
        return None
    figure = empty_figure(9.4, 4.6)
    loss, accuracy = figure.subplots(1, 2)
    seen: list[float] = []
    for label, (number, runs) in histories.items():
        length = min(len(run) for run in runs)
        epochs = np.arange(1, length + 1)
        seen = [float(entry["examples"]) for entry in runs[0]] if len(runs[0]) > len(seen) else seen
        learnt = _means(runs, length, lambda entry: entry["train_loss"])
        held = _means(runs, length, lambda entry: entry["validation"]["loss"])
        right = _means(runs, length, lambda entry: entry["validation"]["accuracy"])
        look = _look(number)
        loss.plot(epochs, learnt, linestyle=DASHES[0], linewidth=1.2, markersize=4, **look)
        loss.plot(epochs, held, linewidth=1.5, markersize=5, label=label, **look)
        accuracy.plot(epochs, np.array(right) * 100, linewidth=1.5, markersize=5, label=label, **look)
    for axes, words in ((loss, "loss, nats (dashed: training)"), (accuracy, "validation accuracy, %")):
        plain(axes)
        axes.set_ylabel(words)
        axes.set_xlabel("epochs")
        axes.set_xticks(range(1, len(seen) + 1))
        above = axes.secondary_xaxis("top")
        above.set_xticks(range(1, len(seen) + 1), [f"{count:,.0f}" for count in seen], fontsize=8)
        above.set_xlabel("examples seen", fontsize=9)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
    return figure


def _means(
    runs: Sequence[Sequence[dict[str, Any]]], length: int, value: Callable[[dict[str, Any]], float]
) -> list[float]:
    return [float(np.mean([value(run[place]) for run in runs])) for place in range(length)]
