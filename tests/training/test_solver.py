"""The solved head: at the minimum, agreeing with scikit-learn, chosen by folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lora_clf.data.near_copies import components
from lora_clf.inference.cache import prefix_cache
from lora_clf.metrics.probability import softmax
from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.training.solver import STRENGTHS, inner_folds, linear_of, solve_head
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import FAST, toy

RANDOM = np.random.default_rng(0)
FEATURES = (RANDOM.normal(size=(300, 12)) * np.linspace(0.01, 5, 12) + 3).astype(np.float32)
SCALED = (FEATURES - FEATURES.mean(0, np.float64)) / FEATURES.std(0, np.float64)
LABELS = np.argmax(SCALED[:, :3] + RANDOM.normal(size=(300, 3)), axis=1)
SETTINGS = TrainSettings(precision="fp32")


def held_out_loss(labels: np.ndarray, strength: float) -> float:
    """scikit-learn's mean loss on each fifth of the rows after training on the others."""
    total = 0.0
    for fold in range(5):
        out = np.arange(300) % 5 == fold
        trained = LogisticRegression(C=1 / ((~out).sum() * strength), tol=1e-8, max_iter=5000)
        trained.fit(SCALED[~out], labels[~out])
        total += log_loss(labels[out], trained.predict_proba(SCALED[out]), normalize=False)
    return float(total / 300)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_agrees_with_scikit_learn_at_the_chosen_strength(classes: int) -> None:
    labels = np.minimum(LABELS, classes - 1)
    solution = solve_head(FEATURES, labels, classes, np.arange(300) % 5, bias=True)
    if classes == 2:
        # Two columns of weights share one difference, so the same L2 strength weighs half on scikit-learn's one.
        theirs = LogisticRegression(C=2 / (300 * solution.strength), tol=1e-10, max_iter=5000).fit(SCALED, labels)
    else:
        theirs = LogisticRegression(C=1 / (300 * solution.strength), tol=1e-10, max_iter=5000).fit(SCALED, labels)
    ours = softmax(FEATURES @ solution.weight.T + solution.bias)
    np.testing.assert_allclose(ours, theirs.predict_proba(SCALED), atol=2e-4)
    held_out = [held_out_loss(labels, strength / (2 if classes == 2 else 1)) for strength in STRENGTHS]
    assert solution.strength == STRENGTHS[int(np.argmin(held_out))] and max(held_out) > min(held_out) + 0.01


def test_the_gradient_is_zero_at_the_solution() -> None:
    solution = solve_head(FEATURES, LABELS, 3, np.arange(300) % 5, bias=True)
    x = torch.from_numpy((FEATURES - FEATURES.mean(0)) / FEATURES.std(0)).double()
    weight = torch.from_numpy(solution.weight * FEATURES.std(0)).double().requires_grad_()
    bias = torch.from_numpy(solution.bias + solution.weight @ FEATURES.mean(0)).double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, torch.from_numpy(LABELS))
    (loss + solution.strength / 2 * weight.square().sum()).backward()
    assert weight.grad is not None and weight.grad.abs().max() < 1e-4


def test_a_head_without_a_bias_gets_none() -> None:
    solution = solve_head(FEATURES, LABELS, 3, np.arange(300) % 5, bias=False)
    assert np.all(solution.bias == 0)


def test_near_copies_share_an_inner_fold() -> None:
    texts = [
        f"{word} is what this message number {i} says to you all" for i in range(10) for word in ("alpha", "omega")
    ]
    folds = inner_folds(components(texts), np.arange(20) % 2, seed=0)
    assert len(set(folds.tolist())) == 1  # All are near copies of each other.
    different = ["".join(chr(97 + (7 * i * j + j * j) % 26) for j in range(30)) for i in range(20)]
    assert sorted(np.bincount(inner_folds(components(different), np.arange(20) % 2, seed=0))) == [4] * 5
    assert inner_folds(np.arange(2), np.array([0, 1]), seed=0).tolist() == [0, 0]


