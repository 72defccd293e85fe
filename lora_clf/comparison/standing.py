"""Where each contender stands: scores with intervals, costs, and what can be told from what.

Differences are paired: the same rows, the same seeds. Their intervals hold for other rows and other seeds alike
(`evaluation.intervals.crossed_mean`) and are widened for the number of pairs that could have been compared,
because which one is best is found out from the same rows. Shapes: S seeds, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.evaluation.intervals import Interval, clustered, crossed_mean, mean_spread
from lora_clf.metrics.classification import summarise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.comparison.comparison import Comparison, Pool

CONFIDENCE = 0.95
Arrays = Sequence["NDArray[np.float64]"]


@dataclass(frozen=True)
class Score:
    """A mean over seeds and rows with its interval; ``sd`` is the deviation between single runs."""

    mean: float
    low: float
    high: float
    sd: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Average:
    """A mean over seeds that has no interval over rows; ``sd`` is the deviation between seeds."""

    mean: float
    sd: float | None = None
    low: None = None
    high: None = None


@dataclass(frozen=True)
class Standing:
    """One row of the table.

    Attributes:
        kind: "strategy" or "baseline".
        seeds: complete seeds behind the figures; 1 for a baseline that draws nothing.
        accuracy: with its interval over rows and seeds.
        macro_f1: without one, as it is no mean over rows.
        hard: accuracy on the rows that the data marks as hard, where it does.
        recall, false_positives: of the positive class; share of it found, share of the others taken for it.
        scores: all of `metrics.summarise`, mean over seeds; the confusion matrix summed.
        seconds, cold_seconds: training, mean over cells; None for a baseline without training.
        peak_memory_bytes: the most of any cell.
        to_best, to_baseline: accuracy minus that of the best strategy and of the strongest baseline, as
            shares.
        tied: whether it cannot be told from the best strategy.
        tuning_seconds: of choosing its hyperparameters, in no other figure; None without tuning.
    """

    label: str
    kind: str
    seeds: int
    accuracy: Score
    macro_f1: Average
    hard: Score | None
    recall: Score | None
    false_positives: Score | None
    scores: dict[str, Any]
    validation_accuracy: float | None
    trainable_parameters: int | None
    share: float | None
    adapter_bytes: int | None
    tensor_bytes: int | None
    seconds: float | None
    cold_seconds: float | None
    peak_memory_bytes: int | None
    training_memory_bytes: int | None
    device_memory_bytes: int | None
    to_best: Score | None = None
    to_baseline: Score | None = None
    tied: bool = False
    best: bool = False
    tuning_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def standings_of(comparison: Comparison) -> list[Standing]:
    """One row for each contender and baseline that has a complete seed."""
    pools = comparison.pools
    strategies = [c.label for c in comparison.plan.contenders if c.label in pools]
    baselines = [label for label in pools if label not in strategies]
    smallest = {o.label: o.trainable_parameters for o in comparison.outcomes}

    def rank(label: str) -> tuple[float, int]:
        # Rounded: of two that are right equally often the smaller is the better one.
        return round(_mean_accuracy(pools[label]), 12), -smallest.get(label, 0)

    best = max(strategies, key=rank, default=None)
    rival = comparison.rival
    compared = len(strategies) + (1 if rival else 0)
    # The best is picked from the same rows, so every pair counts as one that was looked at.
    confidence = 1 - (1 - CONFIDENCE) / max(1, compared * (compared - 1) // 2)
    rows = []
    for label in [*strategies, *baselines]:
        to_best = (
            _difference(comparison, pools[label], pools[best], confidence)
            if best is not None and label != best
            else None
        )
        to_baseline = (
            _difference(comparison, pools[label], pools[rival], confidence)
            if rival is not None and label in strategies
            else None
        )
        tied = label in strategies and to_best is not None and to_best.high >= 0
        rows.append(
            Standing(
                label=label,
                kind="strategy" if label in strategies else "baseline",
                **_scores(comparison, pools[label]),
                **_costs(comparison, label),
                to_best=to_best,
                to_baseline=to_baseline,
                tied=tied,
                best=label == best,
                tuning_seconds=comparison.tuning_seconds(label),
            )
        )
    return rows


def rival_of(comparison: Comparison) -> str | None:
    """The baseline that got most right, the first of equals; None where there is none."""
    strategies = {contender.label for contender in comparison.plan.contenders}
    baselines = {label: pool for label, pool in comparison.pools.items() if label not in strategies}
    return max(baselines, key=lambda label: round(_mean_accuracy(baselines[label]), 12), default=None)


def _mean_accuracy(pool: Pool) -> float:
    return float(np.mean([part.correct.mean() for part in pool.predictions]))


def _scores(comparison: Comparison, pool: Pool) -> dict[str, Any]:
    """The score fields of a `Standing`."""
    names, positive = comparison.labels, comparison.positive_label
    each = [summarise(part.labels, part.probabilities, names, positive) for part in pool.predictions]
    values = [part.correct.astype(np.float64) for part in pool.predictions]
    rows = [part.rows for part in pool.predictions]
    accuracy = _score(comparison, values, rows)
    f1 = mean_spread([float(one["macro_f1"]) for one in each])  # type: ignore[arg-type]
    found: dict[str, Any] = {
        "seeds": len(pool.seeds),
        "accuracy": Score(accuracy.mean, accuracy.low, accuracy.high, mean_spread(pool.spreads).sd, accuracy.n),
        "macro_f1": Average(f1.mean, f1.sd),
        "hard": None,
        "recall": None,
        "false_positives": None,
        "scores": _averaged(each),
    }
    if comparison.hard_rows:
        hard = np.array(sorted(comparison.hard_rows))
        found["hard"] = _score(comparison, values, rows, [np.isin(row, hard) for row in rows])
    if positive is not None:
        column = names.index(positive)
        said = [(part.probabilities.argmax(axis=1) == column).astype(np.float64) for part in pool.predictions]
        truly = [part.labels == column for part in pool.predictions]
        found["recall"] = _score(comparison, said, rows, truly)
        found["false_positives"] = _score(comparison, said, rows, [~mask for mask in truly])
    return found


def _costs(comparison: Comparison, label: str) -> dict[str, Any]:
    """The cost fields of a `Standing`."""
    cells = comparison.outcomes_of(label)
    if cells:
        first = cells[0]
        devices = [c.device_memory_bytes for c in cells if c.device_memory_bytes is not None]
        return {
            "validation_accuracy": float(np.mean([c.scores["validation"]["accuracy"] for c in cells])),
            "trainable_parameters": first.trainable_parameters,
            "share": first.share,
            "adapter_bytes": first.adapter_bytes,
            "tensor_bytes": first.tensor_bytes,
            "seconds": float(np.mean([c.seconds for c in cells])),
            "cold_seconds": float(np.mean([c.cold_seconds for c in cells])),
            "peak_memory_bytes": max(c.peak_memory_bytes for c in cells),
            "training_memory_bytes": max(c.training_memory_bytes for c in cells),
            "device_memory_bytes": max(devices, default=None),
        }
    mine = [outcome for outcome in comparison.baselines if outcome.label == label]
    seconds = float(np.mean([outcome.baseline.seconds for outcome in mine]))
    nothing = ("share", "tensor_bytes", "peak_memory_bytes", "training_memory_bytes", "device_memory_bytes")
    return {
        **dict.fromkeys(nothing),
        "validation_accuracy": float(np.mean([outcome.validation_accuracy for outcome in mine])),
        "trainable_parameters": round(float(np.mean([outcome.baseline.parameters for outcome in mine]))),
        "adapter_bytes": round(float(np.mean([outcome.baseline.bytes for outcome in mine]))),
        "seconds": seconds,
        "cold_seconds": seconds,
    }


def _score(comparison: Comparison, values: Arrays, rows: Sequence[NDArray[np.int64]], masks: Any = None) -> Score:
    """Mean and interval of 0-or-1 ``values``, one array for each seed, of the rows in ``masks``."""
    if masks is not None:
        values = [value[mask] for value, mask in zip(values, masks, strict=True)]
        rows = [row[mask] for row, mask in zip(rows, masks, strict=True)]
    if not sum(len(value) for value in values):
        return Score(0.0, 0.0, 1.0, n=0)
    mean = float(np.mean([value.mean() for value in values if len(value)]))
    if len(values) == 1:
        wrong = clustered(1 - values[0], comparison.clusters(rows[0]), CONFIDENCE)
        return Score(mean, 1 - wrong.high, 1 - wrong.low, n=len(values[0]))
    interval = _crossed(comparison, values, rows, CONFIDENCE)
    n = len(np.unique(np.concatenate(rows)))
    return Score(mean, max(0.0, interval.low), min(1.0, interval.high), n=n)


def _difference(comparison: Comparison, one: Pool, other: Pool, confidence: float) -> Score:
    """Accuracy of ``one`` minus that of ``other`` on the same rows and seeds."""
    pairs = []
    for seed, part in zip(one.seeds, one.predictions, strict=True):
        if seed in other.seeds:
            pairs.append((part, other.predictions[other.seeds.index(seed)]))
        elif len(other.seeds) == 1 and np.array_equal(other.predictions[0].rows, part.rows):
            pairs.append((part, other.predictions[0]))  # a baseline that draws nothing: the same for each seed
    if not pairs and len(one.seeds) == 1:
        pairs = [
            (one.predictions[0], part)
            for part in other.predictions
            if np.array_equal(part.rows, one.predictions[0].rows)
        ]
    if not pairs:
        return Score(_mean_accuracy(one) - _mean_accuracy(other), -1.0, 1.0)
    values = [a.correct.astype(np.float64) - b.correct for a, b in pairs]
    interval = _crossed(comparison, values, [a.rows for a, _ in pairs], confidence)
    return Score(float(np.mean([v.mean() for v in values])), interval.low, interval.high, n=len(values[0]))


def _crossed(comparison: Comparison, values: Arrays, rows: Sequence[NDArray[np.int64]], confidence: float) -> Interval:
    """The interval of a mean over seeds and rows; the widest there is where nothing can be said."""
    if all(np.array_equal(rows[0], other) for other in rows):
        groups = comparison.clusters(rows[0])
        if len(np.unique(groups)) < 2:
            return Interval(-1.0, 1.0)
        found = crossed_mean(np.stack(values), groups, confidence=confidence)
        return Interval(found.low, found.high)
    # Each seed has a split of its own: a row that was tested twice is one cluster, and the seeds' own spread
    # is the other interval; the wider of the two is given.
    groups = comparison.clusters(np.concatenate(rows))
    if len(np.unique(groups)) < 2:
        return Interval(-1.0, 1.0)
    found = crossed_mean(np.concatenate(values), groups, confidence=confidence)
    spread = mean_spread([float(value.mean()) for value in values if len(value)], confidence).interval
    if spread is not None and spread.high - spread.low > found.high - found.low:
        return spread
    return Interval(found.low, found.high)


def _averaged(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several summaries as one: numbers averaged, counts summed."""
    first = each[0]
    mean: dict[str, Any] = {}
    for key, value in first.items():
        values = [one[key] for one in each]
        if key == "confusion_matrix":
            mean[key] = np.sum(values, axis=0).tolist()
        elif key == "per_class":
            mean[key] = {
                name: {score: float(np.mean([v[name][score] for v in values])) for score in scores}
                for name, scores in value.items()
            }
        elif isinstance(value, float):
            mean[key] = float(np.mean(values))
        else:
            mean[key] = value
    return mean


