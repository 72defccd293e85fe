"""Which strategy to take: the cheapest that is shown to be within a margin of the best, on the validation part.

"Not significantly different" is no "as good": the fewer the data, the cheaper the strategy that would be recommended.
So the burden of proof is turned round: what may be recommended has a 95 % bound of its loss against the best within the
margin (`lora_clf.evaluation.noninferiority`). The test part has no say in it; its figures would be too good for what
they had chosen. The validation part chose the best epoch of each run, so its accuracies are a little too high as well,
and more so for a strategy that trains in many different epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.measurements import Measurements, groups_of, validated
from lora_clf.comparison.price import Price, from_cheapest
from lora_clf.errors import UsageError
from lora_clf.evaluation.noninferiority import Shortfalls, items_needed, shortfalls

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import Comparison

MARGIN = 1.0  # points
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Candidate:
    """One strategy as the recommendation sees it; accuracies and losses are shares on the validation part.

    Attributes:
        accuracy: mean over seeds.
        loss: the best accuracy less its own, as observed.
        bound: what the true loss against the true best stays below, with 95 % confidence for all strategies at once.
        within: whether that is within the margin.
        rows_needed: validation rows at which it would be, about, if what was seen goes on; None where it is already,
            or where no number of rows is enough.
    """

    label: str
    trainable_parameters: int
    cold_seconds: float
    accuracy: float
    loss: float
    bound: float
    within: bool
    rows_needed: int | None


@dataclass(frozen=True)
class Recommendation:
    """What to take, and how sure that is.

    Attributes:
        margin: in points of accuracy.
        label: the strategy to take; None where it cannot be decided.
        best: the highest validation accuracy; of equals the cheapest.
        rows: validation rows that each seed was measured on.
        seeds: runs of each strategy.
        labelled: all labelled rows, of which the validation part is a fixed share.
        labelled_needed: how many of them would be needed, about, to show of one (where the best is to be taken: of a
            cheaper one) that it is within the margin; None where that is decided, or more rows alone would not decide.
        candidates: from the cheapest to the dearest (`from_cheapest`): trainable parameters, then cold seconds.
    """

    margin: float
    label: str | None
    best: str
    rows: int
    seeds: int
    labelled: int
    labelled_needed: int | None
    candidates: tuple[Candidate, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def candidate(self, label: str) -> Candidate:
        """The candidate of that name."""
        return next(one for one in self.candidates if one.label == label)


def check_margin(margin: float) -> float:
    """``margin`` itself.

    Raises:
        UsageError: it is no number of points.
    """
    if not 0 < margin <= 100:
        raise UsageError(f"--margin {margin:g}: expected points of accuracy, more than 0 and at most 100, such as 1.")
    return margin


def recommendation_of(comparison: Comparison) -> Recommendation | None:
    """What to take; None without two strategies with a seed in common, or where all validation rows count as one."""
    labels = sorted(c.label for c in comparison.plan.contenders if c.label in comparison.pools)
    if len(labels) < 2:
        return None
    measured = validated(comparison, labels)
    found = None if measured is None else measured.moments(_groups(comparison))
    if measured is None or found is None:
        return None
    margin = float(comparison.facts.get("margin", MARGIN))
    losses = shortfalls(found, CONFIDENCE)
    candidates = [_candidate(comparison, label, losses, place, margin / 100) for place, label in enumerate(labels)]
    candidates = _by_price(comparison, candidates, measured)
    top = max(round(one.accuracy, 12) for one in candidates)
    best = next(one for one in candidates if round(one.accuracy, 12) == top)
    chosen = next((one for one in candidates if one.within), None)
    asked = candidates if chosen is None else candidates[: candidates.index(best)]
    labelled = sum(len(part) for part in next(iter(comparison.datasets.values())).parts.values())
    needed = None
    if chosen is None or (chosen is best and best is not candidates[0]):
        counts = [one.rows_needed for one in asked if one.rows_needed is not None]
        needed = round(min(counts) * labelled / found.counted) if counts else None
    return Recommendation(
        margin=margin,
        label=None if chosen is None else chosen.label,
        best=best.label,
        rows=found.counted,
        seeds=found.seeds,
        labelled=labelled,
        labelled_needed=needed,
        candidates=tuple(candidates),
    )


def counts_as_one(comparison: Comparison) -> bool:
    """Whether there are strategies to choose from, and all validation rows are of one group: so nothing is shown."""
    strategies = [c.label for c in comparison.plan.contenders if c.label in comparison.pools]
    return len(strategies) > 1 and len(set(_groups(comparison).values())) == 1


def _groups(comparison: Comparison) -> dict[int, int]:
    return groups_of(comparison.data, [data.validation for data in comparison.datasets.values()])


def _candidate(comparison: Comparison, label: str, losses: Shortfalls, place: int, margin: float) -> Candidate:
    cells = comparison.outcomes_of(label)
    within = bool(losses.bounds[place] <= margin)
    needed = math.inf if within else items_needed(losses, place, margin)
    return Candidate(
        label=label,
        trainable_parameters=cells[0].trainable_parameters,
        cold_seconds=float(np.mean([cell.cold_seconds for cell in cells])),
        accuracy=float(losses.found.means[place]),
        loss=float(losses.observed[place]),
        bound=min(1.0, float(losses.bounds[place])),
        within=within,
        rows_needed=math.ceil(needed) if math.isfinite(needed) else None,
    )


def _by_price(comparison: Comparison, candidates: Sequence[Candidate], measured: Measurements) -> list[Candidate]:
    """From the cheapest to the dearest, `from_cheapest` in the order of the plan."""
    right = dict(zip(measured.labels, measured.correct, strict=True))
    named = {one.label: one for one in candidates}
    prices = {
        label: Price(named[label].trainable_parameters, named[label].cold_seconds, right[label].tobytes())
        for label in (contender.label for contender in comparison.plan.contenders)
        if label in named
    }
    return [named[label] for label in from_cheapest(prices)]


def sentences_of(found: Recommendation) -> list[str]:
    """The recommendation for people; the first sentence is the answer."""
    margin = f"{found.margin:g} point{'' if found.margin == 1 else 's'}"
    best = found.candidate(found.best)
    on = f"{found.rows:,} validation rows"
    if found.label is None:
        return [
            f"This data cannot decide which strategy to take: of none can it be shown, on {on}, that it is within "
            f"{margin} of the best{_would(found)}.",
            f"Until then {best.label} has the highest validation accuracy, and may be up to {best.bound * 100:.1f} "
            "points below the true best.",
        ]
    chosen = found.candidate(found.label)
    price = f"it trains {chosen.trainable_parameters:,} numbers"
    if chosen.label != best.label:
        return [
            f"Take {chosen.label}: {price} and is at most {chosen.bound * 100:.1f} points below the best strategy, "
            f"with 95 % confidence on {on}; it is the cheapest that is shown to be within {margin}."
        ]
    if found.candidates[0].label == best.label:
        return [f"Take {best.label}: it is the cheapest and has the highest validation accuracy, on {on}."]
    cheaper = found.candidates[: found.candidates.index(best)]
    if all(one.loss * 100 >= found.margin for one in cheaper):
        return [
            f"Take {best.label}: it has the highest validation accuracy, on {on}, and every cheaper strategy is seen "
            f"{margin} or more below it."
        ]
    return [
        f"Take {best.label}, as it has the highest validation accuracy: of no cheaper strategy can it be shown, on "
        f"{on}, that it is within {margin} of the best{_would(found)}."
    ]


def _would(found: Recommendation) -> str:
    """What would decide it, behind a sentence that says that it is not decided."""
    if found.labelled_needed is not None:
        return f"; about {_round(found.labelled_needed)} labelled rows would decide it (there are {found.labelled:,})"
    if found.seeds < 2:
        return "; one seed says nothing of how much another would differ, use --seeds 3 or more"
    return (
        "; more rows alone would not decide it, as the seeds differ too much or the gap is too wide: use more --seeds"
    )


def _round(count: int) -> str:
    """Two digits: more would pretend to know."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"
