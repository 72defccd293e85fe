"""The loop: what it promises whatever the strategy."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.base.digest import backbone_digest
from lora_clf.data.dataset import Dataset, Part
from lora_clf.errors import TrainingError, UsageError
from lora_clf.inference.batches import split_rows
from lora_clf.inference.runner import Runner
from lora_clf.training.loop import train
from lora_clf.training.result import Progress, Result
from lora_clf.training.schedule import rate_share
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create, strategies
from tests.bases import tiny_base


def toy(rows: int = 48, classes: int = 2) -> Dataset:
    """Texts whose class shows in their letters; lengths differ."""
    random = np.random.default_rng(0)

    def part(count: int, start: int) -> Part:
        labels = [f"c{i % classes}" for i in range(count)]
        letters = ["abcdefgh", "stuvwxyz", "01234567"]
        texts = ["".join(random.choice(list(letters[i % classes]), 3 + (7 * i) % 19)) for i in range(count)]
        return Part(tuple(texts), tuple(labels), tuple(range(start, start + count)), {})

    parts = part(rows, 1), part(16, 100), part(16, 200)
    labels = tuple(f"c{i}" for i in range(classes))
    positive = "c1" if classes == 2 else None
    return Dataset("toy", *parts, labels, positive, "given", "0" * 64, "CC0-1.0", "made here")


FAST = TrainSettings(epochs=2, batch_size=8, lr=1e-2, precision="fp32")


@pytest.mark.parametrize("strategy", list(strategies()))
def test_same_seed_same_weights_and_another_seed_others(strategy: str) -> None:
    base, data = tiny_base("bert"), toy(24)
    options = {"dropout": 0.3} if "dropout" in type(create(strategy)).flags() else {}
    runs = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # What was drawn before must not matter.
        runs.append(train(base, data, create(strategy, **options), replace(FAST, seed=seed)))
    first, again, other = (run.adapter.tuned.state_dict() for run in runs)
    assert len(first) >= 2
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert runs[0].validation == runs[1].validation and runs[0].history == runs[1].history
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest


def test_it_learns_and_reports() -> None:
    seen: list[Progress] = []
    result = train(tiny_base("gpt2"), toy(), create("lora"), replace(FAST, epochs=4), progress=seen.append)
    assert result.test["accuracy"] == 1.0
    assert result.test["accuracy"] == float((result.test_logits.argmax(1) == toy().label_ids(toy().test)).mean())
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4]
    assert [entry["examples"] for entry in result.history] == [48, 96, 144, 192]
    assert seen[-1].step == seen[-1].steps == 4 * 6
    assert sum(progress.validation is not None for progress in seen) == 4
    assert 0 < result.training_seconds <= result.seconds
    assert result.trainable_parameters == result.adapter.tuned.trainable_parameters
    assert 0 < result.share < 1


@pytest.mark.parametrize("strategy", ["lora-scratch", "last-block", "prefix-tuning"])
def test_scores_of_many_rows_are_those_of_the_adapter(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For many rows a faster copy answers, which leaves the trained weights as they are."""
    few = train(tiny_base("gpt2"), toy(), create(strategy), FAST)
    monkeypatch.setattr("lora_clf.inference.predict.MANY", 1)
    many = train(tiny_base("gpt2"), toy(), create(strategy), FAST)
    assert few.test_logits.shape == (16, 2) and few.test_logits.std() > 1e-2
    np.testing.assert_allclose(many.test_logits, few.test_logits, rtol=1e-5, atol=1e-5)
    states = few.adapter.tuned.state_dict(), many.adapter.tuned.state_dict()
    assert len(states[0]) > 2 and all(torch.equal(each, states[1][name]) for name, each in states[0].items())


def test_the_adapter_scores_what_the_result_says() -> None:
    data = toy()
    result = train(tiny_base("bert"), data, create("last-block"), FAST)
    again = result.adapter.logits(data.test.texts)
    np.testing.assert_allclose(again, result.test_logits, rtol=1e-4, atol=1e-5)


