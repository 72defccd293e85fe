"""Two plots of a comparison: accuracy against trainable parameters, and against seconds.

Each contender has a marker of its own and its name beside it as well, so that the plots survive a grey printer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lora_clf.evaluation.drawing import COLOURS, DASHES, FAINT, MARKERS, empty_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    from lora_clf.comparison.comparison import Comparison
    from lora_clf.comparison.standing import Standing

LEADER = 16  # points; a name farther up or down from its point gets a line to it


@dataclass(frozen=True)
class Axis:
    """What stands on the horizontal axis."""

    name: str
    title: str
    label: str
    value: Callable[[Standing], float | None]


AXES = (
    Axis(
        "accuracy-parameters",
        "Accuracy against trainable parameters",
        "trainable parameters (log scale)",
        lambda row: row.trainable_parameters,
    ),
    Axis(
        "accuracy-seconds",
        "Accuracy against training time",
        "seconds of training, mean of runs (log scale)",
        lambda row: row.cold_seconds,
    ),
)


def draw(comparison: Comparison, axis: Axis) -> Figure | None:
    """The figure of one plot; None where no strategy has a place on the axis."""
    from matplotlib.ticker import FuncFormatter

    rows = [row for row in comparison.standings if row.kind == "strategy" and axis.value(row)]
    if not rows:
        return None
    figure = empty_figure(7.6, 4.9)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    values = [float(axis.value(row) or 0) for row in rows]
    axes.set_xlim(min(values) / 2.2, max(values) * 2.6)
    baselines = [row for row in comparison.standings if row.kind == "baseline"]
    low, high = _height(rows, baselines)
    axes.set_ylim(low, high)
    axes.set_xlabel(axis.label)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(axis.title, loc="left", fontsize=13, fontweight="bold", pad=36)
    axes.text(0, 1.02, _subtitle(comparison, rows), transform=axes.transAxes, fontsize=9, color="#555555")
    plain(axes, "y", "#e4e4e4")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    if max(values) / min(values) < 30:  # less than two decades: one labelled tick would say little
        from matplotlib.ticker import LogLocator

        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    figure.draw_without_rendering()  # the places in pixels are known from here on

    taken = _baseline_lines(axes, baselines, low)
    places = _set_apart(axes, values, [row.accuracy.mean * 100 for row in rows])
    taken += _frontier(axes, rows, values, places)
    points = []
    for number, (row, (x, y)) in enumerate(zip(rows, places, strict=True)):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot([x, x], [row.accuracy.low * 100, row.accuracy.high * 100], color=colour, linewidth=1.1, alpha=0.75)
        if row.accuracy.sd:
            reach = row.accuracy.sd * 100
            axes.plot([x, x], [y - reach, y + reach], color=colour, linewidth=4.5, alpha=0.45, solid_capstyle="butt")
        axes.plot(x, y, marker, color=colour, markersize=9.5, markeredgecolor="white", markeredgewidth=1, zorder=5)
        points.append((x, y, row.accuracy.low * 100, row.accuracy.high * 100))
    _name_points(figure, axes, [row.label for row in rows], points, taken)
    return figure


def _height(rows: Sequence[Standing], baselines: Sequence[Standing]) -> tuple[float, float]:
    """The vertical range: all intervals, and the baselines that do not squeeze them."""
    low = min(row.accuracy.low for row in rows) * 100
    high = max(row.accuracy.high for row in rows) * 100
    reach = max(high - low, 1.0)
    for row in baselines:
        if low - 0.6 * reach <= row.accuracy.mean * 100 <= high + 0.6 * reach:
            low, high = min(low, row.accuracy.mean * 100), max(high, row.accuracy.mean * 100)
    reach = max(high - low, 1.0)
    return low - 0.1 * reach, high + 0.12 * reach


def _subtitle(comparison: Comparison, rows: Sequence[Standing]) -> str:
    data, base = comparison.facts["data"]["name"], comparison.facts["base"]["name"]
    seeds = max(row.seeds for row in rows)
    runs = f"{seeds} seeds" if seeds > 1 else "1 seed"
    if comparison.plan.data.folds:
        runs += f", {comparison.plan.data.folds} folds"
    bar = "thin whisker: 95 % interval"
    if any(row.accuracy.sd for row in rows):
        bar += f", thick: ± sd between {'seeds' if seeds > 1 else 'folds'}"
    return f"{data} on {base}, {runs}\n{bar}; grey steps: Pareto frontier"


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _baseline_lines(axes: Axes, baselines: Sequence[Standing], low: float) -> list[Any]:
    """A dashed line for each baseline, named in the margin; returns the boxes (pixels) names must avoid."""
    from matplotlib.transforms import Bbox

    boxes = []
    outside = []
    frame = axes.get_window_extent()
    last = math.inf
    for number, row in enumerate(sorted(baselines, key=lambda row: -row.accuracy.mean)):
        value = row.accuracy.mean * 100
        if not low <= value <= axes.get_ylim()[1]:
            outside.append(f"{row.label} {value:.1f} %")
            continue
        axes.axhline(value, color="#555555", linewidth=1.3, linestyle=DASHES[number % len(DASHES)], zorder=1)
        middle = axes.transData.transform((axes.get_xlim()[0], value))[1]
        boxes.append(Bbox([[frame.x0, middle - 2], [frame.x1, middle + 2]]))
        place = min(middle, last - 30 * axes.figure.dpi / 72)  # two lines of text below the one above
        last = place
        axes.annotate(
            f"{row.label}\n{value:.1f} %",
            (1, (place - frame.y0) / frame.height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=9,
            color="#444444",
        )
    if outside:
        text = axes.annotate(
            f"off the scale: {', '.join(outside)}",
            (1, 0),
            xycoords="axes fraction",
            xytext=(-2, 4),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color="#444444",
        )
        boxes.append(_box(text))
    return boxes


def _box(text: Annotation) -> Any:
    return text.get_window_extent()


def _set_apart(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """The places of the points; those within a marker's width of each other sideways are moved apart."""
    pixels = axes.transData.transform(list(zip(xs, ys, strict=True)))
    moved = pixels.copy()
    gap = 13 * axes.figure.dpi / 72
    order = sorted(range(len(xs)), key=lambda place: pixels[place][0])
    group: list[int] = []
    for place in [*order, None]:
        if place is not None and group and pixels[place][0] - pixels[group[-1]][0] < gap * 0.8:
            group.append(place)
            continue
        centre = sum(pixels[member][0] for member in group) / max(1, len(group))
        for number, member in enumerate(group):
            if len(group) > 1:
                moved[member][0] = centre + gap * (number - (len(group) - 1) / 2)
        group = [] if place is None else [place]
    back = axes.transData.inverted().transform(moved)
    return [(float(x), float(y)) for x, y in back]


