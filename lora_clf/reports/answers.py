"""What a report says of its answer: the bounds behind the recommendation, and what test rows can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_clf.comparison.standing import Score, Standing, percent
from lora_clf.reports.page import Block, Grid, Heading, Paragraph
from lora_clf.reports.table import NONE, count_text, seconds_text

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison


def _points(score: Score | None) -> str:
    if score is None:
        return NONE
    return f"{score.mean * 100:+.1f} ({score.low * 100:+.1f} to {score.high * 100:+.1f})"


def choice_blocks(comparison: Comparison) -> list[Block]:
    """The evidence behind the recommendation."""
    found = comparison.recommendation
    if found is None:
        return []
    table = [
        [
            one.label,
            count_text(one.trainable_parameters),
            seconds_text(one.cold_seconds),
            f"{one.accuracy * 100:.1f}",
            f"{one.loss * 100:.1f}",
            f"{one.bound * 100:.1f}",
            "yes" if one.within else "not shown",
            NONE if one.rows_needed is None else f"{one.rows_needed * found.labelled / found.rows:,.0f}",
        ]
        for one in found.candidates
    ]
    headings = ["strategy", "trainable", "training s", "validation accuracy %", "below the best, points", "at most"]
    headings += [f"within {found.margin:g}", "labelled rows that would show it, about"]
    chosen = frozenset(place for place, one in enumerate(found.candidates) if one.label == found.label)
    return [
        Heading("Which one to take"),
        Paragraph(
            f"From the cheapest to the dearest, by {found.rows:,} validation rows and {found.seeds} "
            f"seed{'s' if found.seeds > 1 else ''}; the test rows have no say in the choice. Of two that are right in "
            "the same rows, as two layers of one function, the one named first comes first, unless it takes a quarter "
            "longer. The true loss against the true best is at most the bound, with 95 % confidence for all strategies "
            "at once, whichever is the best. The validation rows chose each run's epoch too, so their accuracies are a "
            "little too high."
        ),
        Grid(headings, table, [True] + [False] * 5 + [True, False], chosen),
    ]


def difference_blocks(comparison: Comparison, rows: Sequence[Standing], rival: str | None) -> list[Block]:
    """What can be told apart on the test rows, and what a comparison of this size can see at all."""
    strategies = [row for row in rows if row.kind == "strategy"]
    best = next((row.label for row in rows if row.best), None)
    if best is None or (len(strategies) < 2 and rival is None):
        return []
    headings = ["strategy", "group", f"to {best}, points", "can be told apart"]
    if rival:
        headings += [f"to {rival}, points", "can be told apart"]
    table = []
    for row in [*strategies, *(row for row in rows if row.label == rival)]:
        line = [row.label, row.group or NONE, _points(row.to_best), _told(row.to_best)]
        table.append(line + ([_points(row.to_baseline), _told(row.to_baseline)] if rival else []))
    blocks: list[Block] = [
        Heading("Is the difference real?"),
        Paragraph(
            "Differences of accuracy on the same test rows and seeds. The intervals hold for other rows and other "
            "seeds, and for all pairs at once, whichever is the best. Those that share a letter cannot be told apart. "
            "That does not show that they are equal; the interval's ends say how far apart they may be."
        ),
        Grid(headings, table, [True, True, False, True, False, True][: len(headings)]),
    ]
    if comparison.power is not None:
        chances = ", ".join(
            f"{points} point{'' if points == '1' else 's'} in {percent(share, 0)}"
            for points, share in comparison.power.items()
        )
        blocks.append(
            Paragraph(
                f"What a comparison of this size can see: two strategies that truly differ by {chances} of such "
                "comparisons are told apart."
            )
        )
    return blocks


def _told(score: Score | None) -> str:
    if score is None:
        return NONE
    return "better" if score.low > 0 else "worse" if score.high < 0 else "no"
