"""Learning curves: what everyone scores with k examples of each class, and from where on who beats TF-IDF.

A point is the mean of several draws of k examples; its interval is Student's t over the draws, on the one test part. A
difference to TF-IDF is paired, draw by draw and row by row, with the interval of `evaluation.intervals.crossed_mean`:
it holds for other draws, seeds and test rows alike; with one draw for other test rows alone. Shapes: D draws, N rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.data.subsets import RULE
from lora_clf.evaluation.intervals import crossed_mean, mean_spread
from lora_clf.figures import listed
from lora_clf.metrics.classification import confusion_matrix, macro_f1

if TYPE_CHECKING:
    from lora_clf.comparison.comparison import BaselineOutcome, Comparison
    from lora_clf.comparison.outcome import Outcome, Predictions
    from lora_clf.data.dataset import Dataset

RIVAL = "TF-IDF + LR"
CONFIDENCE = 0.95
ONCE = "Where there is one draw or seed, this is about other test rows alone: another draw may say otherwise."
Draws = dict[int, "Predictions"]  # by the number of the draw, or the seed


@dataclass(frozen=True, eq=False)
class CurveRuns:
    """The finished runs of a learning curve.

    Attributes:
        outcomes: of the strategies; ``k`` says with how many of each class, ``seed`` in which draw.
        baselines: of the baselines; ``split_seed`` is the draw, ``fold`` is k.
        datasets: by draw and k.
    """

    outcomes: tuple[Outcome, ...]
    baselines: tuple[BaselineOutcome, ...]
    datasets: dict[tuple[int, int | None], Dataset]


@dataclass(frozen=True)
class Level:
    """A mean over draws with its interval; one draw has neither interval nor deviation."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None


@dataclass(frozen=True)
class Point:
    """One contender or baseline at one size.

    Attributes:
        kind: "strategy" or "baseline".
        k: examples of each class; None is the whole training part, whose draws are the training seeds.
        draws: how many runs are behind it.
        accuracy, macro_f1: mean and interval over the draws.
        to_rival: accuracy minus that of TF-IDF on the same examples; its interval covers draws and test rows and is
            corrected for all strategies and sizes.
        cold_seconds: of training, mean; None for what has no such figure.
    """

    label: str
    kind: str
    k: int | None
    draws: int
    accuracy: Level
    macro_f1: Level
    to_rival: Level | None
    cold_seconds: float | None


def sizes_of(comparison: Comparison) -> list[int | None]:
    """The sizes of the curve, ascending, the whole training part last where it was asked for."""
    curve = comparison.plan.curve
    return [] if curve is None else [*curve.sizes, *([None] if curve.whole else [])]


def points_of(comparison: Comparison) -> tuple[Point, ...]:
    """Every contender and baseline at every size that has a finished run."""
    strategies = [contender.label for contender in comparison.plan.contenders]
    baselines = list(dict.fromkeys(outcome.label for outcome in comparison.curve.baselines)) if comparison.curve else []
    sizes = sizes_of(comparison)
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(strategies) * len(sizes))
    found = []
    for label in [*strategies, *baselines]:
        for k in sizes:
            draws = _draws(comparison, label, k)
            if not draws:
                continue
            strategy = label in strategies
            rival = _draws(comparison, RIVAL, k) if strategy else {}
            found.append(
                Point(
                    label=label,
                    kind="strategy" if strategy else "baseline",
                    k=k,
                    draws=len(draws),
                    accuracy=_level([float(part.correct.mean()) for part in draws.values()]),
                    macro_f1=_level([_macro_f1(part) for part in draws.values()]),
                    to_rival=_difference(comparison, draws, rival, confidence, all_rows=k is None) if rival else None,
                    cold_seconds=_seconds(comparison, label, k) if strategy else None,
                )
            )
    return tuple(found)


def _draws(comparison: Comparison, label: str, k: int | None) -> Draws:
    """What a contender or baseline said of the test rows, for each draw."""
    runs = comparison.curve
    if k is None:
        mine = {outcome.seed: outcome.test for outcome in comparison.outcomes_of(label)}
        return mine or {b.split_seed: b.test for b in comparison.baselines if b.label == label}
    if runs is None:
        return {}
    mine = {outcome.seed: outcome.test for outcome in runs.outcomes if (outcome.label, outcome.k) == (label, k)}
    mine |= {b.split_seed: b.test for b in runs.baselines if (b.label, b.fold) == (label, k)}
    return dict(sorted(mine.items()))


def _seconds(comparison: Comparison, label: str, k: int | None) -> float:
    outcomes = comparison.outcomes_of(label) if k is None else comparison.curve.outcomes if comparison.curve else ()
    return float(np.mean([outcome.cold_seconds for outcome in outcomes if (outcome.label, outcome.k) == (label, k)]))


def _level(values: Sequence[float]) -> Level:
    spread = mean_spread(values, CONFIDENCE)
    if spread.interval is None:
        return Level(spread.mean, None, None, None)
    return Level(spread.mean, max(0.0, spread.interval.low), min(1.0, spread.interval.high), spread.sd)


def _macro_f1(part: Predictions) -> float:
    """The mean F1 of the classes that occur among the labels or the answers; others are left out."""
    table = part.probabilities
    return macro_f1(confusion_matrix(part.labels, table.argmax(axis=1), table.shape[1]))


