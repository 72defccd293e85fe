"""How far a score can be trusted: intervals for one rate, for a mean over seeds, and for a paired difference.

Three things make a score vary: the items that happened to be in the test part, the near copies among them
(they are right or wrong together, so they count for less than as many strangers), and the seed of the run.
Each function says which of them its interval covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError

Floats = npt.NDArray[np.float64]
Groups = Sequence[object] | npt.NDArray[np.generic]

PRIOR = 4.0  # about z squared at 95 %, the number of pseudo-items in Wilson's interval itself


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, both in the unit of the score."""

    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Scores of ``n`` runs: their mean, sample standard deviation and the interval of the mean.

    One run has no spread: ``sd`` and ``interval`` are None.
    """

    mean: float
    sd: float | None
    interval: Interval | None
    n: int


@dataclass(frozen=True)
class Estimate:
    """A mean over items and seeds with its interval, and what stands behind it.

    ``low`` to ``high`` covers the items (in ``clusters`` groups) and, where ``seeds`` is above 1, the seeds
    as well; with one seed it says nothing of how another would have done.
    """

    value: float
    low: float
    high: float
    standard_error: float
    items: int
    clusters: int
    seeds: int


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"Confidence {confidence} came; expected a number between 0 and 1, such as 0.95.")


def _t(confidence: float, degrees: float) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + confidence / 2))


def _score_interval(rate: float, n: float, z: float) -> Interval:
    """Wilson's interval: all p with |rate - p| <= z sqrt(p (1 - p) / n)."""
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    # At a rate of 0 and of 1 the interval ends there exactly; rounding would miss by some 1e-17.
    return Interval(0.0 if rate == 0 else max(0.0, middle - half), 1.0 if rate == 1 else min(1.0, middle + half))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval for a rate of independent yes-or-no outcomes; 0 to 1 where there are none.

    Wilson 1927. Unlike rate +- 2 standard errors it keeps its promise near 0 and 1 and with few items: no
    error in 300 messages still allows an error rate of 1.3 %. Covers the items, all of them strangers to each
    other.
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes of {n} came; expected 0 <= successes <= n.")
    if n == 0:
        return Interval(0.0, 1.0)
    return _score_interval(successes / n, n, NormalDist().inv_cdf(0.5 + confidence / 2))


def mean_spread(values: Sequence[float] | Floats, confidence: float = 0.95) -> Spread:
    """Mean of the scores of several runs, their standard deviation and the t-interval of the mean.

    Covers the seeds (or folds) that the runs differ in, on these very items; not other items.
    """
    _check_confidence(confidence)
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise UsageError(f"Scores of shape {scores.shape} came; expected at least one number.")
    mean, n = float(scores.mean()), scores.size
    if n == 1:
        return Spread(mean, None, None, 1)
    sd = float(scores.std(ddof=1))
    half = _t(confidence, n - 1) * sd / n**0.5
    return Spread(mean, sd, Interval(mean - half, mean + half), n)


