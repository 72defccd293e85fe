"""A block computed as one node: the function, and the gradients, that transformers and autograd give."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from lora_clf.inference import encoder_block, padding, products, runner
from lora_clf.inference.attention import EAGER_TOKENS, set_attention
from lora_clf.inference.encoder_block import EncoderBlock, fuse_blocks
from lora_clf.inference.padding import Packer, packing
from lora_clf.inference.precision import cast_frozen
from lora_clf.inference.projection import Projection
from lora_clf.inference.runner import Runner
from lora_clf.tuners import create
from lora_clf.tuners.base import Tuned
from lora_clf.tuners.lora_scratch import LoRALinear
from tests.bases import ARCHITECTURE_NAMES, BLOCKS, tiny_base

FUSED = ("bert", "roberta", "distilbert")
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lora", {"rank": 3, "alpha": 7.0}),
    ("lora-scratch", {"rank": 3, "alpha": 7.0}),
    ("lora-scratch", {"rank": 2, "alpha": 5.0, "targets": "attention"}),
    ("lora-scratch", {"rank": 2, "alpha": 5.0, "blocks": 1}),
    ("full", {}),
    ("last-block", {}),
    ("head-only", {}),
)


def prepared(architecture: str, strategy: str, settings: dict[str, Any]) -> Tuned:
    """A view whose trainable numbers are all drawn."""
    tuned = create(strategy, **settings).prepare(tiny_base(architecture, 0).view(3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    set_attention(tuned.view, "eager")
    return tuned


def batch(tokens: int = 11) -> tuple[Tensor, Tensor]:
    """Four texts, padded on the right: ids and mask."""
    ids = torch.randint(10, 200, (4, tokens), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(4, tokens, dtype=torch.int64)
    mask[1, tokens * 2 // 3 :] = 0
    mask[2, 1:] = 0
    return ids, mask


def answer(tuned: Tuned, precision: str = "fp32") -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradient of everything that trains."""
    ids, mask = batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = tuned.view.classify(ids, mask)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    (logits * weights).sum().backward()
    found = {name: p.grad for name, p in tuned.trainable().items() if p.grad is not None}
    assert len(found) == len(tuned.trainable())
    return logits.detach(), found


