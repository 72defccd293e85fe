"""Where each strategy stands by its task's own score: intervals, all pairs at once, and which one to take.

The statistics are those of accuracies (`lora_clf.evaluation`). Where a cost has no bound, an error of the usual size
stands in the place of a wrong answer: each strategy's own mean cost. Near copies count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.price import Price, from_cheapest
from lora_clf.comparison.task_comparison import BASELINES, TaskComparison, TaskRun
from lora_clf.evaluation.intervals import cost_interval, mean_spread
from lora_clf.evaluation.noninferiority import shortfalls
from lora_clf.evaluation.simultaneous import Moments, all_pairs, letters, moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIVAL = BASELINES[1]


@dataclass(frozen=True)
class Gap:
    """How much better one is than another, in the unit of the score; above 0 is better."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """One row of the table.

    Attributes:
        score: the primary score on test rows, mean over seeds, with its 95 % interval over rows and seeds.
        sd: the deviation between seeds; None with one.
        scores: all numbers of the task, means over seeds.
        group: letters; those that share one cannot be told apart.
        to_best, to_rival: gaps to the best strategy and to TF-IDF.
        bound: how far it can be below the best strategy, by validation rows, 95 % for all at once; None for baselines.
        within: whether that is within the margin.
    """

    label: str
    score: float
    low: float
    high: float
    sd: float | None
    scores: dict[str, float]
    group: str
    to_best: Gap | None
    to_rival: Gap | None
    parameters: int | None
    bytes: int | None
    seconds: float
    peak_memory_bytes: int | None = None
    bound: float | None = None
    within: bool = False


@dataclass(frozen=True)
class TaskStanding:
    """The table and the answer.

    Attributes:
        places: strategies, then baselines.
        margin: what may be lost, in the unit of the score.
        chosen: the cheapest strategy that is shown to be within it; None where none is.
        best: the strategy of the best test score.
    """

    places: tuple[Place, ...]
    margin: float
    chosen: str | None
    best: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def standing_of(found: TaskComparison) -> TaskStanding:
    """The table of a comparison, and which strategy to take."""
    measure, strategies = found.task.primary, found.strategies
    # It is the data's own: what is found must be the same in metres and in kilometres, whoever else takes part.
    unit = found.task.unit(found.task.targets(found.test.labels))
    groups = found.data.groups(found.test)
    several = len(np.unique(groups)) > 1  # of one group alone no interval can be had
    members = sorted([*strategies, *(label for label in found.labels if label == RIVAL)])
    family = all_pairs(_moments(found, members, groups, unit, "costs")) if several else None
    named = dict(zip(members, letters(family.apart, family.found.means), strict=True)) if family else {}
    means = {label: float(np.mean([np.mean(run.costs) for run in found.of(label)])) for label in found.labels}
    best = min(strategies, key=lambda label: (round(means[label] / unit, 12), found.of(label)[0].parameters or 0))

    def gap(label: str, other: str) -> Gap | None:
        if family is None or label == other or not {label, other} <= set(members):
            return None
        mean, interval = family.difference(members.index(label), members.index(other))
        if measure.share:
            return Gap(mean, max(-1.0, interval.low), min(1.0, interval.high))
        return Gap(mean * unit, interval.low * unit, interval.high * unit)

    margin = found.margin / 100
    if not measure.share:  # a point is a hundredth of what the constant answer costs
        margin *= float(np.mean(found.of(BASELINES[0])[0].validation_costs)) if found.of(BASELINES[0]) else 0.0
    bounds = _bounds(found, found.data.groups(found.validation), unit)
    places = []
    for label in found.labels:
        runs = found.of(label)
        table = np.array([run.costs for run in runs])
        low, high = (0.0, 1.0) if measure.share else (0.0, float(table.max()))
        if several:
            cost = cost_interval(table, groups, means[label] or unit, share=measure.share)
            low, high = cost.low, cost.high
        score, ends = means[label], (low, high)
        if measure.higher:
            score, ends = 1 - score, (1 - high, 1 - low)
        bound = bounds.get(label)
        places.append(
            Place(
                label=label,
                score=score,
                low=ends[0],
                high=ends[1],
                sd=mean_spread([float(np.mean(run.costs)) for run in runs]).sd,
                scores=_numbers([run.scores for run in runs]),
                group=named.get(label, ""),
                to_best=gap(label, best),
                to_rival=gap(label, RIVAL),
                parameters=runs[0].parameters,
                bytes=runs[0].bytes,
                seconds=float(np.mean([run.seconds for run in runs])),
                peak_memory_bytes=max((run.peak_memory_bytes or 0 for run in runs), default=0) or None,
                bound=bound,
                within=bound is not None and bound <= margin,
            )
        )
    within = {place.label: place for place in places if place.within}
    chosen = from_cheapest({label: _price(place, found.of(label)) for label, place in within.items()})
    return TaskStanding(tuple(places), margin, chosen[0] if chosen else None, best)


def _price(place: Place, runs: Sequence[TaskRun]) -> Price:
    """What a strategy costs, its runs on the validation part beside it."""
    return Price(place.parameters or 0, place.seconds, np.array([run.validation_costs for run in runs]).tobytes())


def _moments(
    found: TaskComparison, members: Sequence[str], groups: NDArray[np.int64], unit: float, what: str
) -> Moments:
    """Means of -cost / unit, a baseline's one answer counting for every seed, and what they vary by."""
    seeds = max(len(found.of(label)) for label in members)
    rows, usual = [], []
    for label in members:
        table = np.array([getattr(run, what) for run in found.of(label)])
        rows.append(-np.broadcast_to(table, (seeds, table.shape[1])).reshape(-1) / unit)
        usual.append(1.0 if found.task.primary.share else -float(rows[-1].mean()) or 1.0)
    return moments(np.array(rows), np.tile(groups, seeds), np.repeat(np.arange(seeds), len(groups)), usual)