def test_the_best_epoch_is_kept_and_patience_stops() -> None:
    # A rate that ruins the weights after the first steps: later epochs are worse than the best.
    settings = replace(FAST, epochs=12, lr=0.3, patience=2, clip=0.0, warmup=0.0)
    result = train(tiny_base("bert"), toy(), create("full"), settings)
    losses = [entry["validation"]["loss"] for entry in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.validation["loss"] == pytest.approx(min(losses), rel=1e-4)
    assert len(losses) < 12 and len(losses) - result.best_epoch == 2


def test_accumulated_steps_equal_the_large_batch() -> None:
    base, data = tiny_base("bert"), toy()
    large = train(base, data, create("lora"), replace(FAST, batch_size=16, epochs=1))
    # Batches of 8 are drawn as other rows than batches of 16, so compare on one batch an epoch.
    whole = train(base, data, create("lora"), replace(FAST, batch_size=48, epochs=2))
    parts = train(base, data, create("lora"), replace(FAST, batch_size=8, accumulate=6, epochs=2))
    assert large.history[0]["train_loss"] != whole.history[0]["train_loss"]
    for ours, theirs in zip(parts.history, whole.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert ours["validation"]["loss"] == pytest.approx(theirs["validation"]["loss"], rel=1e-3)


def test_a_loss_that_is_not_finite_stops_with_a_clear_line() -> None:
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) at step \d+ of \d+.*Try --lr"):
        train(tiny_base("gpt2"), toy(), create("full"), replace(FAST, lr=1e20, clip=0.0, epochs=5))


@pytest.mark.parametrize("classes", [2, 3])
def test_more_classes(classes: int) -> None:
    result = train(tiny_base("bert"), toy(classes=classes), create("head-only"), replace(FAST, epochs=1))
    assert result.test_logits.shape == (16, classes)
    assert len(result.test["confusion_matrix"]) == classes


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"--epochs -1.*--batch-size -1.*--lr nan.*--warmup 2"):
        TrainSettings(epochs=-1, batch_size=-1, lr=math.nan, warmup=2)
    with pytest.raises(UsageError, match="1 to 96 tokens"):
        train(tiny_base("bert"), toy(), create("head-only"), replace(FAST, max_length=500))


def test_warm_up_then_decay() -> None:
    shares = [rate_share("linear", step, 20, 0.1) for step in range(20)]
    assert shares[:2] == [0.5, 1.0]
    assert shares[2] == 1.0 and all(a > b for a, b in itertools.pairwise(shares[2:]))
    assert shares[-1] == pytest.approx(1 / 18)
    assert rate_share("linear", 0, 1, 0.1) == 1.0


def test_weight_decay_spares_norms_and_biases() -> None:
    tuned = create("full").prepare(tiny_base("bert").view(2))
    matrices, vectors = tuned.parameter_groups(1e-3, 0.01)
    assert matrices["weight_decay"] == 0.01 and vectors["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in matrices["params"]) and all(p.ndim == 1 for p in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(tuned.trainable())


def test_a_scaled_loss_changes_nothing_but_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fp16 needs, here in fp32: powers of two go in and come out again."""
    base, data = tiny_base("bert"), toy()
    plain = train(base, data, create("lora"), FAST)
    enabled = torch.amp.GradScaler

    def scaler(device: str, **_: object) -> torch.amp.GradScaler:
        return enabled(device, enabled=True, init_scale=2.0**10)

    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    scaled = train(base, data, create("lora"), FAST)
    for ours, theirs in zip(scaled.history, plain.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
    np.testing.assert_allclose(scaled.test_logits, plain.test_logits, rtol=1e-4, atol=1e-4)


def test_parts_of_a_batch_give_the_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for tokens, calls in ((10_000, 1), (12, 2)):
        monkeypatch.setattr("lora_clf.inference.runner.TRAINED_TOKENS", tokens)
        monkeypatch.setattr("lora_clf.inference.runner.MOST_TRAINED_TOKENS", tokens)
        seen: list[int] = []

        def counted(rows: Any, lengths: Any, limit: int, seen: list[int] = seen, whole: Any = split_rows) -> Any:
            parts = whole(rows, lengths, limit)
            seen.append(len(parts))
            return parts

        monkeypatch.setattr("lora_clf.inference.runner.split_rows", counted)
        settings = TrainSettings(precision="fp32", epochs=3, batch_size=8)
        found.append(train(tiny_base("bert"), toy(), create("lora-scratch"), settings))
        assert min(seen) >= calls
    for one, other in zip(found[0].history, found[1].history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    np.testing.assert_allclose(found[0].test_logits, found[1].test_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"class_weight": "c0=3,c1=1", "accumulate": 2},
        {"sampling": "balanced", "label_smoothing": 0.1},
    ],
)
def test_copies_train_as_if_each_were_computed(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies with other labels among them, and one text more often than stands together."""
    data, computed = toy(), []
    rows = [*range(40), *range(20), *[3] * 9]
    labels = [data.train.labels[row] for row in rows[:60]] + ["c0", "c1", "c0"] * 3
    data = replace(data, train=replace(data.train.take(rows), labels=tuple(labels)))

    def run() -> Result:
        asked = TrainSettings(precision="fp32", epochs=3, batch_size=8, **settings)
        return train(tiny_base("bert"), data, create("lora-scratch"), asked)

    vectors = Runner._vectors

    def counted(self: Runner, part: str, rows: Any, **more: Any) -> Any:
        computed.append(len(rows) if part == "train" else 0)
        return vectors(self, part, rows, **more)

    monkeypatch.setattr(Runner, "_vectors", counted)
    once = run()
    assert len(once.history) == 3 and once.history[-1]["examples"] == 3 * 69
    saved = 3 * 69 - sum(computed)
    assert saved > (20 if "sampling" in settings else 60)  # of 29 copies an epoch most meet another
    monkeypatch.setattr(Runner, "_of_each", vectors)
    apart = run()
    for one, other in zip(once.history, apart.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    np.testing.assert_allclose(once.test_logits, apart.test_logits, rtol=1e-3, atol=1e-4)
