"""Prefix tuning against the cache of past keys and values that transformers itself attends to."""

from __future__ import annotations

import pytest
import torch

from lora_clf.tuners import create
from tests.bases import BLOCKS, batch, randomise, tiny_base


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "opt"])
def test_a_prefix_is_what_a_cache_of_past_keys_and_values_is(name: str, kernel: str) -> None:
    from transformers import DynamicCache

    base = tiny_base(name)
    tuned = create("prefix-tuning", prefix_length=5).prepare(base.view(2, "last"))
    randomise(tuned)
    tuned.view.config._attn_implementation = kernel
    ids, mask = batch()
    state = tuned.state_dict()
    layers = [tuple(state[key] for key in sorted(state) if f".{index}." in key) for index in range(BLOCKS)]
    past = DynamicCache()
    for index, (key, value) in enumerate(layers):
        past.update(*(states.expand(len(ids), -1, -1, -1) for states in (key, value)), index)
    with torch.no_grad():
        ours = tuned.view.hidden(ids, mask)
        theirs = base.view(2, "last").backbone(
            input_ids=ids,
            attention_mask=torch.cat([mask.new_ones(len(ids), 5), mask], dim=1),
            position_ids=torch.arange(ids.shape[1]).expand_as(ids),  # the prefix takes no positions
            past_key_values=past,
        )
    real = mask.bool()
    assert (ours - theirs.last_hidden_state)[real].abs().max() < 1e-5
    plain = base.view(2, "last").hidden(ids, mask)
    assert (ours - plain)[real].abs().max() > 1e-2


def test_without_padding_a_causal_text_still_sees_only_what_came_before() -> None:
    base = tiny_base("llama")
    tuned = create("prefix-tuning").prepare(base.view(2, "last"))
    randomise(tuned)
    ids, mask = torch.randint(10, 200, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    for kernel in ("eager", "sdpa"):
        tuned.view.config._attn_implementation = kernel
        with torch.no_grad():
            whole, part = tuned.view.hidden(ids, mask), tuned.view.hidden(ids[:, :4], mask[:, :4])
        assert (whole[:, :4] - part).abs().max() < 1e-5


def test_a_long_text_fits_as_without_a_prefix() -> None:
    base = tiny_base("bert")
    tuned = create("prefix-tuning", blocks=1).prepare(base.view(2))
    assert sorted(name for name in tuned.trainable() if "prefix" in name) == [
        "encoder.layer.2.attention.self.prefix.key",
        "encoder.layer.2.attention.self.prefix.value",
    ]
    ids, mask = torch.full((1, 96), 20), torch.ones(1, 96, dtype=torch.long)
    assert tuned.view(ids, mask).shape == (1, 2)
