"""The recipe beyond one label of several: which of it means something for a task, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_clf.errors import UsageError
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.training.class_weight import positive_weights
from lora_clf.training.convex import solve_task_head
from lora_clf.training.loop import train
from lora_clf.training.objective import Objective
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.adapters.making import shared_base
from tests.tasks.test_every_task import dataset
from tests.training.test_objective import STEP, gradients

SETTINGS = TrainSettings(epochs=2, batch_size=6, max_length=24, precision="fp32")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("multilabel", {"class_weight": "a=4,c=0.5"}),
        ("multilabel", {}),
        ("ordinal", {"class_weight": "low=5"}),
        ("regression", {"loss": "huber"}),
    ],
)
def test_accumulated_gradients_are_those_of_the_large_batch(
    name: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, data, settings = shared_base("bert"), dataset(name), replace(STEP, **asked)
    (whole,) = gradients(monkeypatch, base, data, create("lora"), settings=replace(settings, batch_size=18))
    (parts,) = gradients(
        monkeypatch, base, data, create("lora"), settings=replace(settings, batch_size=5, accumulate=4)
    )
    largest = max(float(each.abs().max()) for each in whole.values())
    assert largest > 1e-4 and whole.keys() == parts.keys()
    assert all(float((parts[key] - each).abs().max()) <= 1e-6 * largest for key, each in whole.items())


def test_with_several_labels_each_weighs_the_rows_that_have_it() -> None:
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(positive_weights("balanced", "abc", targets), [3, 3, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(positive_weights("c=2", "abc", targets), [1, 1, 2])  # type: ignore[arg-type]
    assert positive_weights("none", "abc", targets) is None
    task, logits = Multilabel(("a", "b", "c")), torch.randn(4, 3, dtype=torch.float64)
    found = Objective(task, TrainSettings(class_weight="balanced"), targets)
    wanted = torch.from_numpy(targets).double()
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    expected = (plain * torch.where(wanted > 0.5, torch.tensor([3.0, 3.0, 1.0]), torch.ones(3))).mean(1)
    torch.testing.assert_close(found.row_losses(logits, wanted), expected)
    torch.testing.assert_close(found.summed(logits, wanted, np.arange(4)), expected.sum())
    assert not found.plain and found.weight(np.arange(3)) == 3.0


def test_a_weight_of_three_is_the_text_three_times_for_ordered_classes_too() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(150, 5)).astype(np.float32)
    ranks = np.clip(np.round(x[:, 0] + draw.normal(size=150) / 2) + 1, 0, 2).astype(np.int64)
    times, folds = np.array([3, 1, 1])[ranks], np.arange(150) % 5
    rows, losses = np.repeat(np.arange(150), times), Ordinal(("l", "m", "h")).row_losses
    weighed = solve_task_head(x, ranks, 2, losses, folds, bias=True, weights=times.astype(np.float64))
    repeated = solve_task_head(x[rows], ranks[rows], 2, losses, folds[rows], bias=True)
    assert weighed.strength == repeated.strength
    np.testing.assert_allclose(weighed.weight, repeated.weight, atol=1e-4)


@pytest.mark.parametrize("strategy", ["head-only", "lora"])
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("ordinal", {"class_weight": "low=6"}),
        ("ordinal", {"class_weight": "balanced"}),
        ("ordinal", {"sampling": "balanced"}),
        ("multilabel", {"class_weight": "balanced"}),
        ("regression", {"loss": "huber"}),
    ],
)
def test_what_means_something_changes_the_weights(strategy: str, name: str, asked: dict[str, Any]) -> None:
    data = dataset(name)
    data = replace(data, train=data.train.take([*range(0, 18, 3), *range(1, 9, 2)]))
    runs = [train(shared_base("bert"), data, create(strategy), replace(SETTINGS, **each)) for each in ({}, asked)]
    assert not np.allclose(runs[0].test_logits, runs[1].test_logits, atol=1e-5)
    assert all(runs[1].adapter.header.training[key] == value for key, value in asked.items() if key != "loss")
    assert all(("solver" in run.adapter.header.training) == (strategy == "head-only") for run in runs)


def test_only_flags_that_were_given_are_named() -> None:
    """What was not trained at all was not trained in steps for the sake of some flag."""
    untouched = train(shared_base("bert"), dataset("binary"), create("head-only"), replace(SETTINGS, epochs=0))
    assert not any("convex" in warning for warning in untouched.warnings)
    with pytest.raises(UsageError, match="--focal-gamma 5 is about --loss focal"):
        replace(SETTINGS, focal_gamma=5.0)


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("regression", {"class_weight": "balanced"}, "The task is regression, but --class-weight weighs labels."),
        (
            "regression",
            {"sampling": "balanced", "label_smoothing": 0.1},
            "--sampling draws.*; --label-smoothing spreads",
        ),
        (
            "multilabel",
            {"sampling": "balanced"},
            "The task is multilabel, but --sampling draws texts by their one label.",
        ),
        ("multilabel", {"class_weight": "d=3"}, "--class-weight names d; the data has no such label, it has a, b, c"),
        ("ordinal", {"label_smoothing": 0.1}, "labels without an order"),
        (
            "ordinal",
            {"loss": "focal"},
            "Unknown loss of an? ordinal task 'focal'",
        ),
    ],
)
def test_what_means_nothing_is_refused(name: str, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(shared_base("bert"), dataset(name), create("lora"), replace(SETTINGS, **asked))


@pytest.mark.parametrize(
    ("name", "score"), [("regression", "r2"), ("ordinal", "quadratic-kappa"), ("multilabel", "micro-f1")]
)
def test_the_best_epoch_by_a_score_of_the_task(name: str, score: str) -> None:
    settings = replace(SETTINGS, epochs=4, stop_on=score)
    result = train(shared_base("bert"), dataset(name), create("lora"), settings)
    key = score.replace("-", "_")
    assert result.history[result.best_epoch - 1]["validation"][key] == max(e["validation"][key] for e in result.history)
    with pytest.raises(UsageError, match="Unknown score for --stop-on 'mcc'"):
        train(shared_base("bert"), dataset(name), create("lora"), replace(settings, stop_on="mcc"))


def test_every_task_has_a_diagnosis() -> None:
    for name in ("regression", "ordinal", "multilabel"):
        still = train(shared_base("bert"), dataset(name), create("lora"), replace(SETTINGS, lr=1e-9))
        found = {finding.name: finding for finding in still.diagnosis}
        assert "not learning" in found and "1e-09 is low" in found["not learning"].advice, name
        assert ("too few examples" in found) == (name != "regression")
