"""The report of a comparison: ``report.html`` and ``report.md``, with results and plots beside them.

The first screen answers the question in a few sentences; the rest is the evidence. Nothing in it names a host
or a path. The errors of the strategy to take stand in it with their texts: the report is the user's own, the results
beside it hold row numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.curve import curve_csv
from lora_clf.comparison.outcome import kept_whole, rate_of
from lora_clf.comparison.standing import Standing, percent
from lora_clf.data.cache import write_whole
from lora_clf.reports import page
from lora_clf.reports.answers import choice_blocks, difference_blocks
from lora_clf.reports.chapters import alarm_blocks, curve_blocks, tuning_blocks
from lora_clf.reports.evidence import copy_blocks, mistake_blocks, plot_blocks
from lora_clf.reports.made import made_lines, used_by
from lora_clf.reports.page import Block, Grid, Heading, Notes, Paragraph
from lora_clf.reports.plots import ACCURACY, DRAWINGS, shown, write_plots
from lora_clf.reports.table import (
    NONE,
    as_csv,
    as_json,
    cells_of,
    columns_of,
    count_text,
    flops_text,
    footnotes,
    seconds_text,
)

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison

LEVELS = (("exact", "exact copy"), ("0.7", "alike >= 0.7"), ("0.5", "alike >= 0.5"))


def write_report(comparison: Comparison, out: Path, plot_format: str = "png") -> None:
    """Write report, ``results.json``, ``results.csv``, perhaps ``curve.csv``, and plots into ``out``.

    Raises:
        TrainingError: the disk does not take them; each file is whole, the old or the new one.
    """
    title, blocks = document(comparison, plot_format)
    texts = {
        "results.json": as_json(comparison),
        "results.csv": as_csv(comparison),
        "report.md": page.as_markdown(title, blocks),
        "report.html": page.as_html(title, blocks),
        **({} if comparison.curve is None else {"curve.csv": curve_csv(comparison)}),
    }
    with kept_whole(out):
        write_plots(comparison, DRAWINGS, out, plot_format)
        for name, text in texts.items():
            write_whole(out / name, text.encode("utf-8"))


def document(comparison: Comparison, plot_format: str = "png") -> tuple[str, list[Block]]:
    """The report's title and blocks."""
    facts = comparison.facts
    title = f"Which strategy for {facts['data']['name']} on {facts['base']['name']}?"
    rows = comparison.standings
    first_baseline = next((place for place, row in enumerate(rows) if row.kind == "baseline"), len(rows))
    columns = columns_of(comparison)
    blocks: list[Block] = [
        Paragraph(comparison.verdict_lines[0], answer=True),
        Paragraph(" ".join(comparison.verdict_lines[1:])),
        Grid(
            [column.heading for column in columns],
            cells_of(comparison),
            [column.left for column in columns],
            frozenset(place for place, row in enumerate(rows) if row.best),
            frozenset({first_baseline} if first_baseline else ()),
        ),
        Notes(footnotes(comparison)),
    ]
    blocks += shown(comparison, ACCURACY, plot_format)
    blocks += choice_blocks(comparison)
    blocks += difference_blocks(comparison, rows, comparison.rival)
    blocks += curve_blocks(comparison, plot_format)
    blocks += _classes(comparison, rows)
    blocks += alarm_blocks(comparison)
    blocks += plot_blocks(comparison, plot_format)
    blocks += mistake_blocks(comparison)
    blocks += _further(comparison, rows)
    blocks += _costs(rows)
    blocks += tuning_blocks(comparison.plan, comparison.tunings, next(iter(comparison.datasets.values())).task.primary)
    blocks += _data(facts["data"])
    blocks += copy_blocks(comparison)
    blocks += _provenance(comparison)
    return title, blocks


def _classes(comparison: Comparison, rows: Sequence[Standing]) -> list[Block]:
    table: list[list[str]] = []
    rules: set[int] = set()
    for row in rows:
        rules.add(len(table))
        for place, (name, scores) in enumerate(row.scores["per_class"].items()):
            taken = row.scores["confusion_matrix"][place]
            mistakes = ", ".join(
                f"{count / row.seeds:.1f}".removesuffix(".0") + f" as {comparison.labels[other]}"
                for other, count in enumerate(taken)
                if count and other != place
            )
            figures = [f"{scores[key] * 100:.1f}" for key in ("precision", "recall", "f1", "pr_auc")]
            label = row.label if place == 0 else ""
            table.append([label, name, *figures, f"{scores['support']:.0f}", mistakes or "none"])
    seeds = max((row.seeds for row in rows), default=1)
    return [
        Heading("Class by class"),
        Paragraph("Test rows; means over seeds, of mistakes too." if seeds > 1 else "Test rows."),
        Grid(
            ["strategy", "class", "precision %", "recall %", "F1 %", "PR-AUC %", "rows", "mistaken for another"],
            table,
            [True, True, False, False, False, False, False, True],
            rule=frozenset(rules - {0}),
        ),
    ]


FURTHER = {
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "macro_pr_auc": "PR-AUC, mean of classes",
    "loss": "loss, nats",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}


