"""How much worse than the best can each classifier be? And how much data would it take to know?

The best is not known: it is looked for among the same items. Every classifier in turn takes the place of the best,
with its own critical value, and the largest of the bounds is the bound (multiple comparisons with the best: Hsu 1984;
with the critical values of a one-sided Dunnett test for each, Edwards and Hsu 1983). Whichever really is the best, its
own comparisons are among those, so the bounds of all classifiers hold together: choosing the cheapest of those within a
margin needs no further correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lora_clf.evaluation.simultaneous import DRAWS, Moments, draws

Floats = npt.NDArray[np.float64]

POWER_QUANTILE = 0.8416  # of the normal distribution at 80 %


@dataclass(frozen=True, eq=False)
class Shortfalls:
    """How far each of K classifiers can be below the best.

    Attributes:
        observed: (K,) the highest mean less each one's own.
        bounds: (K,) what the true shortfall stays below, for all at once with the confidence asked for; at least 0.
        rivals: (K,) which other classifier the bound comes from.
        critical: (K,) the one-sided critical value with each in the place of the best.
        found: means and variances.
    """

    observed: Floats
    bounds: Floats
    rivals: npt.NDArray[np.intp]
    critical: Floats
    found: Moments


def shortfalls(found: Moments, confidence: float = 0.95, count: int = DRAWS, seed: int = 0) -> Shortfalls:
    """Upper bounds of the loss against the best, for all classifiers at once."""
    size = found.size
    if size < 2:
        nothing = np.zeros(size)
        return Shortfalls(nothing, nothing, np.zeros(size, dtype=np.intp), nothing, found)
    drawn = draws(found, count, seed)
    critical = np.array([drawn.one_sided(place, confidence) for place in range(size)])
    losses = (
        found.means[None, :] - found.means[:, None] + critical[None, :] * found.error
    )  # (K, K) own row, rival column
    np.fill_diagonal(losses, -np.inf)
    rivals = losses.argmax(axis=1)
    bounds = np.maximum(losses.max(axis=1), 0.0)
    return Shortfalls(found.means.max() - found.means, bounds, rivals, critical, found)


def items_needed(found: Shortfalls, place: int, margin: float) -> float:
    """About how many items it takes to show that one is within ``margin`` of the best, if what was seen goes on.

    The bound is gap + c sqrt(items n / n' + seeds) with n' items in place of n: the items' part of the variance (two
    classifiers that disagree on a share p of n items add about p / n) shrinks with more items, the seeds' part does
    not. It stays within the margin with a power of 80 % where::

        n' = n items / (((margin - gap) / (c + 0.84))^2 - seeds)

    gap is what was observed against the rival that the bound comes from, at least 0: a lead that was seen is not
    counted on. inf where no number of items is enough, because the gap is as large as the margin, or because the seeds'
    part alone is too large: then more seeds are needed.
    """
    moments, rival = found.found, int(found.rivals[place])
    gap = max(0.0, float(moments.means[rival] - moments.means[place]))
    room = ((margin - gap) / (float(found.critical[rival]) + POWER_QUANTILE)) ** 2 if gap < margin else 0.0
    left = room - float(moments.seeds_apart[place, rival])
    return moments.counted * float(moments.items_apart[place, rival]) / left if left > 0 else math.inf