def _bounds(found: TaskComparison, groups: NDArray[np.int64], unit: float) -> dict[str, float]:
    """How far each strategy can be below the best, by the validation part; nothing where there is none to choose."""
    if len(found.strategies) < 2 or len(np.unique(groups)) < 2:
        return {}
    names = sorted(found.strategies)
    losses = shortfalls(_moments(found, names, groups, unit, "validation_costs"))
    most = 1.0 if found.task.primary.share else np.inf
    return {name: min(most, float(bound) * unit) for name, bound in zip(names, losses.bounds, strict=True)}


def _numbers(each: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The plain numbers of several assessments, averaged."""
    return {
        name: float(np.mean([one[name] for one in each])) for name, value in each[0].items() if isinstance(value, float)
    }


def verdict_of(found: TaskComparison) -> list[str]:
    """The answer for people; the first sentence says what to take."""
    if not found.strategies:
        return ["No strategy has a complete run, so there is nothing to compare."]
    standing, measure = found.standing, found.task.primary
    by_label = {place.label: place for place in standing.places}
    margin, best = figure(standing.margin, measure.share), by_label[standing.best]
    rows = len(set(found.validation.rows))
    beaten = [place.label for place in standing.places if place.to_rival is not None and place.to_rival.low > 0]
    behind = [place.label for place in standing.places if place.to_rival is not None and place.to_rival.high < 0]
    said = []
    if len(found.strategies) < 2:
        said.append(f"{best.label} is the only strategy here, so there is none to choose.")
    elif standing.chosen is None:
        said.append(
            f"This data cannot decide which strategy to take: of none can it be shown, on {rows:,} validation rows, "
            f"that it is within {margin} of the best."
        )
    else:
        chosen = by_label[standing.chosen]
        take = f"{'Of the strategies take' if chosen.label in behind else 'Take'} {chosen.label}"
        said.append(
            f"{take}: it trains {chosen.parameters:,} numbers and is at most "
            f"{figure(chosen.bound or 0.0, measure.share)} of {measure.title} worse than the best strategy, with 95 % "
            f"confidence on {rows:,} validation rows; it is the cheapest that is shown to be within {margin}."
        )
    said.append(
        f"On {len(found.test):,} test rows {best.label} has the best {measure.title} of the strategies: "
        f"{figure(best.score, measure.share)} (95 % interval {figure(best.low, measure.share)} to "
        f"{figure(best.high, measure.share)})."
    )
    if RIVAL in by_label:
        rival = f"{RIVAL} ({figure(by_label[RIVAL].score, measure.share)})"
        said.append(
            f"Better than {rival} by more than the interval: {', '.join(beaten)}."
            if beaten
            else f"No strategy is better than {rival} by more than the interval."
        )
        if behind:
            said.append(f"{rival} is better than {', '.join(behind)} by more than the interval: it is the one to take "
                        "in their place.")  # fmt: skip
    if len({run.seed for run in found.runs if run.label in found.strategies}) < 2:
        said.append("One seed says nothing of how much another would differ: use --seeds 3 or more.")
    return said


def figure(value: float, share: bool) -> str:
    """A score for people."""
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"