def _frontier(
    axes: Axes, rows: Sequence[Standing], values: Sequence[float], places: Sequence[tuple[float, float]]
) -> list[Any]:
    """The step line through the strategies that no other beats at the same cost or less; boxes to avoid."""
    from matplotlib.transforms import Bbox

    best = -1.0
    steps: list[tuple[float, float]] = []
    for place in sorted(range(len(rows)), key=lambda place: (values[place], -rows[place].accuracy.mean)):
        if rows[place].accuracy.mean > best:
            best = rows[place].accuracy.mean
            steps.append(places[place])
    corners = [steps[0]]
    for x, y in steps[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((axes.get_xlim()[1], corners[-1][1]))
    xs, ys = zip(*corners, strict=True)
    axes.plot(xs, ys, color="#c4c4c4", linewidth=2.2, zorder=1.5, solid_joinstyle="round")
    pixels = axes.transData.transform(corners)
    return [
        Bbox([[min(x0, x1) - 2, min(y0, y1) - 2], [max(x0, x1) + 2, max(y0, y1) + 2]])
        for (x0, y0), (x1, y1) in pairwise(pixels)
    ]


def _name_points(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float, float, float]],
    taken: Sequence[Any],
) -> None:
    """Write each name beside its point where it covers no point, whisker or other name."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    scale = figure.dpi / 72
    boxes = list(taken)
    for x, y, low, high in points:
        (px, py), (_, bottom), (_, top) = axes.transData.transform([(x, y), (x, low), (x, high)])
        boxes.append(Bbox([[px - 6 * scale, py - 6 * scale], [px + 6 * scale, py + 6 * scale]]))
        boxes.append(Bbox([[px - 2.5 * scale, bottom], [px + 2.5 * scale, top]]))
    centres = axes.transData.transform([(x, y) for x, y, *_ in points])
    frame = axes.get_window_extent()
    candidates = [
        (side * across, up, "left" if side > 0 else "right")
        for distance in (0, 9, 14, 20, 30, 45, 60, 80)
        for up in ((0,) if distance == 0 else (distance, -distance))
        for across in (10, 16)
        for side in (1, -1)
    ]
    order = sorted(range(len(points)), key=lambda place: -points[place][1])
    for place in order:
        x, y, *_ = points[place]
        rest = [other for other in order if other != place]
        chosen = None
        least = float("inf")
        for across, up, align in candidates:
            text = axes.annotate(
                names[place],
                (x, y),
                xytext=(across, up),
                textcoords="offset points",
                ha=align,
                va="center",
                fontsize=10.5,
                zorder=6,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
            box = text.get_window_extent().padded(1.5 * scale)
            covered = sum(_overlap(box, other) for other in boxes) + _outside(box, frame) * 4
            # A little dearer with the distance, so that a near place with a touch of overlap can win.
            cost = covered + abs(up) * scale * 2
            if abs(up) <= LEADER:  # no line leads to the point, so it must be the nearest
                own, *others = (_distance(box, centres[other]) for other in [place, *rest])
                cost += 1e4 * any(other < own * 1.5 for other in others)
            if cost < least:
                if chosen is not None:
                    chosen.remove()
                chosen, least = text, cost
            else:
                text.remove()
        assert chosen is not None
        boxes.append(chosen.get_window_extent())
        aside, height = chosen.get_position()
        if abs(height) > LEADER:
            axes.annotate(
                "",
                (x, y),
                xytext=(aside * 0.9, height),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkB": 6, "shrinkA": 0},
                zorder=2,
            )


def _overlap(one: Any, other: Any) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(width * height) if width > 0 and height > 0 else 0.0


def _distance(box: Any, point: Any) -> float:
    """Pixels from ``point`` to the nearest place of ``box``."""
    across = max(box.x0 - point[0], 0.0, point[0] - box.x1)
    up = max(box.y0 - point[1], 0.0, point[1] - box.y1)
    return math.hypot(across, up)


def _outside(box: Any, frame: Any) -> float:
    return float(box.width * box.height) - _overlap(box, frame)
