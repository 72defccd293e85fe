"""The answer of a comparison in a few sentences: what to take, how sure that is, and what cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_clf.comparison.recommendation import counts_as_one, sentences_of
from lora_clf.comparison.standing import Standing, percent, range_of
from lora_clf.figures import listed

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison


def verdict_of(comparison: Comparison) -> list[str]:
    """The answer for people: first what to take, from the validation part; then what the test part says."""
    rows = comparison.standings
    strategies = [row for row in rows if row.kind == "strategy"]
    if not strategies:
        return ["No strategy has a complete run, so there is nothing to compare."]
    best = next(row for row in rows if row.best)
    seeds = f", {best.seeds} seeds" if best.seeds > 1 else ""
    first = (
        f"{best.label} got most right: {percent(best.accuracy.mean)} of {best.accuracy.n:,} test rows "
        f"({range_of(best.accuracy)}{seeds})"
    )
    tied = [row for row in strategies if row.tied]
    worse = [row.label for row in strategies if not row.tied and not row.best]
    lines = []
    if tied:
        gap = -min(row.to_best.low for row in tied if row.to_best is not None) * 100
        first += f", but this data cannot tell it from {listed([row.label for row in tied])}"
        lines.append(f"That does not make them equal: a gap of up to {gap:.1f} points remains possible.")
        if worse:
            lines.append(f"{listed(worse)} {_verb(worse, 'is', 'are')} worse by more than chance explains.")
    elif worse:
        first += f", more than {listed(worse)} by more than chance explains"
    lines += _against_baseline(strategies, next((row for row in rows if row.label == comparison.rival), None))
    if best.seeds == 1:
        lines.append("One seed says nothing of how much another would differ: use --seeds 3 or more.")
    found = comparison.recommendation
    return [*(sentences_of(found) if found is not None else _undecided(comparison)), f"{first}.", *lines]


def _undecided(comparison: Comparison) -> list[str]:
    """Why there is no recommendation, where there is something to choose from."""
    if not counts_as_one(comparison):
        return []
    column = comparison.data.group_column
    kind = "near copies of each other" if column is None else f"near copies of each other or of one {column!r}"
    return [f"This data cannot decide which strategy to take: all validation rows are {kind}, and count as one."]


def _against_baseline(strategies: Sequence[Standing], rival: Standing | None) -> list[str]:
    """Who beats the strongest baseline by more than the interval, and who does not."""
    if rival is None:
        return []
    gaps = {row.label: row.to_baseline for row in strategies if row.to_baseline is not None}
    above = [label for label, gap in gaps.items() if gap.low > 0]
    below = [label for label, gap in gaps.items() if gap.high < 0]
    level = [label for label in gaps if label not in {*above, *below}]
    name = f"{rival.label} ({percent(rival.accuracy.mean)})"
    if len(gaps) > 1 and not below and not (above and level):
        whole = "Every strategy beats" if above else "No strategy beats"
        return [f"{whole} {name} by more than the interval."]
    lines = []
    if above:
        lines.append(f"{listed(above)} {_verb(above, 'beats', 'beat')} {name} by more than the interval.")
    if level:
        lines.append(f"{listed(level)} {_verb(level, 'does', 'do')} not beat {name} by more than the interval.")
    if below:
        lines.append(f"{listed(below)} {_verb(below, 'is', 'are')} worse than {name}.")
    return lines


def _verb(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several
