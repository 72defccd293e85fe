"""Where each contender stands: scores with intervals, costs, and what can be told from what.

Differences are paired: the same rows, the same seeds. Their intervals hold for other rows and other seeds alike, and
for all pairs of strategies and the strongest baseline at once (`evaluation.simultaneous`), because which one is best is
found out from the same rows. Shapes: S seeds, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.measurements import tested
from lora_clf.evaluation.intervals import Interval, clustered, mean_spread
from lora_clf.evaluation.simultaneous import Moments, all_pairs, letters, power
from lora_clf.metrics.classification import summarise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.comparison.comparison import Comparison, Pool

CONFIDENCE = 0.95
POINTS = (1, 2)  # true differences whose chance to be found is told
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
        group: letters; those that share one cannot be told apart. Empty for baselines that take no part.
        recommended: whether the validation part says to take it (`recommendation`).
        flops: of the whole training, about (`training.flops`); None where its cost has no formula.
        texts_per_second: answered by the trained classifier, where that was measured.
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
    group: str = ""
    recommended: bool = False
    flops: float | None = None
    texts_per_second: float | None = None

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
    # Sorted, here and below: critical values come from draws, which are other ones in another order.
    members = sorted([*strategies, *([rival] if rival else [])])
    found = _moments(comparison, members)
    family = None if found is None else all_pairs(found, CONFIDENCE)
    groups = dict(zip(members, letters(family.apart, family.found.means), strict=True)) if family else {}
    chosen = None if comparison.recommendation is None else comparison.recommendation.label

    def gap(label: str, other: str | None) -> Score | None:
        if other is None or label == other:
            return None
        if label not in members:
            return None
        if family is None:
            return Score(_mean_accuracy(pools[label]) - _mean_accuracy(pools[other]), -1.0, 1.0)
        mean, interval = family.difference(members.index(label), members.index(other))
        return Score(mean, max(-1.0, interval.low), min(1.0, interval.high), n=family.found.counted)

    rows = []
    for label in [*strategies, *baselines]:
        to_best = gap(label, best)
        to_baseline = gap(label, rival) if label in strategies else None
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
                group=groups.get(label, ""),
                recommended=label == chosen,
            )
        )
    return rows


def _moments(comparison: Comparison, members: Sequence[str]) -> Moments | None:
    """What is known of the differences of ``members`` on the test part; None where nothing can be said."""
    measured = tested(comparison, members)
    return None if measured is None else measured.moments(comparison.groups)


def power_of(comparison: Comparison) -> dict[str, float] | None:
    """How often this comparison would tell two strategies apart that truly differ by 1 and by 2 points, as shares.

    By its own number of rows and seeds and the variances that were found, mean over pairs; None with one strategy.
    """
    strategies = sorted(c.label for c in comparison.plan.contenders if c.label in comparison.pools)
    found = _moments(comparison, strategies)
    if found is None or found.size < 2:
        return None
    return {f"{points:g}": power(found, points / 100, CONFIDENCE) for points in POINTS}


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
    accuracy = score_of(comparison, values, rows)
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
        found["hard"] = score_of(comparison, values, rows, [np.isin(row, hard) for row in rows])
    if positive is not None:
        column = names.index(positive)
        said = [(part.probabilities.argmax(axis=1) == column).astype(np.float64) for part in pool.predictions]
        truly = [part.labels == column for part in pool.predictions]
        found["recall"] = score_of(comparison, said, rows, truly)
        found["false_positives"] = score_of(comparison, said, rows, [~mask for mask in truly])
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
            "flops": _mean([c.flops for c in cells]),
            "texts_per_second": _mean([c.texts_per_second for c in cells]),
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


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that there are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def score_of(comparison: Comparison, values: Arrays, rows: Sequence[NDArray[np.int64]], masks: Any = None) -> Score:
    """Mean and interval of 0-or-1 ``values``, one array for each seed, of the rows in ``masks``."""
    if masks is not None:
        values = [value[mask] for value, mask in zip(values, masks, strict=True)]
        rows = [row[mask] for row, mask in zip(rows, masks, strict=True)]
    if not sum(len(value) for value in values):
        return Score(0.0, 0.0, 1.0, n=0)
    mean = float(np.mean([value.mean() for value in values if len(value)]))
    interval = _interval(comparison, [1 - value for value in values], rows)
    return Score(mean, 1 - interval.high, 1 - interval.low, n=len(np.unique(np.concatenate(rows))))


def _interval(comparison: Comparison, wrong: Arrays, rows: Sequence[NDArray[np.int64]]) -> Interval:
    """The interval of an error rate over seeds and rows."""
    if all(np.array_equal(rows[0], other) for other in rows):
        return clustered(np.stack(wrong), comparison.clusters(rows[0]), CONFIDENCE)
    # Each seed has a split of its own: a row that was tested twice is one cluster, and the seeds' own spread
    # is the other interval; the wider of the two is given.
    found = clustered(np.concatenate(wrong), comparison.clusters(np.concatenate(rows)), CONFIDENCE)
    spread = mean_spread([float(value.mean()) for value in wrong if len(value)], CONFIDENCE).interval
    if spread is not None and spread.high - spread.low > found.high - found.low:
        return Interval(max(0.0, spread.low), min(1.0, spread.high))
    return found


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


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{share * 100:.{digits}f} %"


def range_of(score: Score) -> str:
    """The interval in words."""
    return f"95 % interval {score.low * 100:.1f} to {score.high * 100:.1f} %"
