"""The report of a comparison of numbers, ordered classes or several labels: table, answer, plots, confusion."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_clf.comparison.outcome import kept_whole
from lora_clf.comparison.task_comparison import BASELINES, TaskComparison
from lora_clf.comparison.task_standing import RIVAL, Gap, figure
from lora_clf.data.cache import write_whole
from lora_clf.evaluation.drawing import empty_figure, usual
from lora_clf.reports.chapters import tuning_blocks
from lora_clf.reports.made import made_lines
from lora_clf.reports.page import Block, Grid, Heading, Notes, Paragraph, as_html, as_markdown
from lora_clf.reports.plots import Drawing, shown, write_plots
from lora_clf.reports.table import count_text, seconds_text, size_text
from lora_clf.tasks.regression import Regression

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table_of(found: TaskComparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table."""
    if not found.strategies:
        return ["strategy"], []
    standing = found.standing
    measure = found.task.primary
    further = found.task.further()  # all as shares of 1
    unit = " %" if measure.share else ""
    headings = ["strategy", f"{measure.title}{unit}", "95 % interval", "group", *(each.heading() for each in further)]
    headings += [f"better than {RIVAL} by", "trainable", "adapter", "training s", "peak memory"]
    rows = []
    for place in standing.places:
        sd = "" if place.sd is None else f" ± {_plain(place.sd, measure.share)}"
        rows.append(
            [
                place.label,
                f"{_plain(place.score, measure.share)}{sd}",
                f"{_plain(place.low, measure.share)} to {_plain(place.high, measure.share)}",
                place.group or "-",
                *(f"{place.scores[each.key]:.3f}" for each in further),
                _gap(place.to_rival, measure.share),
                count_text(place.parameters),
                size_text(place.bytes),
                seconds_text(place.seconds),
                size_text(place.peak_memory_bytes),
            ]
        )
    return headings, rows


def notes_of(found: TaskComparison) -> list[str]:
    """What has to be known to read the table."""
    lost = [f"{failure.cell} failed: {failure.message}" for failure in found.failures]
    if not found.strategies:
        return lost
    standing, measure = found.standing, found.task.primary
    seeds = ", ".join(map(str, found.seeds))
    gone = [contender.label for contender in found.plan.contenders if contender.label not in found.strategies]
    dropped = (
        [] if found.seeds == found.plan.seeds else [f"Only with the training seeds {seeds}, whole for all of them."]
    )
    dropped += [f"Without {label}: it has no seed that the others have." for label in gone]
    left_out = [f"Left out, {one['label']}: {one['reason']}." for one in found.facts.get("left_out", ())]
    return [
        *found.facts.get("data", {}).get("warnings", ()),
        "Intervals are over test rows and seeds, near copies counted as one. Those that share a letter cannot be told "
        "apart, all pairs at once; that does not show that they are equal.",
        f"The margin of {found.margin:g} point{'' if found.margin == 1 else 's'} is "
        f"{figure(standing.margin, measure.share)} here"
        + ("." if measure.share else f": a point is a hundredth of the {measure.title} of one answer for all rows."),
        f"Baselines: {BASELINES[0]} gives every text the same answer; {RIVAL} is a linear model on words and pairs, "
        "its penalty chosen on folds of the training part.",
        *left_out,
        *dropped,
        *lost,
    ]


def write_task_report(found: TaskComparison, out: Path, plot_format: str = "png") -> None:
    """Write ``report.html``, ``report.md``, ``results.json``, ``results.csv`` and the plots.

    Raises:
        TrainingError: the disk does not take them; each file is whole, the old or the new one.
    """
    headings, rows = table_of(found)
    first, *others = found.verdict_lines
    blocks: list[Block] = [Paragraph(first, answer=True), *([Paragraph(" ".join(others))] if others else [])]
    drawings: list[Drawing[TaskComparison]] = []
    if found.strategies:
        standing = found.standing
        strong = frozenset(place for place, each in enumerate(standing.places) if each.label == standing.best)
        rule = frozenset({len(found.strategies)})
        blocks.append(Grid(headings, rows, strong=strong, rule=rule))
        leading = [label for label in dict.fromkeys((standing.best, RIVAL)) if found.of(label)]
        drawings = _drawings(found, leading)
        blocks += [*shown(found, drawings, plot_format), *_confusions(found, leading)]
    blocks.append(Notes(notes_of(found)))
    blocks += tuning_blocks(found.plan, found.tunings, found.task.primary)
    blocks += [Heading("Data"), Paragraph(_data(found)), Heading("How it was made"), Notes(_made(found))]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([headings, *rows])
    results = json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False)
    top = f"Which strategy for {found.facts['data']['name']} on {found.facts['base']['name']}?"
    files = {
        "results.json": f"{results}\n",
        "results.csv": text.getvalue(),
        "report.md": as_markdown(top, blocks),
        "report.html": as_html(top, blocks),
    }
    with kept_whole(out):
        write_plots(found, drawings, out, plot_format)
        for name, content in files.items():
            write_whole(out / name, content.encode("utf-8"))