def _numbered(groups: Groups | None, n: int) -> npt.NDArray[np.intp]:
    """Cluster names as numbers 0 .. G-1; without any, each is a group of its own."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise UsageError(f"{len(groups)} cluster ids came for {n}; expected one for each.")
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)


def clustered(errors: npt.ArrayLike, clusters: Groups | None = None, confidence: float = 0.95) -> Interval:
    """Interval for an error rate over items, and over seeds where there are several, near copies standing together.

    Wilson's interval with the number of items divided by the design effect: how much more the rate varies
    when whole clusters and seeds are drawn than when single items are (Kish 1965; for rates near 0 Korn and
    Graubard 1998), and with t for the degrees of freedom of that estimate in place of the normal quantile
    (`_Variance`). The effect is shrunk with the weight of ``PRIOR`` errors towards the worst there can be (each
    cluster right or wrong as one, with every seed), because a handful of errors cannot show how they cluster,
    and is never less than what single items show: seeds that agree are no more items, seeds that do not are.
    Unlike `crossed_mean`, which is for differences, it keeps its promise near 0 and 1: where each of three
    seeds errs on the same 2 % of 100 items, 95 of 100 intervals hold the true rate (88 of `crossed_mean`).

    Args:
        errors: (S, N) 1 for a wrong prediction, 0 for a right one, a row for each seed; or (N,) for one seed.
        clusters: (N,) the cluster of each item, such as its near-copy group; None where all stand alone.
        confidence: how often the interval is to hold the true rate.
    """
    _check_confidence(confidence)
    table = np.atleast_2d(np.asarray(errors, dtype=np.float64))
    if table.ndim != 2 or np.any((table < 0) | (table > 1)):
        raise UsageError(f"Errors of shape {table.shape} came; expected numbers from 0 to 1, one for each item.")
    items = table.shape[1]
    group = _numbered(clusters, items)
    if not items or not group.any():
        return Interval(0.0, 1.0)
    rate = float(table.mean())
    found = _Variance.of(table, group)
    sizes = np.bincount(group)
    worst = float((sizes**2).sum() / items)
    apart = rate * (1 - rate)  # the variance of one item
    alone = float(table.mean(axis=0).var()) / apart if apart else 1.0
    effect = max(alone, (found.total * items**2 + PRIOR * worst) / (apart * items + PRIOR))
    return _score_interval(rate, items / effect, _t(confidence, found.degrees))


@dataclass(frozen=True)
class _Variance:
    """The variance of a mean over seeds and clusters of items, see `crossed_mean`.

    Attributes:
        total: of both sources. ``by_cluster``: of the clusters alone.
        degrees: of freedom of ``total``.
    """

    total: float
    by_cluster: float
    degrees: float

    @classmethod
    def of(cls, table: Floats, column: npt.NDArray[np.intp]) -> _Variance:
        """Of a ``table`` (S, N), a row for each seed, with the cluster number of each column."""
        columns, rows = int(column.max()) + 1, len(table)  # clusters G, seeds S
        share = np.bincount(column) / table.shape[1]  # (G,)
        cells = np.zeros((rows, columns))  # (S, G) what each adds to the mean, less its share of the mean
        np.add.at(cells, (np.arange(rows)[:, None], column), (table - table.mean()) / table.size)

        by_column = columns / (columns - 1) * float((cells.sum(axis=0) ** 2).sum())
        by_row = interaction = 0.0
        if rows > 1:
            by_row = rows / (rows - 1) * float((cells.sum(axis=1) ** 2).sum())
            rest = cells - np.outer(cells.sum(axis=1), share) - cells.sum(axis=0) * (1 / rows)
            interaction = rows * columns / ((rows - 1) * (columns - 1)) * float((rest**2).sum())
        total = max(by_row + by_column - interaction, by_column)

        doubt = by_column**2 / (columns - 1)
        if rows > 1:
            doubt += by_row**2 / (rows - 1) + interaction**2 / ((rows - 1) * (columns - 1))
        fewest = min(rows, columns) - 1 if rows > 1 else columns - 1
        return cls(total, by_column, max(total**2 / doubt, fewest) if doubt else columns - 1)


def crossed_mean(
    values: npt.ArrayLike,
    clusters: Groups | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Mean over items and seeds, with an interval that holds for other items and other seeds alike.

    Items and seeds are crossed: every seed meets every item. Taking the S N cells for independent would take
    three runs over the same 300 messages for 900 messages. The variance of the mean has two sources, seeds
    and clusters of items, and each one's estimate holds the interaction of both, which is taken off once (the
    random-effects model of two crossed factors; Cameron, Gelbach and Miller 2011 for clusters)::

        variance = by_seed + by_cluster - interaction, at least by_cluster

    The interval is value +- t sqrt(variance), t with Satterthwaite's (1946) degrees of freedom: three seeds
    are few, and where seeds matter the interval has to show it. The pigeonhole bootstrap (Owen 2007)
    resamples the same two factors, but counts the interaction up to three times: in simulations of five seeds
    its intervals were 15 to 40 % wider than these, which keep their promise.

    Added is the variance of half a pseudo-item on either side (after Agresti and Min 2005), so that two
    classifiers that happen to agree on every item are not called equal for certain; the less, the less seeds
    agree on items.

    Args:
        values: (S, N) one row for each seed, one column for each item; or (N,) for one seed. Costs without a bound in
            units of the usual cost, since a pseudo-item is 1.
        clusters: (N,) the cluster of each item; None where all stand alone.
        confidence: how often the interval is to hold the true mean.

    Raises:
        UsageError: there are no values, or all items are in one cluster.
    """
    _check_confidence(confidence)
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or not table.size:
        raise UsageError(f"Values of shape {table.shape} came; expected (seeds, items), at least one of each.")
    column = _numbered(clusters, table.shape[1])
    columns = int(column.max()) + 1
    if columns < 2:
        raise UsageError("All items are in one cluster; expected two at least: one says nothing of others.")
    mean = float(table.mean())
    found = _Variance.of(table, column)

    share = np.bincount(column) / table.shape[1]  # (G,)
    alone = float((share**2).sum())  # 1 / the number of items that the clusters are worth
    persistent = found.by_cluster / (float(table.var()) * alone) if table.var() else 1.0
    if not 1e-9 < persistent < 1.0:  # nothing differs, or what does cancels within each cluster
        persistent = 1.0
    error = (found.total + persistent * alone**2) ** 0.5
    half = _t(confidence, found.degrees) * error
    return Estimate(mean, mean - half, mean + half, error, table.shape[1], columns, len(table))


def cost_interval(costs: npt.ArrayLike, clusters: Groups | None, usual: float, *, share: bool) -> Interval:
    """Interval for a mean cost over items and seeds, never below 0.

    Args:
        costs: (S, N) one row for each seed; or (N,) for one seed.
        clusters: (N,) the cluster of each item; None where all stand alone.
        usual: the cost that counts as 1 where costs have no bound, not 0: usually their mean.
        share: whether costs are 0 to 1, so that the interval is `clustered`; else it is that of `crossed_mean`.
    """
    if share:
        return clustered(costs, clusters)
    found = crossed_mean(np.asarray(costs) / usual, clusters)
    return Interval(max(0.0, found.low * usual), found.high * usual)


def paired_difference(
    a_correct: npt.ArrayLike,
    b_correct: npt.ArrayLike,
    clusters: Groups | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Accuracy of classifier a minus that of b on the same items, with an interval over items and seeds.

    Paired: what is hard for both cancels, so the interval is narrower than two separate ones suggest. It is
    one interval for one pair chosen beforehand; whoever looks at many pairs, or at the best, has to correct
    for that. See `crossed_mean` for the method.

    Args:
        a_correct: (S, N) 1 where a's run with that seed was right on that item; (N,) for one seed.
        b_correct: the same for b, with the same items and as many seeds.
        clusters: (N,) the near-copy group of each item; None where all stand alone.
        confidence: how often the interval is to hold the true difference.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (a_correct, b_correct))
    if a.shape != b.shape:
        raise UsageError(f"Results of shapes {a.shape} and {b.shape} came; expected the same items and seeds.")
    return crossed_mean(a - b, clusters, confidence)