def _further(comparison: Comparison, rows: Sequence[Standing]) -> list[Block]:
    """The scores of the test part that are in no other table."""
    shown = {key: words for key, words in FURTHER.items() if all(key in row.scores for row in rows)}
    table = [
        [
            row.label,
            NONE if row.validation_accuracy is None else f"{row.validation_accuracy * 100:.1f}",
            *(f"{row.scores[key]:.3f}" for key in shown),
            _scaled(comparison, row.label),
        ]
        for row in rows
        if row.kind == "strategy"
    ]
    headings = ["strategy", "validation accuracy %", *shown.values(), "after scaling"]
    return [
        Heading("Further scores"),
        Paragraph("After scaling: the calibration error with the temperature that was found on validation rows."),
        Grid(headings, table),
    ]


def _costs(rows: Sequence[Standing]) -> list[Block]:
    """What training and answering take."""
    ran = [row for row in rows if row.kind == "strategy"]
    device = any(row.device_memory_bytes is not None for row in ran)
    table = [
        [
            row.label,
            count_text(row.tensor_bytes),
            flops_text(row.flops),
            NONE if row.texts_per_second is None else f"{row.texts_per_second:,.0f}",
            seconds_text(row.seconds),
            seconds_text(row.cold_seconds),
            *(
                _megabytes(count)
                for count in (row.training_memory_bytes, row.device_memory_bytes)[: 2 if device else 1]
            ),
        ]
        for row in ran
    ]
    headings = ["strategy", "tensor file, bytes", "training FLOPs, about", "texts labelled a second", "own seconds"]
    headings += ["cold seconds", "memory above base, MB", *(["accelerator memory, MB"] if device else [])]
    return [
        Heading("What it costs"),
        Paragraph(
            "Cold seconds are what the strategy costs alone: its own and the frozen part of the base, computed once. "
            "Memory above base is the peak while training, over what the loaded base and data hold. FLOPs are counted, "
            "not measured: what is frozen once, what trains in every epoch, padding and heads left out."
        ),
        Grid(headings, table),
    ]


def _megabytes(count: int | None) -> str:
    return NONE if count is None else f"{count / 1e6:,.0f}"


def _scaled(comparison: Comparison, label: str) -> str:
    """The calibration error after temperature scaling, mean over the runs that have a temperature."""
    found = [
        cell.scores["test"].get("calibrated", {}).get("calibration_error") for cell in comparison.outcomes_of(label)
    ]
    known = [value for value in found if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else NONE


def _data(facts: dict[str, Any]) -> list[Block]:
    splits = facts["splits"]
    first = splits[0]
    parts = list(first["rows"])
    cut = f"{facts['folds']} folds" if facts["folds"] else "one split" if len(splits) == 1 else f"{len(splits)} splits"
    sizes = Grid(
        ["class", *parts],
        [
            *([label, *(f"{first['per_class'][part][label]:,}" for part in parts)] for label in facts["labels"]),
            ["all", *(f"{first['rows'][part]:,}" for part in parts)],
        ],
        rule=frozenset({len(facts["labels"])}),
    )
    leaks = Grid(
        ["test rows with a copy in training", "rows", *(name for _, name in LEVELS)],
        [
            [
                entry["class"],
                f"{entry['rows']:,}",
                *(_of(entry[level], entry["rows"]) for level, _ in LEVELS),
            ]
            for entry in facts["leaks"]
        ],
    )
    licence = f", licence {facts['licence']}" if facts["licence"] else ""
    blocks: list[Block] = [
        Heading("Data"),
        Paragraph(
            f"{facts['source']}{licence}. Protocol {facts['protocol']}, {cut}"
            f"{', the first of them shown' if len(splits) > 1 else ''}."
        ),
        sizes,
        Paragraph(
            "A test row that has a copy in training can be answered from memory; alike means Jaccard similarity "
            "of character 5-grams."
        ),
        leaks,
    ]
    if facts["warnings"]:
        blocks.append(Notes(facts["warnings"]))
    return blocks


def _of(count: int, total: int) -> str:
    return f"{count} ({percent(count / total)})" if total else "0"


def _provenance(comparison: Comparison) -> list[Block]:
    used = {}
    for contender in comparison.plan.contenders:
        runs = comparison.outcomes_of(contender.label)
        each = [outcome.settings | rate_of([outcome.training]) for outcome in runs]
        used[contender.label] = used_by(each) or contender.settings
    lines = [*made_lines(comparison.plan, comparison.facts, used), _intervals(comparison)]
    return [Heading("How it was made"), Notes(lines)]


def _intervals(comparison: Comparison) -> str:
    """By what rule the intervals of this comparison are made: `standing` has the rules."""
    several = any(len(pool.seeds) > 1 for pool in comparison.pools.values())
    column = comparison.data.group_column
    groups = "near-copy groups" if column is None else f"groups of near copies and of one {column!r}"
    factors = f"{groups} and seeds" if several else groups
    rates = f"of a rate Wilson's, its number of rows corrected for {factors}"
    if several and comparison.plan.resplit:
        rates = f"of a rate the wider of Wilson's over {groups}, all splits together, and Student's t over seeds"
    few = ", widened as seeds are few" if several else ""
    return (
        f"intervals: {rates}; of differences the variance of {factors}, with the largest ratio of any pair in 4,000 "
        f"joint draws as critical value (max-T){few}; of the loss against the best the same draws, each strategy in "
        "turn in the place of the best (Edwards and Hsu 1983)"
    )
