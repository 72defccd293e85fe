"""The last block for the pooled token alone: the same logits and gradients as for every token."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_clf.inference import one_position
from lora_clf.inference.attention import set_attention
from lora_clf.inference.batches import collate
from lora_clf.inference.one_position import pool_last_block
from lora_clf.inference.pooled_block import layers_of_gpt2
from lora_clf.inference.precision import autocast, cast_frozen
from lora_clf.inference.runner import Runner
from lora_clf.tuners import create
from lora_clf.tuners.base import Tuned
from tests import bases
from tests.bases import ARCHITECTURE_NAMES, VARIANT_NAMES, tiny_base, tiny_config

CASES = (
    ("gpt2", "last"),
    ("gpt2", "family"),
    ("llama", "last"),
    ("llama", "family"),
    ("bert", "first"),
    ("bert", "last"),
    ("bert", "family"),
    ("roberta", "first"),
    ("roberta", "family"),
    ("distilbert", "family"),
)
# Left as they are: mean pooling, sliding windows, further norms, blocks of another make.
USUAL = (
    ("gpt2", "mean"),
    ("gpt2", "first"),
    ("bert", "mean"),
    ("mistral", "family"),
    ("qwen2", "family"),
    ("qwen3", "family"),
    ("gpt_neox", "family"),
    ("modernbert", "first"),
    ("longformer", "first"),
    ("big_bird", "first"),
    ("opt", "family"),
    ("t5", "first"),
    ("bart", "first"),
)
STRATEGIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("last-block", {}),
    ("full", {}),
    ("lora", {"rank": 3, "alpha": 7.0}),
    ("lora-scratch", {"rank": 2, "alpha": 5.0, "blocks": 1}),
    ("bitfit", {}),
    ("layer-norm", {}),
)


def prepared(base: str, pooling: str, strategy: str, settings: dict[str, Any]) -> Tuned:
    """A view whose trainable numbers are all drawn."""
    tuned = create(strategy, **settings).prepare(tiny_base(base, 0).view(3, pooling))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    set_attention(tuned.view, "eager")
    return tuned


def answer(tuned: Tuned, ids: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradient of everything that trains."""
    logits = tuned.view.classify(ids, mask)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    (logits * weights).sum().backward()
    return logits.detach(), {name: p.grad for name, p in tuned.trainable().items() if p.grad is not None}


def batch() -> tuple[Tensor, Tensor]:
    """Four texts of 12, 8, 1 and 5 tokens, padded on the right."""
    ids = torch.randint(10, 200, (4, 12), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(12)[None] < torch.tensor([12, 8, 1, 5])[:, None]).long()
    return ids, mask


@pytest.mark.parametrize(
    ("base", "pooling", "strategy", "settings"),
    [(*case, *each) for case in CASES for each in STRATEGIES if (case[0], each[0]) != ("llama", "bitfit")],
)
def test_logits_and_gradients_are_those_of_every_position(
    base: str, pooling: str, strategy: str, settings: dict[str, Any]
) -> None:
    ids, mask = batch()
    logits, gradients = answer(prepared(base, pooling, strategy, settings), ids, mask)
    tuned = prepared(base, pooling, strategy, settings)
    last = pool_last_block(tuned.view)
    assert last is not None
    same = tuned.view.classify(ids, mask)  # without a mask nothing is different
    torch.testing.assert_close(same, logits, rtol=0, atol=0)
    last.mask = mask
    ours, mine = answer(tuned, ids, mask)
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)
    assert mine.keys() == gradients.keys() and len(mine) > 2
    for name, gradient in gradients.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=float(gradient.abs().max()) * 1e-5 + 1e-6)


