"""Divides rows into parts: stratified by label, no group on two sides, the same for the same seed and data.

Pure functions of integers: ``labels`` (N,) class numbers, ``groups`` (N,) group numbers or None for every row
on its own. Nothing here depends on the order of a set or on PYTHONHASHSEED.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLACK = 2  # rows; of two classes the remainders never add up to more


def parse_shares(split: str | Sequence[float]) -> tuple[float, float, float]:
    """``"70/10/20"`` as the shares of train, validation and test; they add up to one whatever the numbers."""
    try:
        pieces = split.replace(":", "/").split("/") if isinstance(split, str) else list(split)
        numbers = [float(piece) for piece in pieces]
    except (ValueError, TypeError, OverflowError):
        numbers = []
    if len(numbers) != 3 or not all(0 < number < float("inf") for number in numbers):
        raise UsageError(
            f"The split is {split!r}; expected three numbers above 0 for train, validation and test, such as 70/10/20."
        )
    total = sum(numbers)
    return numbers[0] / total, numbers[1] / total, numbers[2] / total


def divide(
    labels: NDArray[np.int64],
    shares: Sequence[float],
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Row positions of each part, sorted, so that every class is divided in the proportion of ``shares``.

    Without groups every class is divided to the row, and the parts as wholes to `SLACK` rows. A group goes
    whole to a part drawn in proportion to the shares among those where it still fits, to the one that lacks
    most where it fits nowhere; rows on their own then fill what is left. So large groups are not all in the
    largest part, and a class differs from its proportion by no more than what one group holds.
    """
    total = len(labels)
    classes = int(labels.max()) + 1 if total else 0
    parts = len(shares)
    draw = np.random.default_rng([seed, 0x5B117])
    room = _quotas(np.bincount(labels, minlength=classes), shares, seed)
    part_of = np.full(total, -1, np.int64)
    if groups is not None:
        weights = np.asarray(shares, np.float64)
        late = []
        for members in _shuffled_groups(groups, draw):
            held = np.bincount(labels[members], minlength=classes)
            fits = np.flatnonzero((held <= room).all(axis=1))
            if not len(fits):
                late.append((members, held))
                continue
            chance = np.cumsum(weights[fits])
            part = fits[min(int(np.searchsorted(chance, draw.random() * chance[-1], "right")), len(fits) - 1)]
            part_of[members] = part
            room[part] -= held
        for members, held in sorted(late, key=lambda pair: -len(pair[0])):
            part = int(np.argmin(_overflow(room, held)))
            part_of[members] = part
            room[part] -= held
    for label in range(classes):
        alone = draw.permutation(np.flatnonzero((labels == label) & (part_of < 0)))
        left = _filled(room[:, label], len(alone))
        part_of[alone] = np.repeat(np.arange(parts), left)
    _none_empty(part_of, parts, groups)
    return [np.flatnonzero(part_of == part) for part in range(parts)]


def fold_parts(
    labels: NDArray[np.int64], k: int, seed: int, groups: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Row positions of ``k`` test folds that together are all rows, divided as ``divide`` does."""
    if k < 2:
        raise UsageError(f"{k} folds were asked for; at least 2 are needed.")
    if k > len(labels):
        raise UsageError(f"{k} folds were asked for of {len(labels)} rows; there can be one a row at most.")
    return divide(labels, [1.0 / k] * k, seed, groups)


def undersample(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Row positions, sorted, with as many rows of every class as the smallest class has."""
    draw = np.random.default_rng([seed, 0xBA1A7CE])
    counts = np.bincount(labels)
    smallest = int(counts[counts > 0].min())
    chosen = [draw.permutation(np.flatnonzero(labels == label))[:smallest] for label in range(len(counts))]
    return np.sort(np.concatenate(chosen))


def _quotas(counts: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """How many rows of each class each part gets (P, C): rounded down, the rest to the largest remainders.

    Of many classes with few rows the remainders add up, always in favour of the same parts. So where parts end
    more than ``SLACK`` rows apart from their shares, rows that the rounding gave go from the part that is most
    ahead to the one that is most behind, of the classes where that costs least; which of equals is drawn.
    """
    ideal = np.outer(np.asarray(shares, np.float64), counts)  # (P, C)
    whole: NDArray[np.int64] = np.floor(ideal + 1e-9).astype(np.int64)
    remainders = ideal - whole
    given = np.zeros_like(whole)
    for label, left in enumerate(counts - whole.sum(axis=0)):
        given[np.argsort(-remainders[:, label], kind="stable")[:left], label] = 1
    ahead = (whole + given - ideal).sum(axis=1)
    drawn = np.random.default_rng([seed, 0x90A7A]).permutation(len(counts))
    while ahead.max() - ahead.min() > SLACK:
        giver, taker = int(ahead.argmax()), int(ahead.argmin())
        movable = drawn[(given[giver, drawn] == 1) & (given[taker, drawn] == 0)]
        if not len(movable):
            break
        label = movable[int(np.argmin((remainders[giver] - remainders[taker])[movable]))]
        given[giver, label], given[taker, label] = 0, 1
        ahead[giver] -= 1
        ahead[taker] += 1
    whole += given
    return whole


def _shuffled_groups(groups: NDArray[np.int64], draw: np.random.Generator) -> list[NDArray[np.int64]]:
    """The row positions of each group of two rows or more, in a drawn order."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1 if len(order) else 0))
    several = [members for members in np.split(order, starts[1:]) if len(members) > 1]
    return [several[place] for place in draw.permutation(len(several))]


def _overflow(room: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each part, how far above its quota the group would push it, weighed by what it already lacks."""
    after = room - held
    above = np.where(after < 0, -after, 0).sum(axis=1).astype(np.float64)
    lacking = np.where(room > 0, np.minimum(room, held), 0).sum(axis=1)
    overflow: NDArray[np.float64] = above - lacking * 1e-6
    return overflow


def _filled(room: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of ``count`` single rows each part gets, given that ``room`` adds up to ``count``."""
    left = np.maximum(room, 0)
    over = int(left.sum()) - count
    for _ in range(over):  # groups took more than their quota elsewhere: the part with most room goes without
        left[int(np.argmax(left))] -= 1
    return left


def _none_empty(part_of: NDArray[np.int64], parts: int, groups: NDArray[np.int64] | None) -> None:
    """Give each part at least one group, in place, as long as there are enough groups."""
    groups = np.arange(len(part_of)) if groups is None else groups
    for part in range(parts):
        if (part_of == part).any():
            continue
        for giver in np.argsort(-np.bincount(part_of, minlength=parts), kind="stable"):
            names, sizes = np.unique(groups[part_of == giver], return_counts=True)
            if len(names) > 1:
                part_of[groups == names[int(np.argmin(sizes))]] = part
                break
