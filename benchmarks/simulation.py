"""Invented comparisons, in which it is known who is better: how often do the intervals err, and what do they find?

A run of strategy k with seed s has the true accuracy p_k + e_ks, e normal with the standard deviation of the seed
effect. It is right on item i where h_i + v_ki + l_ksi stays above the level that makes this so: h how easy the item is
for all, v the strategy's own view of it, l the luck of the run, all normal. So strategies err on much the same items,
as real ones do. Near copies share one item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_clf.evaluation.intervals import crossed_mean
from lora_clf.evaluation.noninferiority import shortfalls
from lora_clf.evaluation.simultaneous import Moments, all_pairs, moments

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """What is compared, and on how much.

    Attributes:
        strategies: K.
        rows: N test rows.
        seeds: S runs of each strategy.
        seed_sd: standard deviation of the accuracy of a run between seeds, as a share; one for all, or one for each.
        accuracy: of all strategies but the first.
        gap: by how much the first is better.
        copies: share of the rows that are a near copy of another one.
        view: standard deviation of a strategy's own view of an item, where that of the item itself is 1.
        luck: of a single run on an item, likewise.
    """

    strategies: int = 5
    rows: int = 300
    seeds: int = 3
    seed_sd: float | Sequence[float] = 0.0
    accuracy: float = 0.96
    gap: float = 0.0
    copies: float = 0.0
    view: float = 0.5
    luck: float = 0.5

    def draw(self, random: np.random.Generator) -> tuple[Floats, npt.NDArray[np.intp]]:
        """One comparison: (K, S, N) 1 where right, and (N,) the near-copy group of each row."""
        from scipy.special import ndtri

        count = max(2, round(self.rows * (1 - self.copies)))  # different items
        item = np.concatenate([np.arange(count), random.integers(0, count, self.rows - count)])
        rate = np.full((self.strategies, 1), self.accuracy)
        rate[0] += self.gap
        effect = np.broadcast_to(np.asarray(self.seed_sd, dtype=np.float64), (self.strategies,))[:, None]
        rate = rate + effect * random.standard_normal((self.strategies, self.seeds))
        spread = (1 + self.view**2 + self.luck**2) ** 0.5
        level = -ndtri(np.clip(rate, 1e-4, 1 - 1e-4)) * spread  # (K, S)
        ease = random.standard_normal(count) + self.view * random.standard_normal((self.strategies, 1, count))
        ease = ease + self.luck * random.standard_normal((self.strategies, self.seeds, count))
        return (ease > level[:, :, None]).astype(np.float64)[:, :, item], item


@dataclass(frozen=True)
class Measured:
    """What came of a design in ``repeats`` comparisons, as shares of them.

    Attributes:
        family_error: in which two strategies of equal true accuracy were told apart, whichever (with a gap: two of
            the equal ones, or the best and another the wrong way round).
        power: of the pairs of the best and another, those that were told apart the right way; None without a gap.
        recommendation_error: in which a strategy was said to be within 1 point of the best that is ``gap`` below it;
            None where the gap is smaller than that.
        bonferroni_error: as ``family_error``, for intervals of single pairs widened for their number; None where it
            was not asked for.
        bonferroni_power: likewise.
    """

    design: Design
    repeats: int
    family_error: float
    power: float | None = None
    recommendation_error: float | None = None
    bonferroni_error: float | None = None
    bonferroni_power: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


MARGIN = 0.01


def measure(design: Design, repeats: int, *, seed: int = 0, count: int = 1000, bonferroni: bool = False) -> Measured:
    """Draw ``repeats`` comparisons of a design and count errors and findings.

    Args:
        design: what is compared.
        repeats: how many comparisons.
        seed: of everything that is drawn.
        count: draws behind each critical value.
        bonferroni: whether the intervals of single pairs are counted too; slow for many strategies.
    """
    random = np.random.default_rng(seed)
    left, right = np.triu_indices(design.strategies, 1)
    tally = np.zeros(5)
    for _ in range(repeats):
        correct, groups = design.draw(random)
        found = moments_of(correct, groups)
        family = all_pairs(found, count=count, seed=int(random.integers(2**31)))
        tally[:2] += _judged(found.means[left] - found.means[right], family.apart[left, right], left, design.gap)
        if design.gap >= MARGIN:
            bounds = shortfalls(found, count=count, seed=int(random.integers(2**31))).bounds
            tally[2] += bool((bounds[1:] <= MARGIN).any())
        if bonferroni:
            tally[3:] += _judged(*_alone(correct, groups, left, right), left, design.gap)
    shares = [float(value) for value in tally / repeats]
    known = design.gap > 0
    return Measured(
        design,
        repeats,
        shares[0],
        shares[1] if known else None,
        shares[2] if design.gap >= MARGIN else None,
        shares[3] if bonferroni else None,
        shares[4] if bonferroni and known else None,
    )


def moments_of(correct: Floats, groups: npt.NDArray[np.intp]) -> Moments:
    """The moments of (K, S, N) results on the same N rows for each seed."""
    strategies, seeds, rows = correct.shape
    return moments(correct.reshape(strategies, -1), np.tile(groups, seeds), np.repeat(np.arange(seeds), rows))


def _judged(gaps: Floats, apart: npt.NDArray[np.bool_], left: npt.NDArray[np.intp], gap: float) -> Floats:
    """Whether anything was told apart that is equal, and the share of what differs that was told apart rightly."""
    real = (left == 0) & (gap > 0)
    wrong = apart & (~real | (gaps < 0))
    return np.array([float(wrong.any()), float((apart & (gaps > 0))[real].mean()) if real.any() else 0.0])


def _alone(
    correct: Floats, groups: npt.NDArray[np.intp], left: npt.NDArray[np.intp], right: npt.NDArray[np.intp]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Differences of all pairs, and which intervals of single pairs, widened by Bonferroni, leave out zero."""
    confidence = 1 - 0.05 / len(left)
    each = [
        crossed_mean(correct[one] - correct[other], groups.tolist(), confidence=confidence)
        for one, other in zip(left, right, strict=True)
    ]
    return np.array([e.value for e in each]), np.array([not e.low <= 0 <= e.high for e in each])
