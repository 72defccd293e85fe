"""The frozen prefix: an entry is a function of the text alone, and going on from it changes nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.base.base import Base
from lora_clf.base.tokenizer import Tokens
from lora_clf.base.view import View
from lora_clf.inference import cache as cache_module
from lora_clf.inference import prefix as prefix_module
from lora_clf.inference.cache import PrefixCache, prefix_cache
from lora_clf.inference.predict import logits
from lora_clf.inference.prefix import Cut, canonical_batches, canonical_width, compute_states, find_cut
from lora_clf.inference.runner import Runner
from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from lora_clf.tuners.base import Tuned, Tuner, unfreeze
from tests.bases import ARCHITECTURE_NAMES, randomise, tiny_base
from tests.training.test_loop import FAST, toy

TEXTS = ["".join(chr(97 + (i * j) % 26) for j in range(1, 2 + (7 * i) % 60)) for i in range(40)]
CUTS = [("head-only", {}, Cut(3, True)), ("last-block", {}, Cut(2, False)), ("full", {}, Cut(0, False)),
        ("lora", {}, Cut(0, False)), ("lora", {"blocks": 2}, Cut(1, False)),
        ("lora-scratch", {"blocks": 1}, Cut(2, False))]  # fmt: skip


@pytest.mark.parametrize(("strategy", "options", "expected"), CUTS)
@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_the_cut_is_read_off_what_trains(name: str, strategy: str, options: dict[str, int], expected: Cut) -> None:
    tuned = create(strategy, **options).prepare(tiny_base(name).view(2))
    if name in ("t5", "longformer") and not expected.pooled:
        expected = Cut(0, False)  # A position bias is handed on from the first block, or the batch is padded before it.
    assert find_cut(tuned.view) == expected
    assert find_cut(tuned.view, changes_inputs=True) == Cut(0, False)


class Doubled(torch.nn.Linear):
    """Another layer over the same weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def put_module(view: View, layer: torch.nn.Linear) -> None:
    for block in view.blocks:
        if (inner := block.intermediate).dense is layer:
            inner.dense = Doubled(layer.in_features, layer.out_features).requires_grad_(False)
            inner.dense.weight, inner.dense.bias = layer.weight, layer.bias


def put_hook(view: View, layer: torch.nn.Linear) -> None:
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)


def put_early_hook(view: View, layer: torch.nn.Linear) -> None:
    layer.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def put_forward(view: View, layer: torch.nn.Linear) -> None:
    layer.forward = lambda x: 2 * torch.nn.Linear.forward(layer, x)  # type: ignore[method-assign]


def put_class(view: View, layer: torch.nn.Linear) -> None:
    layer.__class__ = Doubled


def put_mask(view: View, layer: torch.nn.Linear) -> None:
    layer.weight.data = layer.weight * (torch.arange(layer.in_features) % 2)


FROZEN = [put_module, put_hook, put_early_hook, put_forward, put_class, put_mask]


@dataclass(frozen=True)
class Changes(Tuner):
    """Changes one layer without training it, and trains the last block and perhaps a gate beside the backbone."""

    name = "changes"
    summary = "the last block"
    learning_rate = 1e-3
    put: Callable[[View, torch.nn.Linear], None] | None = None
    block: int = 0
    gated: bool = False

    def prepare(self, view: View) -> Tuned:
        if self.put is not None:
            self.put(view, view.blocks[self.block].intermediate.dense)
        if self.gated:
            view.gate = torch.nn.Parameter(torch.tensor(2.0))
            embed = view.backbone.embeddings.forward
            view.backbone.embeddings.forward = lambda *args, **more: view.gate * embed(*args, **more)
        return unfreeze(self, view, view.blocks[-1].parameters())


@pytest.mark.parametrize("put", FROZEN)
@pytest.mark.parametrize("block", [0, 1, 2])
def test_what_a_strategy_changed_without_training_it_is_in_no_prefix(put: Any, block: int) -> None:
    base = tiny_base("bert")
    tokens = base.encode(TEXTS)
    plain, tuned = (Changes(put, block).prepare(base.view(3, "mean", seed=3)) for _ in range(2))
    randomise(plain)
    randomise(tuned)
    expected = logits(plain.view, tokens, precision="fp32")
    runner = Runner(base, tuned, "fp32", {"train": tokens})
    assert runner.cut == Cut(block, False)
    with torch.no_grad():
        found = runner.logits("train", np.arange(len(TEXTS)), training=True).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))
    unchanged = Changes().prepare(base.view(3, "mean", seed=3))
    randomise(unchanged)
    assert find_cut(unchanged.view) == Cut(2, False)
    assert np.abs(logits(unchanged.view, tokens, precision="fp32") - expected).max() > 1e-3