def _data(found: TaskComparison) -> str:
    data, facts = found.data, found.facts["data"]
    parts = ", ".join(f"{len(part):,} {name}" for name, part in data.parts.items())
    cut = f"{facts['folds']} folds, of which the first has" if facts["folds"] else "one split:"
    return (
        f"{facts['name']}, {cut} {parts} rows. Protocol {facts['protocol']}. Task: {found.task.name} "
        f"({data.task_reason})."
    )


def _made(found: TaskComparison) -> list[str]:
    used = {label: found.of(label)[0].settings for label in found.strategies}
    column = found.data.group_column
    groups = "near-copy groups" if column is None else f"groups of near copies and of one {column!r}"
    rule = f"Wilson's, its number of rows corrected for {groups} and seeds"
    if not found.task.primary.share:
        rule = f"Student's t with the analytic variance of {groups} crossed with seeds"
    pairs = "of differences the largest ratio of any pair in 4,000 joint draws as critical value (max-T)"
    intervals = f"intervals: {rule}; {pairs}"
    return [*made_lines(found.plan, found.facts, used), intervals]


def _confusions(found: TaskComparison, labels: Sequence[str]) -> list[Block]:
    """Of ordered classes the confusion of the best and of TF-IDF, summed over seeds; of several labels F1 of each."""
    blocks: list[Block] = []
    for label in labels:
        scores = [run.scores for run in found.of(label)]
        if "confusion_matrix" in scores[0]:
            names = scores[0]["labels"]
            counts = np.sum([each["confusion_matrix"] for each in scores], axis=0)
            rows = [[name, *map(str, line)] for name, line in zip(names, counts.tolist(), strict=True)]
            columns = ["true class", *(f"as {name}" for name in names)]
            together = f", {len(scores)} seeds together" if len(scores) > 1 else ""
            blocks += [Heading(f"Confusion of {label}{together}"), Grid(columns, rows)]
        elif "per_label" in scores[0]:
            keys = ("precision", "recall", "f1", "pr_auc", "support")
            rows = [
                [name, *(f"{np.mean([each['per_label'][name][key] for each in scores]):.3g}" for key in keys)]
                for name in scores[0]["per_label"]
            ]
            blocks += [Heading(f"Label by label: {label}"), Grid(["label", *keys], rows)]
    return blocks


def _drawings(found: TaskComparison, leading: Sequence[str]) -> list[Drawing[TaskComparison]]:
    """The scores of all; of numbers also how the leading ones fit."""
    drawings = [Drawing("score", "The score with its interval", _intervals, 130, usual)]
    for label in leading if isinstance(found.task, Regression) else ():
        title = f"{label}: predicted against true, and residuals"
        drawings.append(Drawing(f"fit-{label}", title, partial(_fit, label=label), 130, usual))
    return drawings


def _intervals(found: TaskComparison) -> Figure:
    """The primary score of each with its interval, the best on top."""
    measure = found.task.primary
    ordered = sorted(found.standing.places, key=lambda place: place.score, reverse=not measure.higher)
    figure = empty_figure(7.5, 1.2 + 0.38 * len(ordered))
    axes = figure.subplots()
    factor = 100 if measure.share else 1
    for height, place in enumerate(ordered):
        colour = "#888888" if place.label in BASELINES else "#0072b2"
        axes.plot([factor * place.low, factor * place.high], [height, height], color=colour, linewidth=2)
        axes.plot(factor * place.score, height, "o", color=colour)
    axes.set_yticks(range(len(ordered)), [place.label for place in ordered])
    better = "higher" if measure.higher else "lower"
    axes.set_xlabel(f"{measure.title}{' %' if measure.share else ''} on test rows ({better} is better), 95 % interval")
    axes.grid(axis="x", color="#dddddd")
    return figure


def _fit(found: TaskComparison, label: str) -> Figure:
    from lora_clf.evaluation.fit_plot import draw_fit

    truth = found.task.targets(found.test.labels)
    return draw_fit(truth, np.array(found.of(label)[0].values), found.task.labels[0])


def _plain(value: float, share: bool) -> str:
    return f"{100 * value:.1f}" if share else f"{value:.3f}"


def _gap(gap: Gap | None, share: bool) -> str:
    if gap is None:
        return "-"
    factor, digits = (100, 1) if share else (1, 3)
    return f"{factor * gap.mean:+.{digits}f} ({factor * gap.low:+.{digits}f} to {factor * gap.high:+.{digits}f})"
