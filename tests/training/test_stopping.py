"""The best epoch is the one that the chosen validation score says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_clf.errors import UsageError
from lora_clf.tasks.classification import Classification
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression
from lora_clf.training.loop import train
from lora_clf.training.result import Result
from lora_clf.training.settings import TrainSettings
from lora_clf.training.stopping import check_score, lower_is_better, worth
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import toy

# A rate at which epochs differ and do not just get better.
SETTINGS = TrainSettings(epochs=8, batch_size=8, lr=0.01, warmup=0.0, clip=0.0, schedule="constant", precision="fp32")


def run(classes: int = 2, **asked: Any) -> Result:
    return train(tiny_base("bert"), toy(24, classes), create("lora"), replace(SETTINGS, **asked))


LOW = ("loss", "brier", "false-positive-rate")


@pytest.mark.parametrize("score", [*LOW, "accuracy", "macro-f1", "mcc", "balanced-accuracy", "f1", "pr-auc"])
def test_the_best_epoch_by_each_score(score: str) -> None:
    result = run(stop_on=score)
    marks = [worth(entry["validation"], score) for entry in result.history]
    assert len(marks) == 8 and result.best_epoch == 1 + marks.index(min(marks))
    key = score.replace("-", "_")
    values = [entry["validation"][key] for entry in result.history]
    best = min(values) if score in LOW else max(values)
    assert len(set(values)) > 1 and result.validation[key] == pytest.approx(best, rel=1e-4)


def test_among_equal_scores_the_loss_decides() -> None:
    result = run(stop_on="accuracy")
    accuracies = np.array([entry["validation"]["accuracy"] for entry in result.history])
    losses = np.array([entry["validation"]["loss"] for entry in result.history])
    best = np.flatnonzero(accuracies == accuracies.max())
    assert len(best) > 1 and result.best_epoch == 1 + best[losses[best].argmin()]


def test_patience_counts_epochs_without_a_better_score() -> None:
    result = run(stop_on="mcc", patience=1, epochs=20)
    assert len(result.history) == result.best_epoch + 1 < 20
    assert result.adapter.header.training["stop_on"] == "mcc"


def test_a_score_that_there_is_not_is_refused_before_training() -> None:
    with pytest.raises(UsageError, match=r"Unknown score for --stop-on 'macro-f2'. Did you mean 'macro-f1'"):
        run(stop_on="macro-f2")
    with pytest.raises(UsageError, match=r"Unknown score for --stop-on 'recall'.*Those of one class need two labels"):
        run(classes=3, stop_on="recall")


def test_every_score_of_every_task_says_which_is_better() -> None:
    draw = np.random.default_rng(0)
    three, numbers = ("a", "b", "c"), draw.normal(size=40)
    found = {
        "binary": Classification(("a", "b"), "b").assess(draw.integers(0, 2, 40), draw.normal(size=(40, 2))),
        "multilabel": Multilabel(three).assess(draw.integers(0, 2, (40, 3)), draw.normal(size=(40, 3))),
        "ordinal": Ordinal(three).assess(draw.integers(0, 3, 40), draw.normal(size=(40, 2))),
        "regression": Regression(("x",)).assess(numbers, numbers[:, None] + 0.1),
    }
    assert len(found) == 4 and all(len(metrics) > 5 for metrics in found.values())
    for metrics in found.values():
        for name, value in metrics.items():
            if not isinstance(value, float):
                continue
            if name in ("labels_per_row", "labels_given_per_row"):  # a count, of which no more nor less is better
                with pytest.raises(UsageError, match="Unknown score"):
                    check_score(name, metrics)
            else:
                check_score(name, metrics)
                errs = any(part in name for part in ("loss", "error", "brier", "false", "mae", "rmse"))
                assert lower_is_better(name) == errs, name


def test_a_score_that_is_no_number_is_the_worst() -> None:
    assert worth({"accuracy": float("nan"), "loss": 0.1}, "accuracy") > worth(
        {"accuracy": 0.0, "loss": 9.0}, "accuracy"
    )
    assert worth({"loss": float("nan")}, "loss") > worth({"loss": 9.0}, "loss")
