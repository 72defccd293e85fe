"""Which of several classifiers can be told apart: every pair at once, over items and seeds alike.

The best of several is found out from the same items that then say how much better it is, and of many equal
classifiers two will look different. So the family is every pair: the intervals hold together, whichever pair
turns out to be looked at and whichever is the best. How wide they have to be is drawn jointly, so that
classifiers that are right on the same items count for less than as many strangers; a correction for the number
of pairs alone (Bonferroni) cannot know that.

The variance of the difference of two means over S seeds and N items in G clusters has two parts::

    items_kl   from cluster to cluster; G - 1 degrees of freedom (Cameron, Gelbach and Miller 2011)
    seeds_kl   from seed to seed, less what single items make of it; S - 1 degrees of freedom

Three seeds are two degrees of freedom, and among 120 pairs some show next to no spread by chance. So ``seeds_kl``
is never less than the average of all pairs, and more where the pair's own estimate is larger.

The critical value is that of the largest |difference| / error of any pair in draws of classifiers that are
equal: jointly normal items with the covariance that was found, normal seeds, and the seeds' part of the error
estimated anew in each draw (max-T, Westfall and Young 1993, from a parametric bootstrap; Tukey's range is the
special case of independent classifiers). How much seeds matter is itself known from few runs only: each draw takes
another value that the runs allow, v d / chi-squared(d), with d = ``CAUTION`` (K - 1)(S - 1). Without that caution, two
strategies with three seeds are called different 10 % of the time where seeds matter most
(`benchmarks/simulation.py` measures it). v is the classifier's own spread, for more than ``ALONE`` of them drawn
towards the average of all, which many runs know well: by the share 1 - sqrt(``ALONE`` / K).

A pair borrows the average of all pairs, which is too little where some classifiers vary with the seed and others do
not; what three seeds show of that is next to nothing. So critical values are widened by ``FEW_SEEDS`` / sqrt(S - 1):
7 % with three seeds, 5 % with five. The number keeps the error to 5 % in that simulation for the worst mixtures of seed
effects between 0 and 1.1 points on 300 to 1,100 rows. Doubling the seeds' part of the variance or borrowing more
costs more power for the same. Where rows are so many that seeds are nearly all of the variance, and one strategy
alone varies, three seeds are not enough and the error is larger: benchmarks/README.md has the figure.

Shapes: K classifiers, S seeds, N items, G clusters, M measurements (an item with a seed), P pairs, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError
from lora_clf.evaluation.intervals import Groups, Interval

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

DRAWS = 4000  # 5 % of them lie beyond the critical value, which is known to about 2 % then
CAUTION = 0.3
FEW_SEEDS = 0.1
ALONE = 6


@dataclass(frozen=True, eq=False)
class Moments:
    """All that a comparison of K classifiers needs: their means, and what these vary by.

    Attributes:
        means: (K,) shares right.
        items: (K, K) covariance of the means from cluster to cluster, the noise of single runs included.
        rows: (K, K) covariance of the means from seed to seed, as observed; zero with one seed.
        noise: (K, K) what single items explain of ``rows``.
        pseudo: (K, K) what half a pseudo-item on either side adds to the variance of a difference.
        clusters: G.
        seeds: S.
        counted: items that each seed was measured on.
    """

    means: Floats
    items: Floats
    rows: Floats
    noise: Floats
    pseudo: Floats
    clusters: int
    seeds: int
    counted: int

    @property
    def size(self) -> int:
        """K."""
        return len(self.means)

    @cached_property
    def pairs(self) -> tuple[Places, Places]:
        """Two times (P,) the places of each pair, the first before the second."""
        left, right = np.triu_indices(self.size, 1)
        return left, right

    @cached_property
    def items_apart(self) -> Floats:
        """(K, K) the items' part of the variance of each difference, pseudo-items included."""
        return _apart(self.items) + self.pseudo

    @cached_property
    def seeds_apart(self) -> Floats:
        """(K, K) the seeds' part of the variance of each difference."""
        left, right = self.pairs
        found = np.zeros_like(self.items)
        if self.seeds > 1 and self.size > 1:
            own = (_apart(self.rows) - _apart(self.noise))[left, right]
            found[left, right] = found[right, left] = np.maximum(own, max(0.0, float(own.mean())))
        return found

    @cached_property
    def error(self) -> Floats:
        """(K, K) standard error of the difference of each pair; 0 on the diagonal."""
        found: Floats = np.sqrt(self.items_apart + self.seeds_apart)
        return found


