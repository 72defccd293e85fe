"""The rows and seeds that several contenders have in common: what their differences are measured on.

Shapes: K contenders, M measurements (a row with a seed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lora_clf.comparison.outcome import Predictions, whole_seeds
from lora_clf.data.corpus import Part
from lora_clf.evaluation.simultaneous import Moments, moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.comparison.comparison import Comparison
    from lora_clf.data.dataset import Dataset

Parts = Mapping[int, Predictions]  # by seed, all folds together


@dataclass(frozen=True, eq=False)
class Measurements:
    """Who was right where.

    Attributes:
        labels: the K contenders.
        correct: (K, M) 1 where right.
        rows: (M,) row numbers in the source.
        seeds: (M,).
    """

    labels: tuple[str, ...]
    correct: NDArray[np.float64]
    rows: NDArray[np.int64]
    seeds: NDArray[np.int64]

    def moments(self, groups: Mapping[int, int]) -> Moments | None:
        """Means and what they vary by; None where there is nothing to compare, or one group only.

        Args:
            groups: the group of each row.
        """
        clusters = np.array([groups[int(row)] for row in self.rows], dtype=np.int64)
        if not self.labels or len(np.unique(clusters)) < 2:
            return None
        return moments(self.correct, clusters, self.seeds)


def tested(comparison: Comparison, labels: Sequence[str]) -> Measurements | None:
    """What the contenders and baselines ``labels`` have in common on the test part; None where nothing.

    A baseline that draws nothing has one answer, which counts for every seed.
    """
    strategies = {contender.label for contender in comparison.plan.contenders}
    parts = {}
    for label in labels:
        pool = comparison.pools[label]
        by_seed = dict(zip(pool.seeds, pool.predictions, strict=True))
        parts[label] = by_seed, label not in strategies and not comparison.plan.resplit
    return _together(parts)


def validated(comparison: Comparison, labels: Sequence[str]) -> Measurements | None:
    """What the strategies ``labels`` have in common on the validation part; None where nothing."""
    parts = {}
    for label in labels:
        cells = ((outcome.seed, outcome.validation) for outcome in comparison.outcomes_of(label))
        whole = whole_seeds(cells, comparison.plan.data.folds or 1)
        parts[label] = {seed: Predictions.joined(found) for seed, found in whole.items()}, False
    return _together(parts)


def groups_of(data: Dataset, parts: Sequence[Part]) -> dict[int, int]:
    """Which rows of the ``parts`` count as one, by row number; a row may be in several of them."""
    together = Part.joined(parts)
    places = np.unique(np.asarray(together.rows), return_index=True)[1].tolist()
    once = together.take(places)
    return dict(zip(once.rows, data.groups(once).tolist(), strict=True))


def _together(parts: Mapping[str, tuple[Parts, bool]]) -> Measurements | None:
    """The common seeds of all; ``True`` stands by those whose one part counts for every seed."""
    drawn = [set(by_seed) for by_seed, once in parts.values() if not (once and len(by_seed) == 1)]
    drawn = drawn or [set(by_seed) for by_seed, _ in parts.values()]
    if not drawn:
        return None
    correct: dict[str, list[NDArray[np.bool_]]] = {label: [] for label in parts}
    rows, seeds = [], []
    for seed in sorted(set.intersection(*drawn)):
        mine = {
            label: next(iter(by_seed.values())) if once and len(by_seed) == 1 else by_seed[seed]
            for label, (by_seed, once) in parts.items()
        }
        first = next(iter(mine.values()))
        if not len(first) or not all(np.array_equal(first.rows, part.rows) for part in mine.values()):
            continue
        for label, part in mine.items():
            correct[label].append(part.correct)
        rows.append(first.rows)
        seeds.append(np.full(len(first), seed))
    if not rows:
        return None
    table = np.stack([np.concatenate(found) for found in correct.values()]).astype(np.float64)
    return Measurements(tuple(parts), table, np.concatenate(rows), np.concatenate(seeds).astype(np.int64))
