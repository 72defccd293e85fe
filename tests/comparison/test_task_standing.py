"""Where strategies stand by their task's own score: the same in every unit, and rows of one group count as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lora_clf.comparison.arguments import DataArguments
from lora_clf.comparison.contender import contenders_of
from lora_clf.comparison.plan import Plan
from lora_clf.comparison.task_baselines import constant
from lora_clf.comparison.task_comparison import (
    TaskComparison,
    TaskRun,
    _Answered,
    _baseline,
    _pooled,
    _scores,
    gathered,
)
from lora_clf.comparison.task_standing import standing_of
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset, folds, load_data
from lora_clf.metrics.classification import average_precision
from lora_clf.reports.task_report import notes_of
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.regression import Regression

ROWS = 60


@pytest.fixture(scope="module")
def data() -> Dataset:
    """See `numbers`."""
    return numbers(1.0)


def numbers(unit: float) -> Dataset:
    """Texts that are no copies of each other, ten to a source, and a number for each."""
    demo = load_data("demo")
    texts = (*demo.train.texts, *demo.test.texts)[: 3 * ROWS]
    assert len(set(texts)) == 3 * ROWS
    part = Part(texts, tuple(str(unit * n) for n in range(3 * ROWS)), tuple(range(1, 3 * ROWS + 1)),
                {"source": tuple(str(n % 6) for n in range(3 * ROWS))})  # fmt: skip
    parts = [part.take(range(start, start + ROWS)) for start in (0, ROWS, 2 * ROWS)]
    return Dataset("numbers", *parts, labels=("stars",), positive_label=None, protocol="given", digest="0" * 64,
                   licence=None, source="test", other_task=Regression(("stars",)))  # fmt: skip


def comparison(data: Dataset, unit: float, rival: float = 0.25) -> TaskComparison:
    """Three strategies of falling quality and the baselines, their errors in some unit; sources differ."""
    plan = Plan(contenders_of(["lora", "full", "head-only"]), data=DataArguments("x", {}))
    random = np.random.default_rng(0)
    source = np.repeat(random.gamma(2.0, 0.1, 6), 10).reshape(6, 10).T.reshape(-1)
    runs = []
    for label, worse in (("lora", 0.0), ("full", 0.02), ("head-only", 0.3), ("constant", 0.6), ("TF-IDF", rival)):
        for seed in (0, 1) if label in ("lora", "full", "head-only") else (0,):
            costs = [(unit * (source + worse + random.gamma(2.0, 0.05, ROWS))).tolist() for _ in range(2)]
            runs.append(TaskRun(label, seed, {"mae": float(np.mean(costs[0]))}, costs[0], costs[1], parameters=1))
    return TaskComparison(plan, tuple(runs), (), {"margin": 1.0}, {(0, None): data})


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_a_number_may_be_in_any_unit(data: Dataset, unit: float) -> None:
    one, other = standing_of(comparison(data, 1.0)), standing_of(comparison(numbers(unit), unit))
    assert [place.group for place in one.places] == [place.group for place in other.places]
    assert len({place.group for place in one.places}) > 2 and one.best == other.best == "lora"
    for mine, theirs in zip(one.places, other.places, strict=True):
        assert theirs.low / unit == pytest.approx(mine.low, rel=1e-6)
        assert theirs.high / unit == pytest.approx(mine.high, rel=1e-6)
        if mine.to_rival is not None and theirs.to_rival is not None:
            # Critical values are drawn, and the last bits decide which draws.
            assert theirs.to_rival.low / unit == pytest.approx(mine.to_rival.low, rel=1e-2)


def test_nobody_else_decides_how_surely_two_are_told_apart(data: Dataset) -> None:
    """One wild answer of a third strategy does not widen the interval of two others."""
    found = comparison(data, 1.0)
    runs = tuple(
        replace(run, costs=[*run.costs[:-1], 500.0]) if run.label == "head-only" else run for run in found.runs
    )
    other = replace(found, runs=runs)
    mine, theirs = (standing_of(each).places[1].to_best for each in (found, other))
    assert mine is not None and theirs is not None
    assert theirs.high - theirs.low < 1.3 * (mine.high - mine.low)


def test_rows_of_one_group_count_as_one(data: Dataset) -> None:
    found = comparison(data, 1.0)
    alone, grouped = (
        standing_of(found).places[0],
        standing_of(comparison(replace(data, group_column="source"), 1.0)).places[0],
    )
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert grouped.score == alone.score


def test_where_words_do_better_the_answer_says_so(data: Dataset) -> None:
    better, worse = comparison(data, 1.0, rival=-0.2), comparison(data, 1.0)
    assert "TF-IDF" in better.verdict and "is better than lora, full, head-only by more than" in better.verdict
    assert better.verdict.startswith(("Of the strategies take ", "This data cannot decide"))
    assert "is better than head-only by more than" not in worse.verdict.split("Better than")[0]
    assert "Better than TF-IDF" in worse.verdict and "lora" in worse.verdict.split("Better than")[1]


@pytest.mark.parametrize(("seconds", "taken"), [(9.5, "lora"), (20.0, "full")])
def test_the_clock_does_not_choose_between_two_that_err_alike(data: Dataset, seconds: float, taken: str) -> None:
    found = comparison(data, 1.0)
    said = {run.seed: run for run in found.of("lora")}
    took = {"lora": seconds, "full": 9.0}
    runs = tuple(
        replace(run if run.label == "lora" else said[run.seed], label=run.label, seconds=took[run.label])
        if run.label in took
        else run
        for run in found.runs
    )
    assert standing_of(replace(found, runs=runs, facts={"margin": 30.0})).chosen == taken


def test_folds_are_one_table(data: Dataset) -> None:
    """Their test rows in order, each fold answered by its own task; scores are those of all rows."""
    part = data.train
    cut = folds(Part(part.texts, part.labels, part.rows, {}), 3, task="regression", label_column="stars")
    datasets = {(0, number): each for number, each in enumerate(cut)}
    assert [each.task.name for each in cut] == ["regression"] * 3 and len({each.task for each in cut}) == 3
    assert sorted(row for each in cut for row in each.test.rows) == sorted(part.rows)
    plan = Plan(contenders_of(["lora"]), seeds=(0,), data=DataArguments("x", {}, 3))
    found = gathered(plan, [], datasets, [], {"margin": 1.0})
    run = found.of("constant")[0]
    means = {row: each.task.mean for each in cut for row in each.test.rows}
    truth = dict(zip(part.rows, map(float, part.labels), strict=True))
    assert found.test.rows == tuple(sorted(part.rows)) and found.strategies == ()
    assert run.costs == pytest.approx([abs(truth[row] - means[row]) for row in found.test.rows])
    assert run.values == pytest.approx([means[row] for row in found.test.rows])
    assert run.scores["n"] == ROWS and run.scores["mae"] == pytest.approx(np.mean(run.costs))
    assert len(run.validation_costs) == len(found.validation) == sum(len(each.validation) for each in cut)
    assert found.verdict == "No strategy has a complete run, so there is nothing to compare."


def test_labels_that_some_folds_lack_are_scored_over_all_of_them(data: Dataset) -> None:
    """A perfect answer is perfect, whatever the thresholds of its folds."""
    part = data.train
    names = tuple("a" if row % 2 else "a|rare" if row in (2, 8) else "b" for row in range(len(part)))
    cut = folds(Part(part.texts, names, part.rows, {}), 5, task="multilabel")
    parts = []
    for number, each in enumerate(cut):
        assert isinstance(each.task, Multilabel)
        task = replace(each.task, thresholds=(0.1 + 0.15 * number,) * 3)
        logits = [40 * task.targets(side.labels) - 20 for side in (each.validation, each.test)]
        parts.append(_Answered(task, each, *logits))
    run = _pooled(TaskRun("lora", 0, {}, [], []), parts)
    assert run.scores["macro_f1"] == run.scores["subset_accuracy"] == 1 and run.scores["n"] == len(part)
    assert run.scores["per_label"]["rare"]["support"] == 2 and run.scores["per_label"]["rare"]["pr_auc"] == 1
    assert sum(run.costs) == 0 and "thresholds" not in run.scores


def test_thresholds_of_folds_do_not_mix_up_probabilities(data: Dataset) -> None:
    """The area under precision and recall is about their order, whatever each fold's threshold is."""
    part = data.train
    names = tuple("a" if row % 3 == 0 else "b" for row in range(len(part)))
    cut = folds(Part(part.texts, names, part.rows, {}), 2, task="multilabel")
    random = np.random.default_rng(0)
    parts, seen, truth = [], [], []
    for each, cuts in zip(cut, (0.9, 0.1), strict=True):
        assert isinstance(each.task, Multilabel)
        targets = each.task.targets(each.test.labels)
        logits = (2 * targets - 1 + random.standard_normal(targets.shape)).astype(np.float32)
        parts.append(_Answered(replace(each.task, thresholds=(cuts, cuts)), each, logits, logits[: len(targets)]))
        seen.append(logits)
        truth.append(targets)
    table = np.concatenate(truth) > 0.5, np.concatenate(seen)
    areas = [average_precision(table[0][:, label], table[1][:, label]) for label in (0, 1)]
    assert _scores(parts)["macro_pr_auc"] == pytest.approx(np.mean(areas))


