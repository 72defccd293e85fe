"""What a report shows behind its answer: the scores without copies, the plots, and the errors with their texts.

The texts stand in the user's own report only; ``results.json`` and ``results.csv`` hold row numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.standing import Score, score_of
from lora_clf.reports.page import Block, Grid, Heading, Paragraph
from lora_clf.reports.plots import EVIDENCE, shown
from lora_clf.reports.table import interval_text, score_text

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison

LEVELS = {"exact": "without an exact copy", "0.7": "without a near copy (alike >= 0.7)"}
ERRORS = 20
LONGEST = 200  # characters of a text in the report


@dataclass(frozen=True)
class Mistake:
    """A test row that a strategy got wrong, by the mean over its runs."""

    row: int
    text: str
    true: str
    said: str
    probability: float
    wrong: int
    runs: int


def without_copies(comparison: Comparison) -> dict[str, dict[str, Score]]:
    """Accuracy on the test rows that have no copy in training, by label and level; empty where no row has one."""
    copied: dict[str, set[int]] = {level: set() for level in LEVELS}
    for data in comparison.datasets.values():
        found = data.leaks().copies["test"]
        for level, leaking in copied.items():
            leaking.update(row for row, leaked in zip(data.test.rows, found[level], strict=True) if leaked)
    if not any(copied.values()):
        return {}
    table: dict[str, dict[str, Score]] = {}
    for label, pool in comparison.pools.items():
        values = [part.correct.astype(np.float64) for part in pool.predictions]
        rows = [part.rows for part in pool.predictions]
        table[label] = {
            level: score_of(comparison, values, rows, [~np.isin(row, sorted(leaked)) for row in rows])
            for level, leaked in copied.items()
        }
    return table


def copy_blocks(comparison: Comparison) -> list[Block]:
    """Both scores: all test rows, and those without a copy in training; nothing where none has one."""
    found = without_copies(comparison)
    if not found:
        return []
    whole = {row.label: row.accuracy for row in comparison.standings}
    table = [
        [
            label,
            score_text(whole[label]),
            *(cell for level in LEVELS for cell in (score_text(scores[level]), interval_text(scores[level]))),
        ]
        for label, scores in found.items()
    ]
    counts = next(iter(found.values()))
    headings = ["strategy", f"all {next(iter(whole.values())).n:,} rows, %"]
    for level, words in LEVELS.items():
        headings += [f"{counts[level].n:,} {words}, %", "95 % interval"]
    return [
        Heading("Without copies"),
        Paragraph(
            "Accuracy on all test rows, and on those that have no copy in training: what was seen there can be "
            "answered from memory. The rows that are left are not the same kind of texts, so the difference is no "
            "exact price of the leak."
        ),
        Grid(headings, table),
    ]


def plot_blocks(comparison: Comparison, plot_format: str) -> list[Block]:
    """Confusion matrices, reliability, precision against recall, training."""
    return [block for plot in shown(comparison, EVIDENCE, plot_format) for block in (Heading(plot.title), plot)]


def mistakes_of(comparison: Comparison, label: str) -> list[Mistake]:
    """The test rows that most runs of one contender got wrong, the surest first."""
    texts: dict[int, str] = {}
    for data in comparison.datasets.values():
        texts.update(zip(data.test.rows, data.test.texts, strict=True))
    sums: dict[int, Any] = {}
    truth: dict[int, int] = {}
    wrong: dict[int, list[bool]] = {}
    for part in comparison.pools[label].predictions:
        for row, true, probabilities, right in zip(
            part.rows.tolist(), part.labels.tolist(), part.probabilities, part.correct, strict=True
        ):
            sums[row] = sums.get(row, 0.0) + probabilities
            truth[row] = true
            wrong.setdefault(row, []).append(not right)
    found = []
    for row, misses in wrong.items():
        if 2 * sum(misses) > len(misses):
            mean = sums[row] / len(misses)
            said = int(np.where(np.arange(len(mean)) == truth[row], -1.0, mean).argmax())
            names = comparison.labels[truth[row]], comparison.labels[said]
            found.append(Mistake(row, texts[row], *names, float(mean[said]), sum(misses), len(misses)))
    return sorted(found, key=lambda one: (-one.probability, one.row))


def mistake_blocks(comparison: Comparison) -> list[Block]:
    """The surest errors of the strategy to take (or of the best), with their texts."""
    rows = [row for row in comparison.standings if row.kind == "strategy"]
    shown = next((row.label for row in rows if row.recommended), next((row.label for row in rows if row.best), None))
    if shown is None or not (found := mistakes_of(comparison, shown)):
        return []
    table = [
        [
            str(one.row),
            one.true,
            one.said,
            f"{one.probability * 100:.0f}",
            f"{one.wrong} of {one.runs}",
            one.text if len(one.text) <= LONGEST else f"{one.text[:LONGEST]} ...",
        ]
        for one in found[:ERRORS]
    ]
    several = f"the {ERRORS} surest of {len(found):,}" if len(found) > ERRORS else f"{len(found)} of them"
    return [
        Heading("What it gets wrong"),
        Paragraph(
            f"Test rows that most runs of {shown} got wrong, {several}. These are your texts: they stand in this "
            "report alone, not in results.json or results.csv."
        ),
        Grid(["row", "true", "said", "sure %", "wrong runs", "text"], table, [False, True, True, False, False, True]),
    ]