def widths_of(kind: type[Projection], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each product of a block is computed for, in a list that fills."""
    found: list[int] = []
    usual = kind.forward

    def counted(self: Projection, x: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        found.append(len(x))
        return usual(self, x)

    monkeypatch.setattr(kind, "forward", counted)
    return found


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("architecture", FUSED)
@pytest.mark.parametrize(("strategy", "settings"), SETTINGS)
def test_logits_and_gradients_are_those_of_the_modules(
    architecture: str, strategy: str, settings: dict[str, Any], pack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(padding, "ROWS", 32)
    usual, tuned = (prepared(architecture, strategy, settings) for _ in range(2))
    names = list(dict(tuned.view.named_parameters()))
    assert fuse_blocks(tuned, "fp32", Packer() if pack else None) == BLOCKS
    widths = widths_of(Projection, monkeypatch)
    assert list(dict(tuned.view.named_parameters())) == names
    (logits, gradients), (ours, mine) = answer(usual), answer(tuned)
    assert set(widths) == {32 if pack else 44}  # 30 tokens stand at 44 positions
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        if name.endswith(("key.bias", "k_lin.bias")):  # zero but for rounding: the softmax does not see it
            assert mine[name].abs().max() < 1e-5
        else:
            torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=float(gradient.abs().max()) * 1e-5)


def test_a_step_is_seen_by_the_next_pass() -> None:
    """Fused optimizers change numbers without a sign; the copies that a block makes must follow."""
    for strategy in ("full", "lora-scratch"):
        usual, tuned = (prepared("bert", strategy, {}) for _ in range(2))
        fuse_blocks(tuned, "fp32")
        for each in (usual, tuned):
            answer(each)
            torch.optim.SGD(each.trainable().values(), lr=0.1, fused=True).step()
        with torch.no_grad():
            torch.testing.assert_close(tuned.view(*batch()), usual.view(*batch()), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(products._packing() is None, reason="this processor or PyTorch has no packed weights")
def test_frozen_weights_are_held_once_where_no_text_is_too_long() -> None:
    found = {}
    for longest in (None, EAGER_TOKENS, EAGER_TOKENS + 1):
        tuned = prepared("bert", "lora-scratch", {"rank": 3, "alpha": 7.0})
        cast_frozen(tuned.view, "bf16")
        assert fuse_blocks(tuned, "bf16", None, longest) == BLOCKS
        found[longest] = answer(tuned, "bf16")
        places = [
            (block.get_submodule(name).weight, original.get_submodule(name).weight)
            for block, original in zip(tuned.view.blocks, tuned.view.original_blocks, strict=True)
            for name in ("attention.self.query", "attention.output.dense", "output.dense")
        ]
        shared = [weight.data_ptr() == original.data_ptr() for weight, original in places]  # type: ignore[union-attr]
        assert shared == [longest == EAGER_TOKENS] * 3 * BLOCKS
    (logits, gradients), *others = found.values()
    for ours, mine in others:
        assert torch.equal(ours, logits)
        assert len(mine) == len(gradients) > 10 and all(torch.equal(mine[name], g) for name, g in gradients.items())


@pytest.mark.parametrize(("pooling", "blocks"), [("mean", BLOCKS), ("first", BLOCKS - 1)])
def test_the_last_block_is_not_made_ready_where_something_else_answers_for_it(pooling: str, blocks: int) -> None:
    base = tiny_base("bert", 0)
    tuned = create("lora-scratch", rank=2).prepare(base.view(2, pooling))
    Runner(base, tuned, "fp32", {"train": base.encode(["a text"])})
    ready = [isinstance(vars(block).get("forward"), EncoderBlock) for block in tuned.view.blocks]
    assert ready == [index < blocks for index in range(BLOCKS)]


def test_virtual_tokens_and_padding_count_among_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    base, told = tiny_base("bert", 0), []
    monkeypatch.setattr(runner, "fuse_blocks", lambda *given, last: told.append(given[3]) or 0)
    for strategy, more in (("lora-scratch", 0), ("prompt-tuning", 20)):
        tuned = create(strategy).prepare(base.view(2, "mean"))
        tokens = {"train": base.encode(["a text"]), "test": base.encode(["a text of more words than the other"])}
        Runner(base, tuned, "fp32", tokens)
        assert told.pop() == -(-int(tokens["test"].lengths.max()) // 8) * 8 + more


@pytest.mark.skipif(products._packing() is None, reason="this processor or PyTorch has no packed weights")
def test_weights_that_are_not_the_bases_are_not_given_back() -> None:
    tuned = prepared("bert", "lora-scratch", {"rank": 3, "alpha": 7.0})
    changed = tuned.view.blocks[0].get_submodule("output.dense").weight
    changed.data = changed.data * 1.5  # type: ignore[operator,union-attr]
    assert fuse_blocks(tuned, "bf16", None, 8) == BLOCKS
    original = tuned.view.original_blocks[0].get_submodule("output.dense").weight
    torch.testing.assert_close(changed, original * 1.5, rtol=1e-2, atol=1e-4)  # type: ignore[operator]


def test_in_bf16_it_is_as_near_to_fp32_as_autocast() -> None:
    exact, gradients = answer(prepared("bert", "lora", {"rank": 3, "alpha": 7.0}))
    errors = []
    for fused in (False, True):
        tuned = prepared("bert", "lora", {"rank": 3, "alpha": 7.0})
        if fused:
            assert fuse_blocks(tuned, "bf16") == BLOCKS
        logits, mine = answer(tuned, "bf16")
        assert logits.dtype == torch.float32 and all(g.dtype == torch.float32 for g in mine.values())
        errors.append(
            (
                float((logits - exact).norm() / exact.norm()),
                float(
                    sum((mine[n] - g).norm() for n, g in gradients.items()) / sum(g.norm() for g in gradients.values())
                ),
            )
        )
    (logits_error, gradients_error), (ours, mine_error) = errors
    assert ours < 0.03 and ours < 3 * logits_error + 0.005
    assert mine_error < 0.05 and mine_error < 3 * gradients_error + 0.005


def test_shares_of_a_few_heads_at_a_time_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(7, 5, 5, generator=torch.Generator().manual_seed(0)) * 4
    rounded = scores.bfloat16()
    whole = rounded.float().softmax(-1).bfloat16()
    usual, heads = Tensor.float, list[int]()
    monkeypatch.setattr(Tensor, "float", lambda some: (heads.append(len(some)), usual(some))[1])
    for count, expected in ((1, [1] * 7), (3 * 25, [3, 3, 1]), (1 << 19, [7])):
        monkeypatch.setattr(encoder_block, "_SLICE", count)
        given = rounded.clone()
        heads.clear()
        found = encoder_block._softmax(given)
        assert torch.equal(found, whole) and found.data_ptr() == given.data_ptr() and heads == expected
    assert encoder_block._softmax(rounded[:0]).shape == (0, 5, 5)
    before = scores.clone()
    assert torch.equal(encoder_block._softmax(scores), scores.softmax(-1)) and torch.equal(scores, before)


def test_other_blocks_are_left_alone() -> None:
    others = [name for name in ARCHITECTURE_NAMES if name not in FUSED]
    assert len(others) == 10
    for name in others:
        assert fuse_blocks(prepared(name, "lora-scratch", {"rank": 2}), "fp32") == 0, name
    assert fuse_blocks(prepared("bert", "lora", {"dropout": 0.1}), "fp32") == 0
    hooked = prepared("bert", "full", {})
    hooked.view.blocks[1].register_forward_hook(lambda module, inputs, output: output)
    assert fuse_blocks(hooked, "fp32") == BLOCKS - 1
    odd = prepared("bert", "lora-scratch", {"rank": 2, "alpha": 4.0})

    class Odd(LoRALinear):
        """A layer with factors that computes something else."""

    odd.view.blocks[0].get_submodule("output.dense").__class__ = Odd
    assert fuse_blocks(odd, "fp32") == BLOCKS - 1
    rescaled = prepared("bert", "lora", {"rank": 2, "alpha": 4.0})
    layer: Any = rescaled.view.blocks[1].get_submodule("output.dense")
    layer.scaling["default"] = 7.0
    assert fuse_blocks(rescaled, "fp32") == BLOCKS - 1
    for place in ("attention.self.key", "attention.output.LayerNorm", "attention"):
        patched = prepared("bert", "full", {})
        inner: Any = patched.view.blocks[1].get_submodule(place)
        inner.forward = partial(type(inner).forward, inner)  # an object's own, as bound methods of others may be
        assert fuse_blocks(patched, "fp32") == BLOCKS - 1, place
    for place in ("output.dense", "output.LayerNorm"):
        extended = prepared("bert", "full", {})
        extended.view.blocks[1].get_submodule(place).register_parameter("gate", nn.Parameter(torch.ones(1), False))
        assert fuse_blocks(extended, "fp32") == BLOCKS - 1, place
    changed = prepared("bert", "full", {})
    changed.view.blocks[0].get_submodule("attention.self").query = nn.Sequential(nn.Linear(32, 32))
    assert fuse_blocks(changed, "fp32") == BLOCKS - 1
    other = prepared("bert", "full", {})
    other.view.config.hidden_act = "relu"
    assert fuse_blocks(other, "fp32") == 0
    more = prepared("bert", "head-only", {})  # something of a strategy's own that trains in a block
    more.view.blocks[2].register_parameter("gate", nn.Parameter(torch.ones(1)))
    assert fuse_blocks(more, "fp32") == BLOCKS - 1


def test_long_texts_go_through_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EAGER_TOKENS == 256
    monkeypatch.setattr("lora_clf.inference.encoder_block.EAGER_TOKENS", 10)
    monkeypatch.setattr("lora_clf.inference.encoder_block.EncoderBlock.forward", None)
    tuned = prepared("bert", "full", {})
    assert fuse_blocks(tuned, "fp32") == BLOCKS
    usual = prepared("bert", "full", {})
    torch.testing.assert_close(tuned.view(*batch(11)), usual.view(*batch(11)), rtol=0, atol=0)
    with pytest.raises(TypeError):
        tuned.view(*batch(10))


def test_a_checkpoint_keeps_nothing_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a block keeps for its backward pass goes at once, and is computed again when it is needed."""
    kept: list[StorageWeakRef] = []
    usual = EncoderBlock.forward

    def watched(self: EncoderBlock, *inputs: Any) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        out, found = usual(self, *inputs)
        kept.extend(StorageWeakRef(each.untyped_storage()) for each in found if each is not None)
        return out, found

    monkeypatch.setattr(EncoderBlock, "forward", watched)
    found = []
    for recomputed in (False, True):
        kept.clear()
        tuned = prepared("bert", "lora-scratch", {"rank": 3, "alpha": 7.0})
        assert fuse_blocks(tuned, "fp32", Packer()) == BLOCKS
        run = partial(tuned.view.classify, *batch())
        logits = checkpoint(run, use_reentrant=False) if recomputed else run()
        assert len(kept) == 18 * BLOCKS and all(each.expired() for each in kept) == recomputed
        logits.square().sum().backward()
        found.append({name: p.grad for name, p in tuned.trainable().items()})
    assert len(found[0]) > 10
    for name, gradient in found[0].items():
        assert gradient is not None
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=0)