def moments(
    correct: Sequence[npt.ArrayLike] | Floats, clusters: Groups, seeds: Groups, usual: npt.ArrayLike = 1.0
) -> Moments:
    """What the results of K classifiers say of their accuracies, and how surely.

    Args:
        correct: K times (M,), 1 where right, one entry for each measurement; or another score, the higher the better.
        clusters: (M,) the near-copy group of the item of each measurement.
        seeds: (M,) the seed of each measurement. Seeds may share their items or have items of their own.
        usual: (K,) or one for all, how much an item can matter to each: 1 where they are right or wrong; of costs
            without a bound the usual cost. A pseudo-item is worth the mean of a pair's.

    Raises:
        UsageError: nothing came, shapes differ, or all items are in one cluster.
    """
    table = np.atleast_2d(np.asarray(correct, dtype=np.float64))  # (K, M)
    if table.ndim != 2 or not table.size:
        raise UsageError(f"Results of shape {table.shape} came; expected (classifiers, measurements).")
    total = table.shape[1]
    if len(clusters) != total or len(seeds) != total:
        raise UsageError(f"{len(clusters)} clusters and {len(seeds)} seeds came for {total} measurements.")
    column = np.unique(np.asarray(clusters), return_inverse=True)[1].reshape(-1)
    row = np.unique(np.asarray(seeds), return_inverse=True)[1].reshape(-1)
    columns, rows = int(column.max()) + 1, int(row.max()) + 1  # G, S
    if columns < 2:
        raise UsageError("All items are in one cluster; expected two at least: one says nothing of others.")
    cell = row * columns + column
    counts = np.bincount(cell, minlength=rows * columns).reshape(rows, columns)
    means = table.mean(axis=1)
    apart = (table - means[:, None]) / total
    cells = np.stack([np.bincount(cell, weights=one, minlength=rows * columns) for one in apart])
    cells = cells.reshape(len(table), rows, columns)  # (K, S, G) what each adds to its mean
    by_cluster = cells.sum(axis=1)  # (K, G)
    items = columns / (columns - 1) * by_cluster @ by_cluster.T
    share = counts.sum(axis=0) / total  # (G,)
    between = noise = np.zeros_like(items)
    if rows > 1:
        by_seed = cells.sum(axis=2)  # (K, S)
        between = rows / (rows - 1) * by_seed @ by_seed.T
        if bool((counts == counts[0]).all()):  # every seed met the same items
            rest = (cells - by_seed[:, :, None] * share - by_cluster[:, None, :] / rows).reshape(len(table), -1)
            noise = rows * columns / ((rows - 1) * (columns - 1)) * rest @ rest.T
        else:  # each seed has items of its own: what these differ in shows between seeds as well
            noise = items
    alone = float((share**2).sum())  # 1 / the number of items that the clusters are worth
    spread = _spread(table, means)
    worth = np.divide(_apart(items), spread * alone, out=np.ones_like(items), where=spread > 1e-12)
    worth[worth < 1e-9] = 1.0  # what differs cancels within each cluster: as little is known as where nothing differs
    each = np.broadcast_to(np.asarray(usual, dtype=np.float64), means.shape)
    item = (each[:, None] + each[None, :]) / 2  # (K, K)
    pseudo = np.minimum(1.0, worth) * (item * alone) ** 2 * (1 - np.eye(len(table)))
    return Moments(means, items, between, noise, pseudo, columns, rows, round(total / rows))