def test_there_is_no_prefix_where_something_outside_backbone_and_head_trains() -> None:
    base = tiny_base("bert")
    tuned = Changes(gated=True).prepare(base.view(3, seed=3))
    runner = Runner(base, tuned, "fp32", {"train": base.encode(TEXTS)})
    assert runner.cut == Cut(0, False)
    runner.logits("train", np.arange(4), training=True).square().sum().backward()
    assert tuned.trainable()["gate"].grad is not None and float(tuned.trainable()["gate"].grad) != 0
    view = Changes(gated=True).prepare(base.view(3, seed=3)).view
    del view.backbone.embeddings.forward  # what it does shows nowhere else
    assert find_cut(view) == Cut(0, False)
    view.gate.requires_grad_(False)
    assert find_cut(view) == Cut(2, False)


@pytest.mark.parametrize("where", ["embeddings.word_embeddings", "encoder"])
def test_there_is_no_prefix_behind_a_change_outside_the_blocks(where: str) -> None:
    view = create("last-block").prepare(tiny_base("bert").view(3)).view
    assert find_cut(view) == Cut(2, False)
    view.backbone.get_submodule(where).register_forward_hook(lambda module, inputs, output: output)
    assert find_cut(view) == Cut(0, False)
    view = create("head-only").prepare(tiny_base("gpt2").view(3)).view
    view.final_norm.weight.data = view.final_norm.weight * 2
    assert find_cut(view) == Cut(3, False)  # not the pooled vectors


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_going_on_from_kept_states_changes_nothing(name: str, precision: str) -> None:
    for strategy, options in (("head-only", {}), ("last-block", {}), ("lora", {"blocks": 1})):
        base = tiny_base(name)
        tokens = base.encode(TEXTS)
        tuned = create(strategy, **options).prepare(base.view(3))
        randomise(tuned)
        expected = logits(tuned.view, tokens, precision="fp32")
        runner = Runner(base, tuned, precision, {"all": tokens})
        answers = runner.all_logits("all")
        tolerance = 1e-5 if precision == "fp32" else 0.1
        assert np.abs(answers - expected).max() <= tolerance * max(1.0, float(np.abs(expected).max()))
        assert expected.std(axis=0).min() > 1e-3
        if runner.cut and not runner.cut.pooled:
            left = sum(p.numel() for p in runner.view.blocks.parameters())
            assert left < sum(p.numel() for p in base.view(3).blocks.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_an_entry_does_not_depend_on_its_companions(name: str, precision: str) -> None:
    base = tiny_base(name)
    # Every width for one architecture; for the others three widths, with several texts each.
    texts = TEXTS if name == "bert" else [text for text in TEXTS if len(text) < 10 or len(text) > 48]
    order = np.random.default_rng(1).permutation(len(texts))
    picked = range(0, len(texts), 4 if name != "bert" else 1)
    assert len(texts) >= 12 and len({canonical_width(len(text)) for text in texts}) >= 3
    for cut in (Cut(2, False), Cut(3, True)):
        whole = PrefixCache().states(base, "mean", cut, precision, base.encode(texts))
        alone = [PrefixCache().states(base, "mean", cut, precision, base.encode([texts[i]])).rows[0] for i in picked]
        mixed = PrefixCache().states(base, "mean", cut, precision, base.encode([texts[i] for i in order]))
        assert all(torch.equal(whole.rows[i], state) for i, state in zip(picked, alone, strict=True))
        assert all(torch.equal(whole.rows[i], mixed.rows[j]) for j, i in enumerate(order))


def test_the_parts_of_a_data_set_are_computed_together() -> None:
    """Equal texts once, in whichever part; each part is charged what its own texts cost."""
    base = tiny_base("bert")
    cache = PrefixCache()
    parts = {"train": base.encode(TEXTS[:20]), "test": base.encode([*TEXTS[15:30], TEXTS[0]])}
    found = cache.parts(base, "mean", Cut(2, False), "fp32", parts)
    assert found is not None and len(cache) == len(set(TEXTS[:30]))
    for name, tokens in parts.items():
        apart = PrefixCache().states(base, "mean", Cut(2, False), "fp32", tokens)
        assert all(torch.equal(a, b) for a, b in zip(found[name].rows, apart.rows, strict=True))
        assert len(found[name].rows) == len(tokens) and found[name].seconds > 0
    assert torch.equal(found["train"].rows[0], found["test"].rows[-1])


@pytest.mark.parametrize("strategy", ["head-only", "last-block"])
def test_cold_warm_and_filled_by_another_are_the_same_bytes(strategy: str) -> None:
    data = toy()
    cold_base = tiny_base("gpt2")
    cold = train(cold_base, data, create(strategy), FAST)
    assert len(prefix_cache(cold_base)) > 0
    warm = train(cold_base, data, create(strategy), FAST)
    other = tiny_base("gpt2")
    swapped = replace(data, train=data.test, test=data.train)
    train(other, swapped, create(strategy), replace(FAST, seed=5))
    filled = train(other, data, create(strategy), FAST)
    states = [run.adapter.tuned.state_dict() for run in (cold, warm, filled)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]) and torch.equal(tensor, states[2][name])
    assert cold.history == warm.history == filled.history
    assert warm.prefix_seconds == cold.prefix_seconds > 0  # The price is the cold one, whoever paid.


