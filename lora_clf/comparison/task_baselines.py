"""The plain answers that every strategy has to beat where the task is not one label of several.

As logits of the task, so that the task itself answers and scores them as it does an adapter's. Shapes: N rows, C
outputs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.baselines import (
    FOLDS,
    RECIPES,
    Answer,
    Fit,
    Rows,
    choice_of,
    cuts_of,
    elect,
    learn_words,
    logistic,
    shares_of,
)
from lora_clf.errors import UsageError
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.data.dataset import Dataset
    from lora_clf.tasks.base import Task

SURE = 30.0  # the largest log-odds that a share of 0 or 1 becomes


@dataclass(frozen=True)
class Plain:
    """What a plain model answers.

    Attributes:
        validation_logits: (N, C) in the task's sense. ``test_logits`` likewise.
        seconds: of everything, the choice between recipes included.
        choice: the recipe that won.
        settled: the task as it answers, where validation has nothing to settle.
    """

    validation_logits: NDArray[np.float32]
    test_logits: NDArray[np.float32]
    seconds: float
    choice: dict[str, str | float | int] = field(default_factory=dict)
    settled: Task | None = None


def constant(data: Dataset) -> Plain:
    """Say the same of every text: the mean number, the shares of the classes, the most frequent set of labels.

    The mean has the lowest squared error, the median class the fewest ranks to go, that set is right most often.
    """
    start = time.perf_counter()
    task, targets, settled = data.task, data.task.targets(data.train.labels), None
    if isinstance(task, Regression):
        row = np.zeros(1)  # the mean of the training part, in its units
    elif isinstance(task, Ordinal):
        row = _ratio_logits(np.bincount(targets, minlength=len(task.labels))[None] / len(targets))[0]
    else:
        assert isinstance(task, Multilabel)
        shares = targets.mean(axis=0, dtype=np.float64)
        row = _log_odds(shares)
        sets, counts = np.unique(targets, axis=0, return_counts=True)
        cuts = np.where(sets[counts.argmax()] > 0.5, shares / 2, (1 + shares) / 2)  # no F1: saying all labels has one
        settled = replace(task, thresholds=tuple(cuts.tolist()))
    validation, test = (np.tile(row.astype(np.float32), (len(part), 1)) for part in (data.validation, data.test))
    return Plain(validation, test, time.perf_counter() - start, settled=settled)


def tfidf(data: Dataset, seed: int = 0) -> Plain:
    """TF-IDF with ridge regression, or with logistic regression: one over the classes in order, one for each label.

    Recipe and strength are chosen by the task's own primary score on folds of the training part; near copies, and
    rows of one group, are in one fold.
    """
    start = time.perf_counter()
    task, texts, targets = data.task, data.train.texts, data.task.targets(data.train.labels)
    fit = _fit_of(task, targets, seed)
    cuts = cuts_of(task.strata(data.train.labels), min(FOLDS, len(texts)), seed, data.groups(data.train))
    if isinstance(task, Ordinal):  # a regression over one class has no answer
        cuts = [(learn, judge) for learn, judge in cuts if len(np.unique(targets[learn])) > 1]

    def merit(answers: list[NDArray[Any]]) -> float:
        lost = 0.0
        for (_, judge), said in zip(cuts, answers, strict=True):
            lost += float(task.costs(targets[judge], said).sum())
        return -lost

    recipe, strength = elect(texts, cuts, fit, merit, fallback=(RECIPES[0], 1.0))
    vectoriser, features = learn_words(recipe, texts)
    answer = fit(features, np.arange(len(texts)), strength)
    validation, test = (answer(vectoriser.transform(part.texts)) for part in (data.validation, data.test))
    return Plain(validation, test, time.perf_counter() - start, choice_of(recipe, strength))


def _fit_of(task: Task, targets: Any, seed: int) -> Fit:
    """How a model of the task is fitted to ``targets``, those of all training rows."""

    def ridge(features: Any, rows: Rows, strength: float) -> Answer:
        from sklearn.linear_model import Ridge

        assert isinstance(task, Regression)
        # 1 is the default, and as for the others a larger strength is a smaller penalty.
        model = Ridge(alpha=1.0 / strength, random_state=seed).fit(features, (targets[rows] - task.mean) / task.std)
        return lambda unseen: np.asarray(model.predict(unseen), dtype=np.float32)[:, None]

    def ordered(features: Any, rows: Rows, strength: float) -> Answer:
        model = logistic(features, targets[rows], strength, seed)
        return lambda unseen: _ratio_logits(shares_of(model, unseen, len(task.labels))).astype(np.float32)

    def each_label(features: Any, rows: Rows, strength: float) -> Answer:
        models = [
            logistic(features, column > 0.5, strength, seed) if 0 < column.sum() < len(column) else float(column.mean())
            for column in targets[rows].T
        ]

        def answer(unseen: Any) -> NDArray[np.float32]:
            columns = [
                np.full(unseen.shape[0], _log_odds(np.array([model]))[0])
                if isinstance(model, float)
                else model.decision_function(unseen)
                for model in models
            ]
            return np.stack(columns, axis=1).astype(np.float32)

        return answer

    if isinstance(task, Regression):
        return ridge
    if isinstance(task, Ordinal):
        return ordered
    if isinstance(task, Multilabel):
        return each_label
    raise UsageError(f"A {task.name} task has its baselines in lora_clf.comparison.baselines.")


def _log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(p / (1 - p)), bounded."""
    tiny = np.exp(-SURE)
    p = np.clip(shares, tiny, 1 - tiny)
    found: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return found


def _ratio_logits(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class shares (N, K) as log-odds of going beyond each class once it is reached (N, K - 1)."""
    beyond = np.cumsum(shares[:, ::-1], axis=1)[:, ::-1][:, 1:]  # P(y > k)
    tiny = np.exp(-SURE)
    found: NDArray[np.float64] = np.log(np.maximum(beyond, tiny)) - np.log(np.maximum(shares[:, :-1], tiny))
    return np.clip(found, -SURE, SURE)