def _apart(covariance: Floats) -> Floats:
    """(K, K) variances of differences from a covariance."""
    own = np.diag(covariance)
    found: Floats = np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0)
    return found


def _spread(table: Floats, means: Floats) -> Floats:
    """(K, K) variance of the difference of each pair from measurement to measurement."""
    found: Floats = _apart(table @ table.T / table.shape[1]) - (means[:, None] - means[None, :]) ** 2
    return found


def _centred(covariance: Floats) -> Floats:
    """(K,) variances of what is left of each when what all have in common is taken off, as if it were all of it."""
    rest = np.diag(covariance) - 2 * covariance.mean(axis=1) + covariance.mean()
    found: Floats = rest * len(covariance) / (len(covariance) - 1)
    return found


def _root(covariance: Floats) -> Floats:
    """A matrix R with R R' = covariance, whatever its rank."""
    values, vectors = np.linalg.eigh(covariance)
    found: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return found


@dataclass(frozen=True, eq=False)
class Draws:
    """B comparisons of K equal classifiers, as they could have come.

    Attributes:
        shifts: (B, K) how far each mean is from the truth.
        errors: (B, P) the standard error of each difference, as it would be estimated.
        pairs: two times (P,) the places of each pair.
        widening: what critical values are multiplied with, at least 1.
    """

    shifts: Floats
    errors: Floats
    pairs: tuple[Places, Places]
    widening: float = 1.0

    @cached_property
    def ratios(self) -> Floats:
        """(B, P) the difference of each pair, the first less the second, over its standard error."""
        left, right = self.pairs
        found: Floats = (self.shifts[:, left] - self.shifts[:, right]) / self.errors
        return found

    def two_sided(self, confidence: float) -> float:
        """What the largest |difference| / error of any pair stays below in that share of the draws, widened."""
        return self.widening * float(np.quantile(np.abs(self.ratios).max(axis=1), confidence))

    def one_sided(self, place: int, confidence: float) -> float:
        """As `two_sided`, of the largest (other - ``place``) / error of any other."""
        left, right = self.pairs
        ratios = np.concatenate([self.ratios[:, right == place], -self.ratios[:, left == place]], axis=1)
        return self.widening * float(np.quantile(ratios.max(axis=1), confidence))


def draws(found: Moments, count: int = DRAWS, seed: int = 0, *, cautious: bool = True) -> Draws:
    """Draw comparisons of as many equal classifiers with the variances that were found.

    Args:
        found: means and variances.
        count: B.
        seed: of the draws.
        cautious: whether the effect of seeds varies from draw to draw, as far as the runs allow; otherwise it is
            what was estimated.
    """
    random = np.random.default_rng(seed)
    size, (left, right) = found.size, found.pairs
    shifts = random.standard_normal((count, size)) @ _root(found.items).T
    # The pseudo-items are no noise: they stand in the error only.
    scale = random.chisquare(found.clusters - 1, (count, 1)) / (found.clusters - 1)
    variance = scale * found.items_apart[left, right]
    if found.seeds > 1 and size > 1:
        degrees = found.seeds - 1
        noise = _apart(found.noise)[left, right]
        each = _centred(found.rows)
        own = min(1.0, (ALONE / size) ** 0.5)
        each = own * each + (1 - own) * each.mean()
        known = CAUTION * (size - 1) * degrees
        doubt = known / random.chisquare(known, (count, 1)) if cautious else np.ones((count, 1))
        effects = np.sqrt(np.maximum(0.0, each * doubt - _centred(found.noise)))  # (B, K) standard deviations
        shifts += random.standard_normal((count, size)) * effects
        runs = random.standard_normal((count, degrees, size)) @ _root(found.noise).T  # (B, S - 1, K)
        runs += random.standard_normal((count, degrees, size)) * effects[:, None, :]
        between = ((runs[:, :, left] - runs[:, :, right]) ** 2).mean(axis=1) - noise  # (B, P)
        variance = variance + np.maximum(between, np.maximum(0.0, between.mean(axis=1, keepdims=True)))
    widening = 1 + FEW_SEEDS / (found.seeds - 1) ** 0.5 if found.seeds > 1 else 1.0
    return Draws(shifts, np.sqrt(variance), (left, right), widening)