@pytest.mark.parametrize("strategy", ["head-only", "last-block", "lora"])
def test_an_autocast_of_the_callers_changes_no_number(strategy: str) -> None:
    data = toy()
    plain = train(tiny_base("bert"), data, create(strategy), FAST)
    base = tiny_base("bert")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = train(base, data, create(strategy), FAST)
    kept = [state for state, _ in prefix_cache(base)._entries.values()]
    assert all(state.dtype == torch.float32 for state in kept) and bool(kept) == (strategy != "lora")
    assert within.history == plain.history and np.array_equal(within.test_logits, plain.test_logits)
    states = [run.adapter.tuned.state_dict() for run in (plain, within)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_cached_and_uncached_losses_agree() -> None:
    data = toy()
    for name in ("bert", "gpt2"):
        kept = train(tiny_base(name), data, create("last-block"), FAST)
        plain = train(tiny_base(name), data, create("last-block"), replace(FAST, cache=False))
        for ours, theirs in zip(kept.history, plain.history, strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert plain.prefix_seconds == 0


def test_the_least_recently_used_go_first_and_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counted(*args: Any) -> None:
        computed.append(len(args[5]))
        compute_states(*args)

    monkeypatch.setattr(cache_module, "compute_states", counted)
    base = tiny_base("bert")
    cache = PrefixCache(budget=5 * 32 * 4)
    one, two, three = (base.encode(TEXTS[start : start + 2]) for start in (0, 2, 4))

    def ask(tokens: Tokens) -> None:
        cache.states(base, "mean", Cut(3, True), "fp32", tokens)

    for tokens in (one, two, one, three):
        ask(tokens)
    assert computed == [2, 2, 2] and len(cache) == 5 and cache.bytes == cache.budget
    ask(one)  # used after the second, so all of it is still there
    assert computed == [2, 2, 2]
    ask(two)
    assert computed == [2, 2, 2, 1] and len(cache) == 5 and cache.bytes == cache.budget
    cache.states(base, "mean", Cut(1, False), "fp32", base.encode(TEXTS[3:20]))  # more than the budget alone
    assert cache.bytes <= cache.budget
    ask(one)
    cache.clear()
    assert len(cache) == 0 and cache.bytes == 0


def test_the_cache_goes_with_its_base() -> None:
    base: Base | None = tiny_base("bert")
    before = len(cache_module._CACHES)
    train(base, toy(), create("head-only"), TrainSettings(epochs=1, precision="fp32"))
    assert len(cache_module._CACHES) == before + 1
    del base
    gc.collect()
    assert len(cache_module._CACHES) <= before


def test_canonical_shapes_depend_on_the_length_alone() -> None:
    widths = sorted({canonical_width(length) for length in range(1, 1025)})
    assert widths[:7] == [8, 10, 12, 15, 16, 20, 24] and widths[-4:] == [480, 720, 960, 1200] and len(widths) == 21
    assert all(480 % width == 0 for width in widths[:-3])
    assert all(canonical_width(length) > length for length in range(1, 2049))
    lengths = np.array([3, 9, 3, 96, 8, 95])
    shapes = [(rows.tolist(), size, width) for rows, size, width in canonical_batches(lengths, np.arange(6), 96)]
    assert shapes == [([0, 2], 60, 8), ([1, 4], 48, 10), ([5], 5, 96), ([3], 5, 96)]
    assert {size * width for _, size, width in canonical_batches(np.arange(1, 480), np.arange(479))} == {480}


def test_batches_that_are_filled_by_tokens_hold_every_text_once_in_shapes_of_its_length_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    batches = list(canonical_batches(lengths, np.arange(500), packed=True))
    assert sorted(row for rows, _, _ in batches for row in rows) == list(range(500))
    assert all(lengths[rows].sum() <= 480 and len(rows) <= size for rows, size, _ in batches)
    assert all((lengths[rows] < width).all() for rows, _, width in batches)
    shapes = {(size, width) for _, size, width in batches}
    assert len(shapes) == 10 and len({width for _, width in shapes}) == 10
    assert len(batches) < len(list(canonical_batches(lengths, np.arange(500))))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_padding_is_left_out_of_the_prefix_unless_onednn_multiplies_fp32(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, found, left_out = tiny_base("bert"), [], []
    tokens = base.encode(TEXTS)

    def noted(*args: Any, packed: bool) -> Any:
        left_out.append(packed)
        return canonical_batches(*args, packed=packed)

    monkeypatch.setattr(prefix_module, "canonical_batches", noted)
    for product in (None, lambda *_: None):
        monkeypatch.setattr(prefix_module, "onednn", lambda product=product: product)
        states: dict[int, torch.Tensor] = {}
        compute_states(base, "mean", Cut(2, False), precision, tokens, np.arange(len(TEXTS)),
                       lambda row, state, _, states=states: states.update({row: state.float()}))  # fmt: skip
        found.append(torch.cat([states[row] for row in range(len(TEXTS))]))
    assert left_out == [True, precision == "bf16"] and found[0].std() > 0.1
    assert torch.allclose(*found, rtol=1e-5, atol=1e-5)


def test_equal_texts_are_computed_once() -> None:
    base = tiny_base("bert")
    cache = PrefixCache()
    states = cache.states(base, "mean", Cut(3, True), "fp32", base.encode(["same"] * 5))
    assert len(cache) == 1 and len(states.rows) == 5


@pytest.mark.parametrize("threads", [3, 5])
def test_between_odd_numbers_of_threads_a_state_is_still_its_texts_alone(threads: int) -> None:
    """SiLU of a vector that is cut between two threads goes through other instructions."""
    base = tiny_base("llama-wide", 0)
    texts = [f"text {number:09d}" for number in range(64)]
    tokens = base.encode(texts)
    turned = base.encode([*texts[1:], texts[0]])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found: list[dict[bytes, torch.Tensor]] = []
        for each in (tokens, turned):
            states: dict[bytes, torch.Tensor] = {}

            def keep(row: int, state: torch.Tensor, seconds: float, each=each, states=states) -> None:  # type: ignore[no-untyped-def]
                states[each.ids[row].tobytes()] = state

            compute_states(base, "last", Cut(2, False), "fp32", each, np.arange(64), keep)
            found.append(states)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found[0]) == 64
    assert all(torch.equal(state, found[1][key]) for key, state in found[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("real_cache")
def test_an_entry_of_the_real_base_does_not_depend_on_its_companions(precision: str, threads: int) -> None:
    """At its width other kernels run than at a tiny base's."""
    from lora_clf.base.base import load_base
    from lora_clf.data.dataset import load_data
    from lora_clf.errors import LoraClfError

    try:
        base = load_base("minilm", device="cpu")
    except LoraClfError:
        pytest.skip("needs the real base in the cache (lora-clf bases fetch minilm)")
    texts = list(load_data("demo").train.texts)[:200]
    order = np.random.default_rng(1).permutation(len(texts))[:60]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cut in (Cut(5, False), Cut(6, True)):
            whole = PrefixCache().states(base, "mean", cut, precision, base.encode(texts))
            some = PrefixCache().states(base, "mean", cut, precision, base.encode([texts[i] for i in order]))
            assert all(torch.equal(whole.rows[i], some.rows[j]) for j, i in enumerate(order))
            assert len({state.float().numpy().tobytes() for state in whole.rows}) == len(set(texts))
    finally:
        torch.set_num_threads(before)