@pytest.mark.parametrize("fold", [0, 1])
def test_one_fold_alone_judges_nothing(fold: int) -> None:
    """Three classes of one group may all be in a fold that is not the first."""
    folds = np.full(300, fold)
    assert solve_head(FEATURES, LABELS, 3, folds, bias=True).strength == STRENGTHS[len(STRENGTHS) // 2]


@pytest.mark.parametrize(("name", "pooling"), [("bert", "mean"), ("bert", "family"), ("gpt2", "family")])
def test_head_only_is_solved_unless_a_rate_is_given(name: str, pooling: str) -> None:
    base, data = tiny_base(name), toy(classes=3)
    solved = train(base, data, create("head-only"), SETTINGS, pooling=pooling)
    assert solved.adapter.header.training["solver"] == "l-bfgs"
    assert len(solved.history) == 1 and solved.best_epoch == 1
    stepped = train(base, data, create("head-only"), replace(SETTINGS, lr=0.05, epochs=30), pooling=pooling)
    assert "solver" not in stepped.adapter.header.training and len(stepped.history) == 30
    assert solved.test["accuracy"] >= stepped.test["accuracy"] - 1 / 16
    assert solved.history[0]["train_loss"] < stepped.history[0]["train_loss"]


@pytest.mark.parametrize("settings", [{"lr": None}, {}], ids=["solved", "in steps"])
def test_without_the_cache_it_is_the_same_training(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, asked = toy(), replace(FAST, **settings)
    kept = train(tiny_base("bert"), data, create("head-only"), asked)
    base = tiny_base("bert")
    runs = [train(base, data, create("head-only"), replace(asked, cache=False))]
    assert len(prefix_cache(base)) == 0
    monkeypatch.setattr(prefix_cache(base), "budget", 100)  # what does not fit into memory, and there is no disk
    runs.append(train(base, data, create("head-only"), asked))
    assert len(prefix_cache(base)) == 0
    for run in runs:
        assert run.history == kept.history and ("solver" in run.adapter.header.training) == ("lr" in settings)
        assert run.warnings == kept.warnings and run.prefix_seconds > 0
        state = run.adapter.tuned.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in kept.adapter.tuned.state_dict().items())


def test_heads_of_several_layers_are_trained_step_by_step() -> None:
    view = tiny_base("roberta").view(2, "family")
    assert linear_of(view.head) is None
    result = train(tiny_base("roberta"), toy(), create("head-only"), SETTINGS, pooling="family")
    assert "solver" not in result.adapter.header.training and len(result.history) == 3


def test_a_dead_dimension_gets_no_weight() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = random.normal(size=(200, 6)).astype(np.float32) + labels[:, None].astype(np.float32)
    features[:, 3] = 0.5 + 1e-9 * features[:, 3]
    solution = solve_head(features, labels, 2, np.arange(200) // 100, bias=True)
    assert np.abs(solution.weight).max() < 10
    assert (np.abs(solution.weight[:, [0, 1, 2, 4, 5]]) > 0.01).all()


def test_weighted_it_agrees_with_scikit_learn() -> None:
    weights = np.array([1.0, 4.0, 0.5])[LABELS]
    centre = np.average(FEATURES.astype(np.float64), axis=0, weights=weights)
    scaled = (FEATURES - centre) / np.sqrt(np.average((FEATURES - centre) ** 2, axis=0, weights=weights))
    solution = solve_head(FEATURES, LABELS, 3, np.arange(300) % 5, bias=True, weights=weights)
    theirs = LogisticRegression(C=1 / (weights.sum() * solution.strength), tol=1e-10, max_iter=5000)
    theirs.fit(scaled, LABELS, sample_weight=weights)
    ours = softmax(FEATURES @ solution.weight.T + solution.bias)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=2e-4)
    plain = solve_head(FEATURES, LABELS, 3, np.arange(300) % 5, bias=True)
    assert np.abs(softmax(FEATURES @ plain.weight.T + plain.bias) - ours).max() > 0.1


def test_a_weight_of_three_is_the_text_three_times() -> None:
    folds, times = np.arange(300) % 5, np.array([1, 3, 1])[LABELS]
    rows = np.repeat(np.arange(300), times)
    weighted = solve_head(FEATURES, LABELS, 3, folds, bias=True, weights=times.astype(np.float64))
    repeated = solve_head(FEATURES[rows], LABELS[rows], 3, folds[rows], bias=True)
    assert weighted.strength == repeated.strength
    np.testing.assert_allclose(weighted.weight, repeated.weight, atol=1e-4)
    np.testing.assert_allclose(weighted.bias, repeated.bias, atol=1e-4)
    assert weighted.loss == pytest.approx(repeated.loss, rel=1e-5)


def test_smoothed_targets_are_what_is_met() -> None:
    """At the minimum the mean probability of each class is the mean of its targets, the bias being free."""
    solution = solve_head(FEATURES, LABELS, 3, np.arange(300) % 5, bias=True, smoothing=0.3)
    found = softmax(FEATURES @ solution.weight.T + solution.bias).mean(axis=0)
    np.testing.assert_allclose(found, 0.7 * np.bincount(LABELS) / 300 + 0.1, atol=1e-5)


def test_head_only_takes_weights_and_smoothing_along_and_says_what_it_does_not_take() -> None:
    base, data = tiny_base("bert"), toy(rows=40)
    few = replace(data, train=data.train.take([*range(0, 40, 2), 1, 3, 5]))
    plain = train(base, few, create("head-only"), SETTINGS)
    found = {}
    for asked in ({"class_weight": "balanced"}, {"class_weight": "c1=9"}, {"label_smoothing": 0.2}):
        result = train(base, few, create("head-only"), replace(SETTINGS, **asked))  # type: ignore[arg-type]
        assert result.adapter.header.training["solver"] == "l-bfgs" and not result.warnings
        assert {**result.adapter.header.training, **asked} == result.adapter.header.training
        assert not np.allclose(result.test_logits, plain.test_logits, atol=1e-3)
        found[next(iter(asked.values()))] = result
    even = train(base, few, create("head-only"), replace(SETTINGS, sampling="balanced", schedule="cosine"))
    np.testing.assert_array_equal(even.test_logits, found["balanced"].test_logits)
    assert [
        word in " ".join(even.warnings) for word in ("--schedule had no effect", "which --sampling balanced is")
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize("asked", [{"loss": "focal"}, {"head_dropout": 0.3}])
def test_what_is_no_convex_problem_is_trained_in_steps_and_said(asked: dict[str, object]) -> None:
    settings = replace(SETTINGS, **asked)  # type: ignore[arg-type]
    result = train(tiny_base("bert"), toy(), create("head-only"), settings)
    assert "solver" not in result.adapter.header.training and len(result.history) == 3
    assert any("no convex problem: it was trained in steps" in warning for warning in result.warnings)