@dataclass(frozen=True, eq=False)
class Family:
    """The differences of all pairs, with intervals that hold together.

    Attributes:
        found: means and variances.
        critical: half of an interval's width over its standard error.
        confidence: how often all intervals hold the true differences at once.
    """

    found: Moments
    critical: float
    confidence: float

    def difference(self, one: int, other: int) -> tuple[float, Interval]:
        """Accuracy of ``one`` minus that of ``other``, with its interval."""
        value = float(self.found.means[one] - self.found.means[other])
        half = self.critical * float(self.found.error[one, other])
        return value, Interval(value - half, value + half)

    @cached_property
    def apart(self) -> npt.NDArray[np.bool_]:
        """(K, K) whether two are told apart."""
        gaps = np.abs(self.found.means[:, None] - self.found.means[None, :])
        found: npt.NDArray[np.bool_] = gaps > self.critical * self.found.error
        return found


def all_pairs(found: Moments, confidence: float = 0.95, count: int = DRAWS, seed: int = 0) -> Family:
    """Intervals for the differences of all pairs that hold together; see the top of this file."""
    if not 0 < confidence < 1:
        raise UsageError(f"Confidence {confidence} came; expected a number between 0 and 1, such as 0.95.")
    critical = draws(found, count, seed).two_sided(confidence) if found.size > 1 else 0.0
    return Family(found, critical, confidence)


def letters(apart: npt.NDArray[np.bool_], means: npt.ArrayLike) -> list[str]:
    """A few letters for each classifier: those that share one cannot be told apart, those that share none can.

    The compact letter display of Piepho (2004, insert and absorb). The letter a stands for the group of the
    highest mean. One that belongs to two groups has both letters.

    Args:
        apart: (K, K) which pairs differ.
        means: (K,) for the order of the groups.
    """
    size = len(apart)
    groups = [frozenset(range(size))]
    for one in range(size):
        for other in range(one):
            if apart[one, other]:
                groups = _without_both(groups, one, other)
    ranks = np.argsort(np.argsort(-np.asarray(means, dtype=np.float64), kind="stable"), kind="stable")
    ordered = sorted(groups, key=lambda group: sorted(ranks[place] for place in group))
    names = [_name(number) for number in range(len(ordered))]
    return [
        "".join(name for name, group in zip(names, ordered, strict=True) if place in group) for place in range(size)
    ]


def _without_both(groups: Sequence[frozenset[int]], one: int, other: int) -> list[frozenset[int]]:
    """The groups, none of which holds both, and none of which lies within another."""
    cut = {
        part for group in groups for part in ((group - {one}, group - {other}) if {one, other} <= group else (group,))
    }
    return [group for group in cut if not any(group < larger for larger in cut)]


def _name(number: int) -> str:
    """a to z, then A to Z, then numbers in brackets."""
    return chr(97 + number) if number < 26 else chr(65 + number - 26) if number < 52 else f"({number + 1})"


def power(found: Moments, gap: float, confidence: float = 0.95, count: int = DRAWS, seed: int = 0) -> float:
    """How often a pair that truly differs by ``gap`` would be told apart, by what was found of items and seeds.

    The mean over all pairs, each with its own error: what a comparison of this size can see, whatever it saw.
    """
    if found.size < 2:
        return 0.0
    critical = draws(found, count, seed).two_sided(confidence)
    likely = draws(found, count, seed, cautious=False)
    return float((likely.ratios + gap / likely.errors > critical).mean())