def _difference(
    comparison: Comparison, mine: Draws, rival: Draws, confidence: float, *, all_rows: bool
) -> Level | None:
    if len(rival) == 1 and all_rows:  # a baseline draws nothing there: the same for each seed
        rival = dict.fromkeys(mine, next(iter(rival.values())))
    shared = [number for number in mine if number in rival]
    if not shared:
        return None
    rows = mine[shared[0]].rows
    assert all(np.array_equal(side[number].rows, rows) for side in (mine, rival) for number in shared)
    values = np.stack([mine[n].correct.astype(np.float64) - rival[n].correct for n in shared])  # (D, N)
    groups = comparison.clusters(rows)
    if len(np.unique(groups)) < 2:
        return None
    found = crossed_mean(values, groups, confidence=confidence)
    spread = mean_spread(values.mean(axis=1))
    return Level(found.value, max(-1.0, found.low), min(1.0, found.high), spread.sd)


def sentence_of(comparison: Comparison) -> str:
    """With how many examples each strategy beats TF-IDF, if it does, in a sentence."""
    sizes = sizes_of(comparison)
    beats: dict[str, list[int | None]] = {}
    for point in comparison.curve_points:
        if point.to_rival is not None:
            ahead = point.to_rival.low is not None and point.to_rival.low > 0
            beats.setdefault(point.label, []).extend([point.k] if ahead else [])
    once = any(point.draws == 1 and point.to_rival is not None for point in comparison.curve_points)
    return who_beats(beats, sizes) + (f" {ONCE}" if once else "")


def who_beats(beats: Mapping[str, Sequence[int | None]], sizes: Sequence[int | None]) -> str:
    """The sentence of a curve.

    Args:
        beats: of each strategy the sizes at which it beats TF-IDF by more than the interval, in their order.
        sizes: all of them; None is the whole training part.
    """
    if not beats:
        return f"There is no {RIVAL} to compare with at any size."
    together: dict[tuple[int | None, ...], list[str]] = {}
    for label, won in beats.items():
        together.setdefault(tuple(won), []).append(label)
    proof = "by more than the interval (95 %, corrected for all strategies and sizes)"
    never = together.pop((), [])
    if not together:
        return f"No strategy beats {RIVAL} at any size {proof}."
    pieces = [
        f"{listed(labels)} {'beats' if len(labels) == 1 else 'beat'} {RIVAL} {_where(won, sizes)}"
        for won, labels in together.items()
    ]
    if never:
        pieces.append(f"{listed(never)} at no size")
    return f"{proof[0].upper()}{proof[1:]}: {'; '.join(pieces)}."


def _where(won: Sequence[int | None], sizes: Sequence[int | None]) -> str:
    """At which sizes, in words: from one on where it is all from there, else each of them."""
    if list(won) == list(sizes[-len(won) :]):
        return "with all training rows" if won[0] is None else f"from {won[0]} examples of each class on"
    few = [str(k) for k in won if k is not None]
    if sizes[-1] in won:
        more = " and with all training rows" if None in won else ""
    else:
        more = f", not with {'all training rows' if sizes[-1] is None else sizes[-1]}"
    return f"with {listed(few)} examples of each class{more}"


def curve_json(comparison: Comparison) -> dict[str, Any]:
    """The section of ``results.json``: the rule, the sizes, the points and every run."""
    runs = comparison.curve
    assert runs is not None and comparison.plan.curve is not None
    return {
        "sentence": sentence_of(comparison),
        "rule": RULE,
        "confidence": CONFIDENCE,
        "sizes": [
            {
                "k": k,
                "draws": comparison.plan.curve.draws_of(k),
                "epochs": comparison.plan.curve.epochs(len(runs.datasets[0, k].train), comparison.plan.training),
                "rows": {side: len(part) for side, part in runs.datasets[0, k].parts.items()},
                "digests": [runs.datasets[draw, k].digest for draw in range(comparison.plan.curve.draws_of(k))],
            }
            for k in comparison.plan.curve.sizes
        ],
        "points": [asdict(point) for point in comparison.curve_points],
        "warnings": sorted({line for data in runs.datasets.values() for line in data.warnings}),
        "runs": [
            {
                "label": outcome.label,
                "k": outcome.k,
                "draw": outcome.seed,
                "accuracy": outcome.scores["test"]["accuracy"],
                "macro_f1": outcome.scores["test"]["macro_f1"],
                "validation_accuracy": outcome.scores["validation"]["accuracy"],
                "best_epoch": outcome.best_epoch,
                "seconds": outcome.seconds,
                "cold_seconds": outcome.cold_seconds,
            }
            for outcome in runs.outcomes
        ],
    }


def curve_csv(comparison: Comparison) -> str:
    """``curve.csv``: plain numbers, shares from 0 to 1, a line a point; no k stands for the whole training part."""
    stream = io.StringIO(newline="")
    rows = []
    for point in comparison.curve_points:
        value = asdict(point)
        for name in ("accuracy", "macro_f1", "to_rival"):
            level = value.pop(name) or {}
            for part in ("mean", "low", "high", "sd"):
                value[name if part == "mean" else f"{name}_{part}"] = level.get(part)
        rows.append(value)
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["label"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
