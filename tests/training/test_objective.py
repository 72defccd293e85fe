"""What a step minimises: a weighted mean over its rows, however they are cut into batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_clf.data.dataset import Dataset
from lora_clf.errors import UsageError
from lora_clf.tasks.classification import Classification
from lora_clf.training.class_weight import class_weights
from lora_clf.training.loop import train
from lora_clf.training.objective import Objective
from lora_clf.training.run import Run
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import toy

LOGITS = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (50, 3)))
TARGETS = torch.from_numpy(np.random.default_rng(1).integers(0, 3, 50))
TASK = Classification(("a", "b", "c"))
# Both are off, so that one step sees the gradients of the losses and nothing else.
STEP = TrainSettings(epochs=1, lr=1e-3, clip=0.0, precision="fp32", seed=1)
SKEWED = "c0=1,c1=7.5"


def losses(logits: Tensor, targets: Tensor, settings: TrainSettings) -> Tensor:
    return Objective(TASK, settings, targets.numpy()).row_losses(logits, targets)


def skewed(rows: int = 37) -> Dataset:
    """One text of four is c1; lengths differ, and the last batch is smaller."""
    whole = toy(rows=2 * rows)
    order = [i for i in range(2 * rows) if i % 2 == 0 or i % 8 == 1][:rows]
    return replace(whole, train=whole.train.take(order))


def gradients(monkeypatch: pytest.MonkeyPatch, *args: Any, settings: TrainSettings) -> list[dict[str, Tensor]]:
    """The gradients of each step of a training, before the optimizer moves."""
    found: list[dict[str, Tensor]] = []
    real: Callable[[Run], bool] = Run._move

    def seen(run: Run) -> bool:
        trainable = run.tuned.trainable()
        assert all(p.grad is not None for p in trainable.values())
        found.append({name: p.grad.clone() for name, p in trainable.items() if p.grad is not None})
        return real(run)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_move", seen)
        train(*args, settings)
    return found


@pytest.mark.parametrize(
    ("base", "strategy", "asked"),
    [
        ("bert", "lora", {}),
        ("bert", "full", {"class_weight": SKEWED}),
        ("bert", "head-only", {"class_weight": "balanced"}),
        ("bert", "prefix-tuning", {"class_weight": SKEWED, "label_smoothing": 0.1}),
        ("gpt2", "last-block", {"class_weight": SKEWED}),
        ("gpt2", "lora-scratch", {"class_weight": "balanced", "loss": "focal"}),
        ("llama", "lora", {"class_weight": SKEWED}),
        ("distilbert", "bottleneck", {"class_weight": SKEWED, "label_smoothing": 0.2}),
        ("roberta", "ia3", {"loss": "focal"}),
        ("modernbert", "layer-norm", {"class_weight": SKEWED}),
    ],
)
def test_accumulated_gradients_are_those_of_the_large_batch(
    base: str, strategy: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, settings = tiny_base(base), skewed(), replace(STEP, **asked)
    (whole,) = gradients(monkeypatch, model, data, create(strategy), settings=replace(settings, batch_size=37))
    (parts,) = gradients(
        monkeypatch, model, data, create(strategy), settings=replace(settings, batch_size=8, accumulate=5)
    )
    assert whole.keys() == parts.keys() and len(whole) >= 2
    largest = max(float(each.abs().max()) for each in whole.values())
    assert largest > 1e-3
    for name, expected in whole.items():
        assert float((parts[name] - expected).abs().max()) <= 1e-6 * largest, name


def test_a_mean_of_the_batches_own_means_would_be_another_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches of the test above differ enough for a wrong normaliser to show."""
    settings = replace(STEP, batch_size=8, accumulate=5, class_weight=SKEWED)
    (right,) = gradients(monkeypatch, tiny_base("bert"), skewed(), create("lora"), settings=settings)

    def alike(objective: Objective, rows: Any) -> float:
        return float(len(rows)) * 37 / 8  # as if every batch weighed the same for each of its rows

    monkeypatch.setattr(Objective, "weight", alike)
    (wrong,) = gradients(monkeypatch, tiny_base("bert"), skewed(), create("lora"), settings=settings)
    largest = max(float(each.abs().max()) for each in right.values())
    assert max(float((wrong[name] - right[name]).abs().max()) for name in right) > 0.01 * largest


def test_a_weight_of_two_is_the_row_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    data = skewed(24)
    labels = data.train.labels
    twice = [row for row, label in enumerate(labels) for _ in range(2 if label == "c1" else 1)]
    assert len(labels) < len(twice) < 2 * len(labels)
    settings = replace(STEP, batch_size=64)
    found = [
        gradients(monkeypatch, tiny_base("bert"), each, create("lora"), settings=replace(settings, **asked))[0]
        for each, asked in ((data, {"class_weight": "c1=2"}), (replace(data, train=data.train.take(twice)), {}))
    ]
    largest = max(float(each.abs().max()) for each in found[0].values())
    assert all(float((found[1][name] - each).abs().max()) <= 1e-6 * largest for name, each in found[0].items())


