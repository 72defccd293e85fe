"""What a comparison found where the task is not one label of several: numbers, ordered classes, several labels.

Strategies, seeds, folds, processes and what is kept are those of any comparison (`lora_clf.experiment.run`); what a
test row costs is the task's own affair. Beside the strategies stand the constant answer and TF-IDF
(`lora_clf.comparison.task_baselines`). Shapes: N rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison import task_baselines
from lora_clf.comparison.comparison import Failure, portable
from lora_clf.comparison.outcome import Outcome, rate_of, whole_seeds
from lora_clf.comparison.plan import SCHEMA, Datasets, Plan
from lora_clf.data.corpus import Part
from lora_clf.tasks import create
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.regression import Regression

if TYPE_CHECKING:
    from lora_clf.comparison.task_standing import TaskStanding
    from lora_clf.comparison.trials import Tuning
    from lora_clf.data.dataset import Dataset
    from lora_clf.tasks.base import Task

BASELINES = ("constant", "TF-IDF")
DIGITS = 7  # significant ones of a cost in results.json


@dataclass(frozen=True)
class TaskRun:
    """What one strategy with one seed, or a baseline, found: all folds together, rows in their order.

    Attributes:
        label: the contender's, or a baseline's; ``seed`` of the training.
        scores: `Task.assess` of all test rows.
        costs: what each test row costs; ``validation_costs`` likewise.
        values: of a regression what was answered to each test row.
        parameters: how many numbers trained; None for a baseline.
        bytes: of the saved adapter.
        seconds: of the training, kept states charged at their full price; the mean over folds.
        peak_memory_bytes: of the process, the most of any fold; None for a baseline.
        settings: the strategy's with its learning rate, or what was chosen for TF-IDF.
    """

    label: str
    seed: int
    scores: dict[str, Any]
    costs: list[float]
    validation_costs: list[float]
    values: list[float] = field(default_factory=list)
    parameters: int | None = None
    bytes: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TaskComparison:
    """Everything that was found.

    Attributes:
        plan: what was to be done.
        runs: strategies first, in the order of the table; each strategy with the same seeds.
        failures: what gave nothing.
        facts: base, data, environment and command line, ready for JSON.
        datasets: by split seed and fold.
        tunings: what was tried and chosen before the comparison, where tuning was asked for.
    """

    plan: Plan
    runs: tuple[TaskRun, ...]
    failures: tuple[Failure, ...]
    facts: Mapping[str, Any]
    datasets: Datasets = field(repr=False)
    tunings: tuple[Tuning, ...] = ()

    @property
    def data(self) -> Dataset:
        """The data set, or that of the first fold."""
        return next(iter(self.datasets.values()))

    @property
    def task(self) -> Task:
        """What is learned."""
        return self.data.task

    @property
    def margin(self) -> float:
        """Points that the recommended strategy may lose."""
        return float(self.facts["margin"])

    @cached_property
    def test(self) -> Part:
        """The test rows of all folds in their order."""
        return _together([data.test for data in self.datasets.values()])

    @cached_property
    def validation(self) -> Part:
        """The validation rows of all folds in their order; a row may be there more than once."""
        return _together([data.validation for data in self.datasets.values()])

    @property
    def labels(self) -> tuple[str, ...]:
        """Every contender, then the baselines."""
        return tuple(dict.fromkeys(run.label for run in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the plan that are whole for every strategy."""
        return tuple(run.seed for run in self.of(self.strategies[0])) if self.strategies else ()

    @property
    def strategies(self) -> tuple[str, ...]:
        """The contenders alone."""
        return tuple(label for label in self.labels if label not in BASELINES)

    def of(self, label: str) -> list[TaskRun]:
        """The runs of one, by seed."""
        return [run for run in self.runs if run.label == label]

    @cached_property
    def standing(self) -> TaskStanding:
        """The table, and which strategy to take."""
        from lora_clf.comparison.task_standing import standing_of

        return standing_of(self)

    @cached_property
    def verdict_lines(self) -> list[str]:
        """The answer, a sentence a line; the first says the most."""
        from lora_clf.comparison.task_standing import verdict_of

        return verdict_of(self)

    @property
    def verdict(self) -> str:
        """The answer in a few sentences."""
        return " ".join(self.verdict_lines)

    def to_json(self) -> dict[str, Any]:
        """Everything but the texts: the answer, the table and each run with row numbers and costs."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "task": {"name": self.task.name, "reason": self.data.task_reason, "primary": self.task.primary.key},
            "standing": None if not self.strategies else self.standing.to_json(),
            "failures": [asdict(failure) for failure in self.failures],
            "plan": portable(self.plan, self.facts["base"]["name"], self.facts["data"]["name"]),
            "facts": dict(self.facts),
            **({} if self.plan.tune is None else {"tuning": [tuning.to_json() for tuning in self.tunings]}),
            "test_rows": list(self.test.rows),
            "runs": [_rounded(run) for run in self.runs],
        }


def gathered(
    plan: Plan,
    outcomes: Sequence[Outcome],
    datasets: Datasets,
    failures: Sequence[Failure],
    facts: Mapping[str, Any],
    tunings: tuple[Tuning, ...] = (),
) -> TaskComparison:
    """What the finished cells and the baselines come to.

    Strategies take part with the seeds that are whole for all of them; where there would be none, without the one that
    has the fewest.
    """
    whole: dict[str, dict[int, list[Outcome]]] = {}
    for contender in plan.contenders:
        mine = ((outcome.seed, outcome) for outcome in outcomes if outcome.label == contender.label)
        if seeds := whole_seeds(mine, len(datasets)):
            whole[contender.label] = seeds
    while whole and not (common := set.intersection(*(set(seeds) for seeds in whole.values()))):
        del whole[min(whole, key=lambda label: len(whole[label]))]
    runs = [_run_of(seeds[seed], datasets) for seeds in whole.values() for seed in plan.seeds if seed in common]
    lost = list(failures)
    for label, measure in zip(BASELINES, (task_baselines.constant, task_baselines.tfidf), strict=True):
        try:
            runs.append(_baseline(label, measure, datasets))
        except Exception as error:  # of a library: no reason to lose what the strategies found
            lost.append(Failure(label, label, type(error).__name__, str(error)))
    return TaskComparison(plan, tuple(runs), tuple(lost), facts, datasets, tunings)


@dataclass(frozen=True)
class _Answered:
    """What was answered on one fold, by the task as it was settled there."""

    task: Task
    data: Dataset
    validation_logits: Any
    test_logits: Any

    def targets(self) -> Any:
        return self.task.targets(self.data.test.labels)

    def common(self, first: Task) -> Any:
        """The test logits as the task of the ``first`` fold would have to say them to give the same answers."""
        if isinstance(self.task, Regression) and isinstance(first, Regression):
            return (self.task.values(self.test_logits)[:, None] - first.mean) / first.std
        if isinstance(self.task, Multilabel):
            return self.test_logits - np.log(self.task.cuts / (1 - self.task.cuts))
        return self.test_logits

    def costs(self, part: Part, logits: Any) -> Any:
        return self.task.costs(self.task.targets(part.labels), logits)

    def values(self) -> Any:
        return self.task.values(self.test_logits) if hasattr(self.task, "values") else None


def _run_of(outcomes: Sequence[Outcome], datasets: Datasets) -> TaskRun:
    """The folds of one strategy with one seed as one run."""
    by_fold = {outcome.fold: outcome for outcome in outcomes}
    parts = []
    for (_, fold), data in datasets.items():
        outcome = by_fold[fold]
        assert outcome.task is not None
        task = create(data.task.name, outcome.task["labels"], settings=outcome.task["settings"])
        logits = (part.probabilities.astype(np.float32) for part in (outcome.validation, outcome.test))
        parts.append(_Answered(task, data, *logits))
    first = outcomes[0]
    return _pooled(
        TaskRun(
            first.label,
            first.seed,
            {},
            [],
            [],
            parameters=first.trainable_parameters,
            bytes=first.adapter_bytes,
            seconds=float(np.mean([outcome.cold_seconds for outcome in outcomes])),
            peak_memory_bytes=max(outcome.peak_memory_bytes for outcome in outcomes),
            settings=first.settings | rate_of([first.training]),
        ),
        parts,
    )


def _baseline(label: str, measure: Callable[[Dataset], task_baselines.Plain], datasets: Datasets) -> TaskRun:
    parts, plains = [], []
    for data in datasets.values():
        plain = measure(data)
        targets = data.task.targets(data.validation.labels)
        task = plain.settled or data.task.settled(targets, plain.validation_logits)
        parts.append(_Answered(task, data, plain.validation_logits, plain.test_logits))
        plains.append(plain)
    seconds = float(np.mean([plain.seconds for plain in plains]))
    return _pooled(TaskRun(label, 0, {}, [], [], seconds=seconds, settings=dict(plains[0].choice)), parts)


def _pooled(run: TaskRun, parts: Sequence[_Answered]) -> TaskRun:
    """``run`` with scores and costs of all folds."""
    tests, validations = ([getattr(part.data, name) for part in parts] for name in ("test", "validation"))
    values = [part.values() for part in parts]
    return replace(
        run,
        scores=_scores(parts),
        costs=_in_order(tests, [part.costs(part.data.test, part.test_logits) for part in parts]),
        validation_costs=_in_order(
            validations, [part.costs(part.data.validation, part.validation_logits) for part in parts]
        ),
        values=[] if values[0] is None else _in_order(tests, values),
    )


def _in_order(parts: Sequence[Part], values: Sequence[Any]) -> list[float]:
    """Values of the rows of ``parts`` in the order of `_together`."""
    order = np.argsort(np.concatenate([np.asarray(part.rows) for part in parts]), kind="stable")
    return [float(value) for value in np.concatenate(values)[order]]


def _together(parts: Sequence[Part]) -> Part:
    """The rows of all parts, by their numbers."""
    whole = Part.joined(parts)
    return whole.take(np.argsort(np.asarray(whole.rows), kind="stable").tolist())


def _scores(parts: Sequence[_Answered]) -> dict[str, Any]:
    """All scores of the test rows of all folds, each answered by its own task; the loss is a mean over rows."""
    first = parts[0].task
    if len(parts) == 1:
        return first.assess(parts[0].targets(), parts[0].test_logits)
    first = first.unsettled()
    targets = np.concatenate([part.targets() for part in parts])
    found = first.assess(targets, np.concatenate([part.common(first) for part in parts]))
    if isinstance(first, Multilabel):  # areas are about the order of the probabilities, thresholds or not
        plain = first.assess(targets, np.concatenate([part.test_logits for part in parts]))
        found["macro_pr_auc"] = plain["macro_pr_auc"]
        for label, scores in found["per_label"].items():
            scores["pr_auc"] = plain["per_label"][label]["pr_auc"]
    rows = [len(part.data.test) for part in parts]
    losses = [part.task.mean_loss(part.targets(), part.test_logits) for part in parts]
    found.pop("thresholds", None)  # each fold has its own
    return {**found, "loss": float(np.average(losses, weights=rows))}


def _rounded(run: TaskRun) -> dict[str, Any]:
    value = asdict(run)
    for name in ("costs", "validation_costs", "values"):
        value[name] = [float(f"{number:.{DIGITS}g}") for number in value[name]]
    return value
