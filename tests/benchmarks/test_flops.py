"""Counts of arithmetic against sums done by hand, and the table of matrix products in small."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import flops
import numpy as np
import precision
import pytest
import torch

GPT2 = flops.Shape(768, 3072, 12)
LENGTHS = np.array([3, 10, 7, 30])


def test_a_forward_pass_counts_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
        attn_implementation="eager",
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(3, 11, dtype=torch.long))
    assert flops.forward(flops.Shape.of(config), np.array([11, 11, 11])) == counter.get_total_flops() > 0


def test_shapes_are_read_from_both_families() -> None:
    bert = SimpleNamespace(hidden_size=384, intermediate_size=1536, num_hidden_layers=6)
    gpt2 = SimpleNamespace(hidden_size=768, n_inner=None, num_hidden_layers=12)
    assert flops.Shape.of(bert) == flops.Shape(384, 1536, 6) and flops.Shape.of(gpt2) == GPT2
    assert GPT2.linear == 2 * 7_077_888  # the matrices of a block of GPT-2 small
    assert flops.Shape(384, 1536, 6).factors(8) * 6 == 2 * 331_776  # what LoRA r8 trains in MiniLM


def test_recipes_cost_what_the_rules_say() -> None:
    once = flops.forward(GPT2, LENGTHS)
    assert flops.epoch(GPT2, LENGTHS, "full") == 3 * once
    assert flops.epoch(GPT2, LENGTHS, "head") == once
    assert flops.epoch(GPT2, LENGTHS, "last-block") == pytest.approx(once * (1 + 2 / 12))
    factors = 3 * 12 * GPT2.factors(16) * LENGTHS.sum()
    assert flops.epoch(GPT2, LENGTHS, "lora") == 2 * once + factors
    assert flops.epoch(GPT2, LENGTHS, "lora", depth=3) == pytest.approx(once * 1.25 + factors / 4)
    with pytest.raises(ValueError, match="last-block"):
        flops.epoch(GPT2, LENGTHS, "prompt")


def test_the_least_counts_the_prefix_once_and_one_pooled_token() -> None:
    once = flops.forward(GPT2, LENGTHS)
    assert flops.least(GPT2, LENGTHS, "head", 5) == once
    assert flops.least(GPT2, LENGTHS, "full", 5) == 15 * once
    two = flops.least(GPT2, LENGTHS, "lora", 3, depth=2)
    assert once < two < 3 * flops.epoch(GPT2, LENGTHS, "lora", depth=2)
    last = flops.least(GPT2, LENGTHS, "last-block", 5)
    assert last == pytest.approx(once * 11 / 12 + 15 * flops.pooled_block(GPT2, LENGTHS))
    # One text of one token has nothing to leave out.
    one = np.array([1])
    assert flops.pooled_block(GPT2, one) == flops.block(GPT2, one)
    assert flops.pooled_block(GPT2, LENGTHS) < flops.block(GPT2, LENGTHS) / 3


def test_padding_follows_the_batches() -> None:
    assert flops.padded(np.array([3, 9]), 2, epochs=2).tolist() == [9, 9, 9, 9]
    lengths = np.random.default_rng(0).integers(3, 60, 200)
    alone = flops.padded(lengths, 1)
    grouped, mixed = (flops.padded(lengths, 8, grouped=grouped) for grouped in (True, False))
    assert len(alone) == len(grouped) == len(mixed) == 600 and alone.sum() == 3 * lengths.sum()
    assert alone.sum() < grouped.sum() < mixed.sum()


def test_matrix_products_are_timed_in_every_precision(tmp_path: Path) -> None:
    assert precision.rate(4, 8, 16, "fp32", seconds=0.0) > 0
    found = precision.measured("cpu", rows=(4,), seconds=0.0)
    assert len(found["gflops"]) == 6 and set(found["times_fp32"]) == {"bf16", "fp16"}
    assert all(shape[name] > 0 for shape in found["gflops"] for name in precision.DTYPES)
    text = precision.table({"some machine": json.loads(json.dumps(found))})
    assert text.count("\n") == 4 and "| some machine | 384 |" in text and "| some machine | 768 |" in text


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_what_is_spent_follows_the_rules_whatever_the_strategy(name: str) -> None:
    from lora_clf.training.flops import spent
    from lora_clf.tuners import create
    from tests.bases import tiny_base

    base = tiny_base(name)
    shape = flops.Shape.of(base.config)
    once = flops.forward(shape, LENGTHS)

    def of(strategy: str, **settings: object) -> float:
        return spent(create(strategy, **settings).prepare(base.view(2)), LENGTHS, 4)

    assert of("full") == pytest.approx(4 * 3 * once)
    assert of("head-only") == pytest.approx(once)
    assert of("last-block") == pytest.approx(once * (shape.blocks - 1) / shape.blocks + 4 * 3 * once / shape.blocks)
    for strategy in ("lora", "lora-scratch"):
        tuned = create(strategy, rank=3, targets="all").prepare(base.view(2))
        factors = tuned.trainable_parameters - sum(p.numel() for p in tuned.view.head_parameters())
        assert of(strategy, rank=3, targets="all") == pytest.approx(4 * (2 * once + 6 * factors * LENGTHS.sum()))
        if name == "bert":  # GPT-2 has q, k and v in one matrix, with fewer factors than the formula counts
            for depth in (shape.blocks, 1):
                expected = flops.least(shape, LENGTHS, "lora", 4, rank=3, depth=depth)
                assert of(strategy, rank=3, targets="all", blocks=depth) == pytest.approx(expected)
