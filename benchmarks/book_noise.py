"""Can two published accuracies be told apart, when nobody published which messages each got wrong?

Both models saw the same n messages, so the test is McNemar's (1947): of the m messages that one got right and the
other wrong, the better one got (m + d) / 2, with d the difference of their errors, and p is the two-sided chance of
that many or more heads in m throws of a coin. d is known, m is not: it is at least d, and at most e1 + e2 (no message
wrong in both; 2 n - e1 - e2 where that is less). The p of the least m is the *best case*, the largest p of all m the
*worst case*. Both are corrected for the number of differences that are looked at (Holm 1979).

    beyond    even in the worst case p < 0.05: the difference is not noise of the 300 messages
    open      it depends on the pairs, which were not published
    within    even in the best case p >= 0.05: it cannot be told from noise

All of that holds for other messages with these very runs: each figure is of one seed, and another seed adds noise of
its own that a single run does not show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ITEMS = 300
LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a published difference shows: points, p in the best and the worst case (corrected), and the word for it."""

    points: float
    best: float
    worst: float
    word: str


def errors_of(accuracy: float, items: int = ITEMS) -> int:
    """How many of ``items`` were wrong at an accuracy in %, rounded to two digits when it was published.

    Raises:
        ValueError: no whole number of errors gives that accuracy.
    """
    wrong = round(items * (1 - accuracy / 100))
    if abs(100 * (1 - wrong / items) - accuracy) > 0.0051:
        raise ValueError(f"{accuracy} % is no share of {items} messages.")
    return wrong


def coin(difference: int, pairs: int) -> float:
    """The two-sided p of McNemar's exact test with ``pairs`` messages in which the two disagree."""
    at_least = (pairs + difference) // 2
    tail = sum(math.comb(pairs, heads) for heads in range(at_least, pairs + 1))
    return min(1.0, float(2 * tail / 2**pairs))


def cases(one: int, other: int, items: int = ITEMS) -> tuple[float, float]:
    """The smallest and the largest p that two counts of errors allow."""
    difference = abs(one - other)
    most = min(one + other, 2 * items - one - other)
    found = [coin(difference, pairs) for pairs in range(difference, most + 1, 2)]
    return min(found), max(found)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, step by step from the smallest (Holm 1979), in the order they came."""
    found, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        found[index] = largest
    return found


def verdicts(accuracies: Mapping[str, float], reference: str = "1", items: int = ITEMS) -> dict[str, Verdict]:
    """What the difference of each published accuracy in % from that of ``reference`` shows."""
    base = errors_of(accuracies[reference], items)
    names = [name for name in accuracies if name != reference]
    both = [cases(base, errors_of(accuracies[name], items), items) for name in names]
    best, worst = (holm([pair[side] for pair in both]) for side in (0, 1))
    found = {}
    for name, low, high in zip(names, best, worst, strict=True):
        word = "beyond" if high < LEVEL else "within" if low >= LEVEL else "open"
        found[name] = Verdict(accuracies[name] - accuracies[reference], low, high, word)
    return found