def test_a_packing_holds_every_token_and_all_else_is_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding, "ROWS", 32)
    generator = torch.Generator().manual_seed(0)
    sizes = set()
    for _ in range(50):
        tokens = int(torch.randint(1, 60, (), generator=generator))
        lengths = torch.randint(1, tokens + 1, (7,), generator=generator)
        real = torch.arange(tokens) < lengths[:, None]
        found = packing(real)
        if found is None:
            assert (int(lengths.sum()) // 32 + 1) * 32 >= real.numel()
            continue
        sizes.add(len(found.rows))
        assert len(found.rows) % 32 == 0 and len(set(found.rows.tolist())) == len(found.rows)
        x = torch.randn(real.numel(), 3, generator=generator)
        again = found.spread(found.pack(x))
        assert torch.equal(again[real.flatten()], x[real.flatten()])
        assert not real.flatten()[found.rows[found.slots[~real.flatten()]]].any()
    assert len(sizes) > 3
    assert packing(torch.ones(8, 32, dtype=torch.bool)) is None


def test_a_packing_is_worked_out_once_for_a_batch_and_anew_for_the_next() -> None:
    packer, real = Packer(), torch.arange(128) < torch.tensor([[5], [32], [7]])
    row = torch.zeros(3, 1, 128).masked_fill_(~real[:, None], -1e30)
    masks = [torch.zeros(3, 1, 32, 32) for _ in range(2)]
    first = packer.of(masks[0], row)
    assert first is not None and packer.of(masks[0], row) is first
    assert packer.of(masks[1], row) is not first
    assert packer.of(None, None) is None
