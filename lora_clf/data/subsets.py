"""Smaller data sets cut out of one: k examples of each class, and folds inside the training part.

Neither ever looks at the test part: it stays as it is, row for row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset
from lora_clf.data.partition import digest_of
from lora_clf.data.split import divide, fold_parts
from lora_clf.errors import DataError, UsageError

ONE_IN = 4  # of a class's examples so many in one is for validation
RULE = (
    "k examples of each class are all there is: of a class every fourth is for validation (with two or three one), "
    "the others are for training. They are drawn from the training and validation rows of the split; the subsets of "
    "one draw are nested, and so are their parts. Near copies stay on one side, and a second text of a group is taken "
    "only when a class has no other left."
)
TRAIN, VALIDATION = 0, 1


class Draws:
    """Draws nested subsets of k examples a class from all rows of a data set that are not for testing.

    The rule is `RULE`. The same data, seed and draw give the same subsets on every machine.

    Args:
        data: training and validation parts are the pool; the test part is that of every subset.
        seed: of all draws.
    """

    def __init__(self, data: Dataset, seed: int = 0) -> None:
        self.data = data
        self.seed = seed
        self.pool = Part.joined((data.train, data.validation))
        self._groups = data.groups(self.pool)
        self._labels = data.label_ids(self.pool)
        self._drawn: dict[int, tuple[list[NDArray[np.int64]], dict[int, int]]] = {}

    @property
    def largest(self) -> int:
        """How many examples the most frequent class has."""
        return int(np.bincount(self._labels).max())

    def subset(self, k: int, draw: int) -> Dataset:
        """The data set of ``k`` examples of each class in draw number ``draw``; of a smaller class all.

        Raises:
            UsageError: ``k`` is below 2, so that nothing would be left to validate on.
            DataError: all of a draw are copies of each other.
        """
        if k < 2:
            raise UsageError(f"{k} example of each class cannot be both for training and for validation; at least 2.")
        orders, sides = self._draw(draw)
        chosen = np.sort(np.concatenate([order[:k] for order in orders]))
        side = np.array([sides[int(group)] for group in self._groups[chosen]])
        train, validation = (self.pool.take(chosen[side == which].tolist()) for which in (TRAIN, VALIDATION))
        if not len(validation):
            raise DataError(
                f"{self.data.name}: the {len(chosen)} rows of draw {draw} with {k} of each class are near copies of "
                "each other, so none is left for validation. Take more of each class."
            )
        parts = (train, validation, self.data.test)
        names = zip(self.data.labels, orders, strict=True)
        warnings = [f"class {name!r} has {len(order)} of the {k} examples" for name, order in names if len(order) < k]
        return replace(self.data, train=train, validation=validation, digest=digest_of(parts), warnings=tuple(warnings))

    def _draw(self, draw: int) -> tuple[list[NDArray[np.int64]], dict[int, int]]:
        """Positions in the pool of each class in the order in which they are taken, and the side of each group."""
        if draw not in self._drawn:
            random = np.random.default_rng([self.seed, draw, 0xD2A35])
            orders = []
            for label in range(len(self.data.labels)):
                places = random.permutation(np.flatnonzero(self._labels == label))
                seen: Counter[int] = Counter()
                turns = np.zeros(len(places), np.int64)
                for number, group in enumerate(self._groups[places].tolist()):
                    turns[number] = seen[group]
                    seen[group] += 1
                orders.append(places[np.argsort(turns, kind="stable")])
            self._drawn[draw] = orders, self._sides(orders)
        return self._drawn[draw]

    def _sides(self, orders: list[NDArray[np.int64]]) -> dict[int, int]:
        """Training or validation for each group; decided when its first row is taken, so that parts are nested."""
        sides: dict[int, int] = {}
        held = [0] * len(orders)
        for number in range(max(map(len, orders))):
            wanted = 0 if number < 1 else max(1, (number + 1) // ONE_IN)
            for label, order in enumerate(orders):
                if number < len(order):
                    group = int(self._groups[order[number]])
                    sides.setdefault(group, VALIDATION if held[label] < wanted else TRAIN)
                    held[label] += sides[group] == VALIDATION
        return sides


def folds_within(data: Dataset, k: int, seed: int = 0) -> list[Dataset]:
    """``k`` data sets out of the training part of ``data`` alone; its validation and test rows are in none of them.

    Each fold is once what is tested on; of the other rows a tenth is for validation. Near copies, and the groups of
    the data's group column, stay on one side.

    Raises:
        DataError: there are too few rows, or groups of them.
    """
    labels = data.label_ids(data.train) if data.other_task is None else data.other_task.strata(data.train.labels)
    groups = data.groups(data.train)
    if len(np.unique(groups)) < 2 * k:
        raise DataError(
            f"{data.name} has {len(data.train)} training rows in {len(np.unique(groups))} groups of near copies; for "
            f"{k} folds within them there should be {2 * k} groups at least."
        )
    found = []
    for number, places in enumerate(fold_parts(labels, k, seed, groups), 1):
        others = np.setdiff1d(np.arange(len(data.train)), places)
        inner = divide(labels[others], (0.9, 0.1), seed, groups[others])
        parts = (
            data.train.take(others[inner[0]].tolist()),
            data.train.take(others[inner[1]].tolist()),
            data.train.take(places.tolist()),
        )
        train, validation, test = parts
        name = f"{data.name} inner fold {number} of {k}"
        inner_task = None if data.other_task is None else data.other_task.fitted(train.labels)
        found.append(
            replace(
                data,
                name=name,
                train=train,
                validation=validation,
                test=test,
                digest=digest_of(parts),
                warnings=(),
                other_task=inner_task,
            )
        )
    return found