def test_the_constant_answer_is_the_most_frequent_set_of_labels(data: Dataset) -> None:
    """Not all labels at once, which have the best F1 of what says the same to every text."""
    names = tuple("ab"[row % 5 == 0] if row % 3 else "" for row in range(ROWS))
    parts = {name: replace(part, labels=names) for name, part in data.parts.items()}
    task = Multilabel(("a", "b"))
    several = Dataset("sets", *parts.values(), labels=("a", "b"), positive_label=None, protocol="given",
                      digest="0" * 64, licence=None, source="test", other_task=task)  # fmt: skip
    run = _baseline("constant", constant, {(0, None): several})
    assert run.scores["subset_accuracy"] == names.count("a") / ROWS > 0.5
    assert run.scores["labels_given_per_row"] == 1.0


def test_what_cannot_be_told_is_not_told(data: Dataset) -> None:
    """Rows of one group give no interval, one strategy no choice, and seeds that are lost are named."""
    found = comparison(data, 1.0)
    alone = replace(data.test, columns={"source": ("same",) * ROWS})
    one_source = replace(data, test=alone, validation=alone, group_column="source")
    grouped = replace(found, datasets={(0, None): one_source})
    place = grouped.standing.places[0]
    assert (place.to_rival, place.bound, place.group) == (None, None, "") and place.low == 0 < place.score < place.high
    assert grouped.verdict.startswith("This data cannot decide") and grouped.standing.chosen is None
    one = replace(found, runs=tuple(run for run in found.runs if run.label in ("lora", "constant", "TF-IDF")))
    assert one.verdict.startswith("lora is the only strategy here") and one.standing.places[0].bound is None
    assert "Only with the training seeds 0, 1, whole for all of them." in notes_of(one)
    assert {"Without full: it has no seed that the others have."} < set(notes_of(one))
