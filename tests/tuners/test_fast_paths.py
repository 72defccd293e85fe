"""Fast paths that know nothing of a strategy step back for it, or compute the same: logits and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_clf.inference.predict import answering, logits
from lora_clf.inference.runner import Runner
from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuned
from tests.bases import randomise, tiny_base

TEXTS = ["Win a prize now", "ok", "see you at the station tonight?", "free"] * 4
ROWS = np.arange(len(TEXTS))
STRATEGIES = tuple(name for name in strategies() if name != "head-only")
WHERE = (("bert", "first"), ("distilbert", "mean"), ("gpt2", "last"), ("llama", "last"))
CASES = [(strategy, name, pooling) for strategy in STRATEGIES for name, pooling in WHERE]


def prepared(strategy: str, name: str, pooling: str) -> Tuned:
    base = tiny_base(name)
    tuner = create(strategy)
    if tuner.refusal(base.view(3, pooling)) is not None:
        pytest.skip("refused, as tests/tuners/test_contract.py checks")
    tuned = tuner.prepare(base.view(3, pooling, seed=2))
    randomise(tuned)
    return tuned


def test_the_cases_cover_every_strategy() -> None:
    assert len(CASES) == 4 * (len(strategies()) - 1) >= 36


@pytest.mark.parametrize(("strategy", "name", "pooling"), CASES)
def test_training_runs_the_same_function(strategy: str, name: str, pooling: str) -> None:
    base = tiny_base(name)
    tokens = base.encode(TEXTS)
    plain, fast = prepared(strategy, name, pooling), prepared(strategy, name, pooling)
    runner = Runner(base, fast, "fp32", {"train": tokens})
    ids = torch.zeros(len(TEXTS), int(tokens.lengths.max()), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, found in enumerate(tokens.ids):
        ids[row, : len(found)], mask[row, : len(found)] = torch.from_numpy(found), 1
    expected = plain.view(ids, mask)
    ours = runner.logits("train", ROWS, training=True)
    assert (ours - expected).abs().max() <= 1e-5 * max(1.0, float(expected.detach().abs().max()))
    assert expected.std() > 1e-4
    expected.square().sum().backward()
    ours.square().sum().backward()
    wanted, got = plain.trainable(), fast.trainable()
    assert wanted.keys() == got.keys()
    for key, parameter in wanted.items():
        assert parameter.grad is not None and got[key].grad is not None, key
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert (got[key].grad - parameter.grad).abs().max() <= 1e-4 * scale, key


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_bf16_trains_and_answers_nearly_the_same(strategy: str, name: str) -> None:
    base = tiny_base(name)
    tokens = base.encode(TEXTS)
    tuned, plain = prepared(strategy, name, "mean"), prepared(strategy, name, "mean")
    runner = Runner(base, tuned, "bf16", {"train": tokens})
    answers = runner.logits("train", ROWS, training=True)
    answers.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in tuned.trainable().values())
    expected = logits(plain.view, tokens)
    assert np.abs(answers.detach().numpy() - expected).max() <= 0.1 * max(1.0, np.abs(expected).max())
    many = base.encode(TEXTS * 20)
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 0.1)):
        made = answering(plain, precision, len(many))
        assert made.view is not plain.view
        found = logits(made.view, many, precision=precision, last=made.last)[: len(TEXTS)]
        assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max()), precision
    assert np.array_equal(logits(plain.view, tokens), expected)  # the copy took nothing from the original