@pytest.mark.parametrize(
    ("strategy", "settings", "whole"), [(*each, each[0] not in ("lora", "lora-scratch")) for each in STRATEGIES]
)
def test_a_block_of_gpt2_is_one_node_where_nothing_was_put_into_it(
    strategy: str, settings: dict[str, Any], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = nodes(monkeypatch)
    tuned = prepared("gpt2", "last", strategy, settings)
    last = pool_last_block(tuned.view)
    assert last is not None
    ids, last.mask = batch()
    answer(tuned, ids, last.mask)
    assert seen == [(4, 12, 32)] * whole
    assert last.alone


def nodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the states that the node is called with from now on."""
    seen: list[tuple[int, ...]] = []
    kept = one_position.pooled_block

    def noted(layers: Any, heads: int, states: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        seen.append(tuple(states.shape))
        return kept(layers, heads, states, places, mask)

    monkeypatch.setattr(one_position, "pooled_block", noted)
    return seen


@pytest.mark.parametrize("strategy", ["last-block", "bitfit"])
def test_in_bf16_the_node_of_gpt2_is_as_near_to_fp32_as_autocast(strategy: str) -> None:
    ids, mask = batch()
    found = {}
    for way in ("fp32", "autocast", "node"):
        tuned = prepared("gpt2", "last", strategy, {})
        if way != "fp32":
            cast_frozen(tuned.view, "bf16")
        last = pool_last_block(tuned.view)
        assert last is not None
        last.mask = mask if way == "node" else None
        with autocast("fp32" if way == "fp32" else "bf16", torch.device("cpu")):
            found[way] = answer(tuned, ids, mask)
    exact, gradients = found["fp32"]

    def error(way: str) -> float:
        logits, mine = found[way]
        assert mine.keys() == gradients.keys()
        parts = [(mine[name] - gradient).norm() / gradient.norm() for name, gradient in gradients.items()]
        return float(sum(parts) / len(parts) + (logits - exact).norm() / exact.norm())

    assert 0 < error("node") <= 1.1 * error("autocast")


@pytest.mark.parametrize(("base", "pooling"), [("gpt2", "last"), ("bert", "first"), ("llama", "last")])
def test_from_kept_states_the_last_block_alone_answers(
    base: str, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["one text", "another text that is longer", "three"]
    answers = []
    for through in (True, False):
        opened = tiny_base(base, 0)
        tuned = create("last-block").prepare(opened.view(3, pooling))
        runner = Runner(opened, tuned, "fp32", {"train": opened.encode(texts)})
        assert runner.cut.blocks == len(tuned.view.blocks) - 1 > 0
        assert runner._last is not None and runner._last.alone == (base != "llama")
        if through:
            monkeypatch.setattr(one_position.LastBlock, "alone", False)
        passes: list[Any] = []
        tuned.view.backbone.register_forward_pre_hook(lambda *given, passes=passes: passes.append(given))
        logits = runner.logits("train", np.arange(3), training=True)
        assert len(passes) == (through or base == "llama")
        logits.square().sum().backward()
        answers.append([logits.detach(), *(p.grad for p in tuned.trainable().values() if p.grad is not None)])
        monkeypatch.undo()
    assert len(answers[0]) == len(answers[1]) > 10
    for usual, mine in zip(*answers, strict=True):
        torch.testing.assert_close(mine, usual, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("base", "pooling"), [("gpt2", "last"), ("bert", "first"), ("distilbert", "family")])
@pytest.mark.parametrize("cache", [True, False])
def test_a_base_of_one_block_has_no_kept_states(
    base: str, pooling: str, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> Any:
        found = tiny_config(name)
        found.num_hidden_layers = 1
        return found

    monkeypatch.setattr(bases, "tiny_config", config)
    opened = tiny_base(base, 0)
    tuned = create("full").prepare(opened.view(3, pooling))
    assert len(tuned.view.blocks) == 1
    tokens = opened.encode(["one text", "another text that is longer", "three"])
    batch = collate(tokens.ids, np.arange(3))
    expected = tuned.view.classify(batch.input_ids, batch.attention_mask)
    runner = Runner(opened, tuned, "fp32", {"train": tokens}, cache=cache)
    assert runner._last is not None and not runner.cut
    torch.testing.assert_close(runner.logits("train", np.arange(3), training=True), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("base", "pooling"), USUAL)
def test_others_stay_as_they_are(base: str, pooling: str) -> None:
    tuned = prepared(base, pooling, "full", {})
    assert pool_last_block(tuned.view) is None
    assert "forward" not in vars(tuned.view.blocks[-1])


def test_every_architecture_is_one_or_the_other() -> None:
    named = {base for base, _ in (*CASES, *USUAL)}
    assert named >= set(ARCHITECTURE_NAMES) and len(ARCHITECTURE_NAMES) == 13
    assert {"mistral", "qwen2"} <= set(VARIANT_NAMES)


class _Gate(nn.Module):
    """What a strategy might put around a part of a block."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside
        self.gate = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, *inputs: Any, **more: Any) -> Any:
        out = self.inside(*inputs, **more)
        return (out[0] * self.gate, *out[1:]) if isinstance(out, tuple) else out * self.gate


