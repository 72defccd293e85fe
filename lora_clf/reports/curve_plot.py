"""The learning curves as a plot: accuracy and macro-F1 against examples of each class, with intervals over draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_clf.evaluation.drawing import COLOURS, DASHES, FAINT, MARKERS, empty_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lora_clf.comparison.comparison import Comparison
    from lora_clf.comparison.curve import Level, Point


def curves(comparison: Comparison) -> Figure | None:
    """A panel for each score; None where there are no points."""
    if not comparison.curve_points:
        return None
    figure = empty_figure(9.4, 4.9)
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("accuracy", "macro_f1"), strict=True):
        _panel(comparison, axes, name)
    panels[0].set_ylabel("test accuracy, %")
    panels[1].set_ylabel("test macro-F1, %")
    data, base = comparison.facts["data"]["name"], comparison.facts["base"]["name"]
    draws = max(point.draws for point in comparison.curve_points)
    panels[0].set_title(
        f"{data} on {base}, up to {draws} draws a size\nbars: 95 % interval over draws",
        loc="left",
        fontsize=9,
        color="#555555",
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    return figure


def places_of(comparison: Comparison) -> dict[int | None, float]:
    """Where each size stands on the axis: at k; the whole training part at its rows a class, beyond the largest k."""
    sizes = sorted({point.k for point in comparison.curve_points if point.k is not None})
    places: dict[int | None, float] = {k: float(k) for k in sizes}
    if any(point.k is None for point in comparison.curve_points):
        rows = comparison.facts["data"]["splits"][0]["rows"]
        whole = (rows["train"] + rows["validation"]) / len(comparison.labels)
        places[None] = max(whole, 1.6 * max(places.values(), default=1.0))
    return places


def _panel(comparison: Comparison, axes: Axes, name: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    places = places_of(comparison)
    axes.set_xscale("log")
    axes.set_xlabel("examples of each class (log scale)")
    axes.xaxis.set_major_locator(FixedLocator(list(places.values())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(["all" if k is None else str(k) for k in places])
    plain(axes, "y", "#e4e4e4")
    lines: dict[str, list[Point]] = {}
    for point in comparison.curve_points:
        lines.setdefault(point.label, []).append(point)
    strategies = [label for label, points in lines.items() if points[0].kind == "strategy"]
    baselines = [label for label in lines if label not in strategies]
    for number, (label, points) in enumerate(lines.items()):
        if label in strategies:
            style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        else:
            order = baselines.index(label)
            style = {"color": FAINT, "linestyle": DASHES[order % len(DASHES)], "marker": MARKERS[-1 - order]}
        # Beside each other, so that the bars of one size can be told apart.
        shift = 1.035 ** (number - (len(lines) - 1) / 2)
        x = [places[point.k] * shift for point in points]
        levels: list[Level] = [getattr(point, name) for point in points]
        y = [level.mean * 100 for level in levels]
        low = [100 * (level.mean - (level.mean if level.low is None else level.low)) for level in levels]
        high = [100 * ((level.mean if level.high is None else level.high) - level.mean) for level in levels]
        axes.errorbar(x, y, [low, high], label=label, linewidth=1.5, markersize=5.5, elinewidth=1.1, capsize=2, **style)
    axes.set_ylim(*_height(comparison, name))


def _height(comparison: Comparison, name: str) -> tuple[float, float]:
    """The vertical range of everyone but the majority class, which may lie far below and would squeeze the others."""
    points = [point for point in comparison.curve_points if point.label != "majority"] or comparison.curve_points
    levels: list[Level] = [getattr(point, name) for point in points]
    low = min(level.mean if level.low is None else level.low for level in levels) * 100
    high = max(level.mean if level.high is None else level.high for level in levels) * 100
    margin = 0.05 * max(high - low, 1.0)
    return low - margin, high + margin