def verdict_of(comparison: Comparison) -> list[str]:
    """The answer for people: the first sentence says which strategy, how sure and what cannot be told from it."""
    rows = comparison.standings
    strategies = [row for row in rows if row.kind == "strategy"]
    if not strategies:
        return ["No strategy has a complete run, so there is nothing to compare."]
    best = next(row for row in rows if row.best)
    seeds = f", {best.seeds} seeds" if best.seeds > 1 else ""
    first = (
        f"{best.label} got most right: {percent(best.accuracy.mean)} of {best.accuracy.n:,} test rows "
        f"({range_of(best.accuracy)}{seeds})"
    )
    tied = [row for row in strategies if row.tied]
    worse = [row.label for row in strategies if not row.tied and not row.best]
    lines = []
    if tied:
        gap = -min(row.to_best.low for row in tied if row.to_best is not None) * 100
        first += f", but this data cannot tell it from {listed([row.label for row in tied])}"
        lines.append(f"That does not make them equal: a gap of up to {gap:.1f} points remains possible.")
        if worse:
            lines.append(f"{listed(worse)} {_verb(worse, 'is', 'are')} worse by more than chance explains.")
    elif worse:
        first += f", more than {listed(worse)} by more than chance explains"
    lines += _against_baseline(strategies, next((row for row in rows if row.label == comparison.rival), None))
    if best.seeds == 1:
        lines.append("One seed says nothing of how much another would differ: use --seeds 3 or more.")
    return [f"{first}.", *lines]