@pytest.mark.parametrize(
    ("base", "pooling", "place"),
    [("bert", "first", "attention.output"), ("gpt2", "last", "attn"), ("llama", "last", "self_attn")],
)
def test_what_a_strategy_put_there_is_not_passed_over(base: str, pooling: str, place: str) -> None:
    for trains in (True, False):
        tuned = prepared(base, pooling, "head-only", {})
        block = tuned.view.blocks[-1]
        gate = _Gate(block.get_submodule(place))
        gate.gate.requires_grad_(trains)
        block.set_submodule(place, gate)
        assert pool_last_block(tuned.view) is None


def test_the_view_is_as_before_when_a_pass_is_over() -> None:
    base = tiny_base("gpt2", 0)
    tuned = create("last-block").prepare(base.view(3, "last"))
    tokens = base.encode(["one text", "another text that is longer", "three"])
    runner = Runner(base, tuned, "fp32", {"train": tokens}, cache=False)
    last = vars(tuned.view.blocks[-1])["forward"]
    runner.logits("train", np.arange(3), training=True)
    assert last.mask is None
    with pytest.raises(IndexError):
        runner.logits("train", np.array([7]), training=True)
    assert last.mask is None


def test_a_run_leaves_nothing_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        for name, pooling in (("gpt2", "last"), ("bert", "first"), ("bert", "mean")):
            base = tiny_base(name, 0)
            tuned = create("full").prepare(base.view(3, pooling))
            runner = Runner(base, tuned, "fp32", {"train": base.encode(["a text"])})
            runner.logits("train", np.arange(1), training=False)
            weight = weakref.ref(next(tuned.view.blocks[-1].parameters()))
            del tuned, runner
            assert weight() is None, name
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("base", "pooling", "place"),
    [
        ("gpt2", "last", "attn.c_attn"),
        ("gpt2", "last", "mlp"),
        ("bert", "first", "attention"),
        ("llama", "last", "mlp"),
    ],
)
def test_a_patched_layer_is_not_passed_over(base: str, pooling: str, place: str) -> None:
    view = prepared(base, pooling, "last-block", {}).view
    part: Any = view.blocks[-1].get_submodule(place)
    usual = part.forward

    def doubled(*inputs: Any, **more: Any) -> Any:
        out = usual(*inputs, **more)
        return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out

    part.forward = doubled
    assert pool_last_block(view) is None
    del part.forward
    assert pool_last_block(view) is not None


def test_a_layer_with_a_parameter_more_is_no_part_of_the_node() -> None:
    block = tiny_base("gpt2").view(2).blocks[-1]
    assert layers_of_gpt2(block) is not None
    block.mlp.c_fc.register_buffer("gate", torch.ones(1))
    assert layers_of_gpt2(block) is None


def test_hooks_keep_the_block_as_it_is() -> None:
    tuned = prepared("gpt2", "last", "last-block", {})
    tuned.view.blocks[-1].register_forward_hook(lambda module, inputs, output: output)
    assert pool_last_block(tuned.view) is None
