"""The best epoch is the one that the chosen validation score says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_clf.errors import UsageError
from lora_clf.training.loop import train
from lora_clf.training.result import Result
from lora_clf.training.settings import TrainSettings
from lora_clf.training.stopping import worth
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import toy

# A rate at which epochs differ and do not just get better.
SETTINGS = TrainSettings(epochs=8, batch_size=8, lr=0.01, warmup=0.0, clip=0.0, schedule="constant", precision="fp32")


def run(classes: int = 2, **asked: Any) -> Result:
    return train(tiny_base("bert"), toy(24, classes), create("lora"), replace(SETTINGS, **asked))


@pytest.mark.parametrize("score", ["loss", "accuracy", "macro-f1", "mcc", "balanced-accuracy", "brier", "f1", "pr-auc"])
def test_the_best_epoch_by_each_score(score: str) -> None:
    result = run(stop_on=score)
    marks = [worth(entry["validation"], score) for entry in result.history]
    assert len(marks) == 8 and result.best_epoch == 1 + marks.index(min(marks))
    key = score.replace("-", "_")
    values = [entry["validation"][key] for entry in result.history]
    best = min(values) if score in ("loss", "brier") else max(values)
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


def test_a_score_that_is_no_number_is_the_worst() -> None:
    assert worth({"accuracy": float("nan"), "loss": 0.1}, "accuracy") > worth(
        {"accuracy": 0.0, "loss": 9.0}, "accuracy"
    )
    assert worth({"loss": float("nan")}, "loss") > worth({"loss": 9.0}, "loss")