def test_focal_loss_is_the_formula_and_has_its_gradient() -> None:
    for gamma in (0.0, 0.5, 2.0, 5.0):
        settings = TrainSettings(loss="focal", focal_gamma=gamma)
        share = LOGITS.softmax(-1).gather(1, TARGETS[:, None])[:, 0]
        expected = -((1 - share) ** gamma) * share.log()
        torch.testing.assert_close(losses(LOGITS, TARGETS, settings), expected)
        logits = LOGITS[:6].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda each, s=settings: losses(each, TARGETS[:6], s), logits)
    plain = losses(LOGITS, TARGETS, TrainSettings(loss="focal", focal_gamma=0.0))
    torch.testing.assert_close(plain, F.cross_entropy(LOGITS, TARGETS, reduction="none"))


def test_focal_loss_of_a_certain_row_is_finite() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    for gamma in (0.5, 2.0):
        found = losses(logits, torch.tensor([0, 0]), TrainSettings(loss="focal", focal_gamma=gamma))
        found.sum().backward()
        assert found[0] == 0 and found[1] == 400 and torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_smoothing_spreads_the_target() -> None:
    settings = TrainSettings(label_smoothing=0.3)
    targets = 0.7 * F.one_hot(TARGETS, 3) + 0.1
    torch.testing.assert_close(losses(LOGITS, TARGETS, settings), -(targets * LOGITS.log_softmax(-1)).sum(-1))


def test_balanced_weights_make_the_classes_weigh_the_same() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 87 + [1] * 13 + [2])
    weights = class_weights("balanced", "abc", labels)
    assert weights is not None
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    np.testing.assert_allclose(weights * np.bincount(labels), len(labels) / 3)
    without = class_weights("balanced", "abcd", labels)  # a label without a training row
    assert without is not None and np.isfinite(without).all()
    np.testing.assert_allclose(without[:3], weights)
    assert class_weights("none", "abc", labels) is None
    assert class_weights("b=3, a=0.5", "abc", labels).tolist() == [0.5, 3, 1]  # type: ignore[union-attr]


def test_weights_that_cannot_be_meant_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"'spam' is no LABEL=WEIGHT; the weight of b is '-1'.*; a is named twice"):
        TrainSettings(class_weight="spam,b=-1,a=1,a=2")
    with pytest.raises(UsageError, match="names spam, eggs; the data has no such label, it has c0, c1"):
        train(tiny_base("bert"), toy(), create("lora"), TrainSettings(class_weight="spam=2,eggs=3"))
    with pytest.raises(UsageError, match="both even out the labels"):
        TrainSettings(class_weight="balanced", sampling="balanced")
    with pytest.raises(
        UsageError, match=r"--schedule up: expected linear, cosine.*--layer-decay 0.*--label-smoothing 1"
    ):
        TrainSettings(schedule="up", layer_decay=0.0, label_smoothing=1.0)
    with pytest.raises(UsageError, match="another loss"):
        TrainSettings(label_smoothing=0.1, loss="focal")


def test_weights_find_the_rare_label() -> None:
    """Texts that say nothing of their label: whatever is common is answered, unless the rare one weighs more."""
    data = skewed(32)
    alike = data.train.texts[0]
    train_part = replace(data.train, texts=tuple(alike for _ in data.train.texts))
    data = replace(data, train=train_part)
    for asked, expected in (({}, "c0"), ({"class_weight": "c1=30"}, "c1"), ({"class_weight": "c1=0.1"}, "c0")):
        settings = replace(STEP, epochs=12, lr=2e-2, batch_size=8, **asked)  # type: ignore[arg-type]
        result = train(tiny_base("bert"), data, create("lora"), settings)
        assert result.adapter.predict([alike])[0].label == expected


def test_dropping_the_heads_inputs_is_for_training_alone() -> None:
    base, data = tiny_base("bert"), toy()
    settings = replace(STEP, epochs=2, batch_size=8)
    plain = train(base, data, create("lora"), settings)
    dropped = train(base, data, create("lora"), replace(settings, head_dropout=0.5))
    assert plain.history[0]["train_loss"] != dropped.history[0]["train_loss"]
    again = dropped.adapter.logits(data.test.texts)
    np.testing.assert_array_equal(again, dropped.adapter.logits(data.test.texts))
    np.testing.assert_allclose(again, dropped.test_logits, rtol=1e-4, atol=1e-5)


def test_at_their_defaults_the_settings_are_recorded_as_before() -> None:
    assert set(TrainSettings().as_dict()) == {
        "epochs", "batch_size", "lr", "weight_decay", "warmup", "clip", "accumulate", "patience", "seed", "max_length",
        "precision", "cache",
    }  # fmt: skip
    focal = TrainSettings(loss="focal", schedule="cosine").as_dict()
    assert (focal["loss"], focal["focal_gamma"], focal["schedule"]) == ("focal", 2.0, "cosine")
