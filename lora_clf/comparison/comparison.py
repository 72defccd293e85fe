"""What a comparison found: finished cells, baselines and failures, pooled into what each contender said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.outcome import Outcome, Predictions, predictions_of, whole_seeds
from lora_clf.comparison.plan import SCHEMA, Plan
from lora_clf.data.hard import is_hard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base
    from lora_clf.comparison.baselines import Baseline
    from lora_clf.comparison.curve import CurveRuns, Point
    from lora_clf.comparison.false_alarms import FoundAt
    from lora_clf.comparison.recommendation import Recommendation
    from lora_clf.comparison.standing import Standing
    from lora_clf.comparison.trials import Tuning
    from lora_clf.data.dataset import Dataset, Part

DIGITS = 4  # of a probability in results.json; the cells keep them whole


@dataclass(frozen=True)
class Failure:
    """A cell that gave nothing, and why."""

    cell: str
    label: str
    error: str
    message: str


@dataclass(frozen=True, eq=False)
class BaselineOutcome:
    """What a plain classifier found on one data set."""

    label: str
    split_seed: int
    fold: int | None
    baseline: Baseline
    test: Predictions
    validation_accuracy: float

    @classmethod
    def of(cls, label: str, baseline: Baseline, data: Dataset, seed: int, fold: int | None) -> BaselineOutcome:
        """What ``baseline`` found on ``data``."""
        test = predictions_of(data, data.test, baseline.test_probabilities)
        validation = predictions_of(data, data.validation, baseline.validation_probabilities)
        accuracy = float(validation.correct.mean()) if len(validation) else 0.0
        return cls(label, seed, fold, baseline, test, accuracy)


@dataclass(frozen=True, eq=False)
class Pool:
    """What one contender said of every test row, for each seed that is complete.

    Attributes:
        seeds: the S seeds.
        predictions: one for each seed, all folds together, sorted by row.
        spreads: accuracies of the single runs (seeds, or folds where there is one seed).
    """

    seeds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    spreads: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything a comparison found; tables, plots and the report are views of it.

    Attributes:
        plan: what was to be done.
        outcomes: one for each finished cell.
        baselines: one for each baseline and data set.
        failures: the cells that gave nothing.
        facts: base, data, environment and command line, ready for JSON.
        datasets: by split seed and fold.
        curve: the runs of the learning curve, where one was asked for.
        tunings: what was tried and chosen before the comparison, where tuning was asked for.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]
    baselines: tuple[BaselineOutcome, ...]
    failures: tuple[Failure, ...]
    facts: dict[str, Any]
    datasets: dict[tuple[int, int | None], Dataset] = field(repr=False)
    curve: CurveRuns | None = None
    tunings: tuple[Tuning, ...] = ()

    @property
    def data(self) -> Dataset:
        """The data set, or that of the first split or fold."""
        return next(iter(self.datasets.values()))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return self.data.labels

    @property
    def positive_label(self) -> str | None:
        """The class that is looked for, where there are two."""
        return self.data.positive_label

    def outcomes_of(self, label: str) -> list[Outcome]:
        """The finished cells of one contender, by seed and fold."""
        mine = [outcome for outcome in self.outcomes if outcome.label == label]
        return sorted(mine, key=lambda outcome: (outcome.seed, outcome.fold or 0))

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The pooled predictions of every contender and baseline that has a complete seed."""
        found = {}
        for contender in self.plan.contenders:
            cells = [(o.seed, o.test) for o in self.outcomes_of(contender.label)]
            if (pool := self._pooled(cells)) is not None:
                found[contender.label] = pool
        for label in dict.fromkeys(outcome.label for outcome in self.baselines):
            cells = [(o.split_seed, o.test) for o in self.baselines if o.label == label]
            if (pool := self._pooled(cells)) is not None:
                found[label] = pool
        return found

    def _pooled(self, cells: Iterable[tuple[int, Predictions]]) -> Pool | None:
        whole = whole_seeds(cells, self.plan.data.folds or 1)
        if not whole:
            return None
        pooled = [Predictions.joined(parts) for parts in whole.values()]
        runs = pooled if len(pooled) > 1 else next(iter(whole.values()))
        return Pool(tuple(whole), tuple(pooled), tuple(float(run.correct.mean()) for run in runs))

    def clusters(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The group of each test row: (N,) row numbers to (N,) group numbers."""
        return np.array([self.groups[int(row)] for row in rows], dtype=np.int64)

    @cached_property
    def groups(self) -> dict[int, int]:
        """Which test rows count as one, by row number: near copies, and rows of one value in the group column."""
        from lora_clf.comparison.measurements import groups_of

        return groups_of(self.data, [data.test for data in self.datasets.values()])

    @cached_property
    def hard_rows(self) -> frozenset[int]:
        """Numbers of the test rows that the data marks as hard; empty where it has no column ``hard``."""
        return frozenset(
            row
            for data in self.datasets.values()
            for row, mark in zip(data.test.rows, data.test.columns.get("hard", ()), strict=False)
            if is_hard(mark)
        )

    @cached_property
    def standings(self) -> list[Standing]:
        """One row for each contender and baseline, in the order of the plan, baselines last."""
        from lora_clf.comparison.standing import standings_of

        return standings_of(self)

    @cached_property
    def rival(self) -> str | None:
        """The strongest baseline, which every strategy has to beat."""
        from lora_clf.comparison.standing import rival_of

        return rival_of(self)

    @cached_property
    def recommendation(self) -> Recommendation | None:
        """Which strategy to take, from the validation part; None where there is nothing to choose from."""
        from lora_clf.comparison.recommendation import recommendation_of

        return recommendation_of(self)

    @cached_property
    def power(self) -> dict[str, float] | None:
        """How often a true difference of 1 and of 2 points would be found; None with one strategy."""
        from lora_clf.comparison.standing import power_of

        return power_of(self)

    @cached_property
    def found_at(self) -> dict[str, tuple[FoundAt, ...]]:
        """What each finds of the positive class at few false alarms; empty without folds or without such a class."""
        from lora_clf.comparison.false_alarms import found_at

        return found_at(self)

    @cached_property
    def curve_points(self) -> tuple[Point, ...]:
        """The points of the learning curve; none where none was asked for."""
        from lora_clf.comparison.curve import points_of

        return points_of(self) if self.curve is not None else ()

    @cached_property
    def verdict(self) -> str:
        """The answer in a sentence or two."""
        return " ".join(self.verdict_lines)

    @cached_property
    def verdict_lines(self) -> list[str]:
        """The answer, a sentence a line; the first says the most."""
        from lora_clf.comparison.verdict import verdict_of

        return verdict_of(self)

    def tuning_seconds(self, label: str) -> float | None:
        """What choosing the hyperparameters of one contender took, mean over training parts; None without tuning."""
        mine = [tuning.seconds for tuning in self.tunings if tuning.label == label]
        return float(np.mean(mine)) if mine else None

    def to_json(self) -> dict[str, Any]:
        """Everything but the texts, ready for JSON; row numbers and probabilities stand for predictions."""
        from lora_clf.comparison.curve import curve_json

        more: dict[str, Any] = {} if self.curve is None else {"curve": curve_json(self)}
        if self.found_at:
            more["recall_at"] = {label: [one.to_json() for one in found] for label, found in self.found_at.items()}
        if self.plan.tune is not None:
            more["tuning"] = [tuning.to_json() for tuning in self.tunings]
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "positive_label": self.positive_label,
            "labels": list(self.labels),
            "recommendation": None if self.recommendation is None else self.recommendation.to_json(),
            "power": self.power,
            "rows": [standing.to_json() for standing in self.standings],
            "failures": [asdict(failure) for failure in self.failures],
            "plan": portable(self.plan, self.facts["base"]["name"], self.facts["data"]["name"]),
            "facts": self.facts,
            **more,
            "cells": [outcome.to_json() for outcome in self.outcomes],
            "predictions": self._predictions(),
        }

    def _predictions(self) -> list[dict[str, Any]]:
        """Row numbers, labels and each contender's probabilities (of the positive class, where there is one).

        Contenders and seeds that were tested on the same rows stand together.
        """
        groups: dict[bytes, dict[str, Any]] = {}
        for label, pool in self.pools.items():
            for seed, part in zip(pool.seeds, pool.predictions, strict=True):
                group = groups.setdefault(
                    part.rows.tobytes(),
                    {"rows": part.rows.tolist(), "labels": part.labels.tolist(), "probabilities": []},
                )
                shown = part.probabilities
                if self.positive_label is not None and shown.shape[1] == 2:
                    shown = shown[:, self.labels.index(self.positive_label)]
                values = np.round(shown, DIGITS).tolist()
                group["probabilities"].append({"label": label, "seed": seed, "values": values})
        return list(groups.values())


def portable(plan: Plan, base: str, data: str) -> dict[str, Any]:
    """The plan as JSON without the paths of this machine."""
    value = plan.to_json()
    value["base"]["name"] = base
    value["data"]["source"] = data
    for key in ("validation", "test"):
        if isinstance(name := value["data"]["settings"].get(key), str):
            value["data"]["settings"][key] = name.replace("\\", "/").rsplit("/", 1)[-1]
    return value


def without_folder(word: str) -> str:
    """A word of a command line; of an absolute path, blanks and all, or of one behind ``--flag=`` the last name."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if re.match(r"(?:~|\.\.|[A-Za-z]:)?[/\\]", value):
        value = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return f"{flag}{equals}{value}"


def without_folders(command: str | None) -> str | None:
    """A command line in which absolute paths are file names: what a report may show."""
    if command is None:
        return None
    return re.sub(r"(?<![\w.])(?:~|\.\.|[A-Za-z]:)?[/\\](?:[^\s'\"]*[/\\])?(?=[^\s'\"/\\])", "", command)


def facts_of_base(base: Base) -> dict[str, Any]:
    """What is to be known of the base."""
    return {
        "name": base.name,
        "digest": base.digest,
        "tokenizer_digest": base.tokenizer_digest,
        "parameters": base.total_parameters,
        "pooling": base.pooling,
        "max_length": base.max_length,
    }


def facts_of_data(plan: Plan, datasets: dict[tuple[int, int | None], Dataset]) -> dict[str, Any]:
    """What is to be known of the data: sizes, classes, digests, leak rates; no texts."""
    first = next(iter(datasets.values()))
    several = len(datasets) > 1
    return {
        "name": first.name if plan.data.folds is None else re.sub(r" fold \d+ of \d+$", "", first.name),
        "source": first.source,
        "licence": first.licence,
        "protocol": first.protocol,
        "labels": list(first.labels),
        "positive_label": first.positive_label,
        "folds": plan.data.folds,
        "splits": [
            {
                "split_seed": seed,
                "fold": fold,
                "digest": data.digest,
                "rows": {part: len(rows) for part, rows in data.parts.items()},
                "per_class": {part: _per_class(data, rows) for part, rows in data.parts.items()},
            }
            for (seed, fold), data in datasets.items()
        ],
        "leaks": _leaks(list(datasets.values())),
        "leaks_pooled_over": len(datasets) if several else 1,
        "warnings": sorted({_short(line) for data in datasets.values() for line in data.warnings}),
    }


def _per_class(data: Dataset, part: Part) -> dict[str, int]:
    """How many rows name each class; nothing where labels are numbers."""
    named = Counter(name for label in part.labels for name in data.task.parts(label))
    return {label: named[label] for label in data.labels} if named or data.task.softmax else {}


def _short(warning: str) -> str:
    """A warning without the words of the user's texts that a problem of one row may quote."""
    return warning.split(":", 1)[0] if warning.startswith("left out") else warning


def _leaks(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """How many test rows have a copy in training, of each class and at each level, all data sets together."""
    from lora_clf.data.leaks import LEVELS

    table = []
    for label in (None, *(datasets[0].labels if datasets[0].task.softmax else ())):
        entry: dict[str, Any] = {"class": label or "all", "rows": 0}
        for level in LEVELS:
            counted = [data.leaks().count("test", level, label) for data in datasets]
            entry["rows"] = sum(total for _, total in counted)
            entry[level] = sum(found for found, _ in counted)
        table.append(entry)
    return table
