"""Bases beyond the eleven of every contract: Mistral, Qwen 2, and OPT as opt-350m has it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lora_clf.base.digest import backbone_digest
from lora_clf.base.pooling import POOLINGS
from lora_clf.tuners import create
from tests.bases import VARIANT_NAMES, batch, randomise, tiny_base, tiny_config

WIDTHS = {"mistral": 32, "qwen2": 32, "llama-wide": 32, "opt-post-norm": 32, "opt-projected": 16}
LAYERS = {"mistral": 7, "qwen2": 7, "llama-wide": 7, "opt-post-norm": 6, "opt-projected": 6}  # linear layers in a block


def test_the_variants_are_all_there() -> None:
    assert tuple(WIDTHS) == VARIANT_NAMES and len(VARIANT_NAMES) == 5


@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_the_final_norm_is_there_or_none(name: str) -> None:
    norm = tiny_base(name).view(2).final_norm
    assert (norm is None) == name.startswith("opt")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_padding_changes_nothing(name: str, pooling: str) -> None:
    view = tiny_base(name).view(3, pooling)
    ids, mask = batch(rows=6, width=30)  # Longer than the sliding windows of 16.
    lengths = mask.sum(1).tolist()
    more, left = torch.zeros(6, 40, dtype=torch.long), torch.zeros(6, 40, dtype=torch.long)
    more_mask, left_mask = torch.zeros_like(more), torch.zeros_like(left)
    more[:, :30], more_mask[:, :30] = ids, mask
    for row, length in enumerate(lengths):
        left[row, 40 - length :], left_mask[row, 40 - length :] = ids[row, :length], 1
    with torch.no_grad():
        expected = view(ids, mask)
        alone = torch.cat([view(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths)])
        answers = {"alone": alone, "more": view(more, more_mask), "left": view(left, left_mask)}
    for kind, logits in answers.items():
        assert (logits - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())), kind
    assert expected.std() > 1e-4


@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_family_head_equals_transformers(name: str) -> None:
    base = tiny_base(name)
    tuned = create("head-only").prepare(base.view(3, "family"))
    randomise(tuned)
    config = tiny_config(name)
    config.num_labels, config.pad_token_id = 3, 0
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    getattr(theirs, base.architecture.prefix).load_state_dict(base.backbone.state_dict())
    head = {key.removeprefix("head."): value for key, value in tuned.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in head.items()} == {"score.weight": (3, WIDTHS[name])}
    theirs.load_state_dict(head, strict=False)
    ids, mask = batch(rows=5, width=30)
    with torch.no_grad():
        expected, ours = theirs(input_ids=ids, attention_mask=mask).logits, tuned.view(ids, mask)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["head-only", "last-block", "full", "lora", "lora-scratch"])
@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_every_strategy_trains_and_merges(name: str, strategy: str) -> None:
    base = tiny_base(name)
    tuned = create(strategy).prepare(base.view(3))
    if strategy.startswith("lora"):
        assert tuned.coverage is not None and len(tuned.coverage.modules) == 3 * LAYERS[name]
    randomise(tuned)
    tuned.view(*batch()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in tuned.trainable().values())
    merged = tuned.merge()
    with torch.no_grad():
        torch.testing.assert_close(merged(*batch()), tuned.view(*batch()), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(merged(*batch()), base.view(3)(*batch()), atol=1e-3)
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest


def test_last_block_has_no_final_norm_to_train_where_there_is_none() -> None:
    names = {
        name: {key for key in create("last-block").prepare(tiny_base(name).view(2)).trainable() if "head." not in key}
        for name in VARIANT_NAMES
    }
    assert any(key.startswith("norm") for key in names["mistral"])
    assert all(key.startswith("decoder.layers.2.") for key in names["opt-projected"]) and names["opt-projected"]