def _against_baseline(strategies: Sequence[Standing], rival: Standing | None) -> list[str]:
    """Who beats the strongest baseline by more than the interval, and who does not."""
    if rival is None:
        return []
    gaps = {row.label: row.to_baseline for row in strategies if row.to_baseline is not None}
    above = [label for label, gap in gaps.items() if gap.low > 0]
    below = [label for label, gap in gaps.items() if gap.high < 0]
    level = [label for label in gaps if label not in {*above, *below}]
    name = f"{rival.label} ({percent(rival.accuracy.mean)})"
    if len(gaps) > 1 and not below and not (above and level):
        whole = "Every strategy beats" if above else "No strategy beats"
        return [f"{whole} {name} by more than the interval."]
    lines = []
    if above:
        lines.append(f"{listed(above)} {_verb(above, 'beats', 'beat')} {name} by more than the interval.")
    if level:
        lines.append(f"{listed(level)} {_verb(level, 'does', 'do')} not beat {name} by more than the interval.")
    if below:
        lines.append(f"{listed(below)} {_verb(below, 'is', 'are')} worse than {name}.")
    return lines


def _verb(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{share * 100:.{digits}f} %"


def range_of(score: Score) -> str:
    """The interval in words."""
    return f"95 % interval {score.low * 100:.1f} to {score.high * 100:.1f} %"
