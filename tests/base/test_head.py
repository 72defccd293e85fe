"""Family heads compute what transformers' own classification classes compute."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lora_clf.base.digest import backbone_digest
from lora_clf.base.pooling import pool, right_padded
from lora_clf.errors import UnsupportedBaseError, UsageError
from lora_clf.tuners import create
from tests.bases import ARCHITECTURE_NAMES, FAMILY_NAMES, WIDTH, batch, randomise, tiny_base, tiny_config


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_family_head_equals_transformers(name: str) -> None:
    base = tiny_base(name)
    tuned = create("head-only").prepare(base.view(3, "family"))
    randomise(tuned)
    config = tiny_config(name)
    config.num_labels = 3
    # transformers finds the positions of some by looking for the padding id.
    config.pad_token_id = padding = 1 if name in ("roberta", "longformer") else 0
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    getattr(theirs, base.architecture.prefix).load_state_dict(base.backbone.state_dict())
    head = {key.removeprefix("head."): value for key, value in tuned.state_dict().items()}
    missing = theirs.load_state_dict(head, strict=False).missing_keys
    assert all(key.startswith(f"{base.architecture.prefix}.") for key in missing)
    ids, mask = batch(rows=5)
    ids = torch.where(mask.bool(), ids, padding)
    with torch.no_grad():
        expected, ours = theirs(input_ids=ids, attention_mask=mask).logits, tuned.view(ids, mask)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_encoder_decoders_have_no_family_head() -> None:
    for name in sorted(set(ARCHITECTURE_NAMES) - set(FAMILY_NAMES)):
        with pytest.raises(UnsupportedBaseError, match="--pooling mean, first or last"):
            tiny_base(name).view(2, "family")


def test_a_bert_without_its_pooler_says_so() -> None:
    base = tiny_base("bert")
    base.backbone.pooler = None
    with pytest.raises(UnsupportedBaseError, match="without its pooler"):
        base.view(2, "family")


def test_unknown_pooling_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'maen'\. Did you mean 'mean'"):
        tiny_base("bert").view(2, "maen")


def test_pooling_follows_the_mask() -> None:
    hidden = torch.arange(2 * 4 * 1, dtype=torch.float32).reshape(2, 4, 1)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert pool(hidden, mask, "mean").flatten().tolist() == [0.5, 5.5]
    assert pool(hidden, mask, "first").flatten().tolist() == [0.0, 4.0]
    assert pool(hidden, mask, "last").flatten().tolist() == [1.0, 7.0]


def test_left_padding_moves_to_the_right() -> None:
    ids, mask = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    moved_ids, moved_mask = right_padded(ids, mask)
    assert moved_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert (moved_ids * moved_mask).tolist() == [[5, 6, 0, 0], [1, 2, 3, 4]]


def test_a_mask_with_a_hole_is_closed_up() -> None:
    ids, mask = torch.tensor([[1, 9, 2, 3, 9], [4, 5, 6, 9, 9]]), torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 0, 0]])
    for kind in (mask, mask.bool()):
        moved_ids, moved_mask = right_padded(ids, kind)
        assert moved_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
        assert moved_ids[:, :3].tolist() == [[1, 2, 3], [4, 5, 6]]
    whole = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert right_padded(ids[:, :3], whole)[1] is whole
    for name in ("bert", "gpt2"):
        view = tiny_base(name).view(2)
        with torch.no_grad():
            torch.testing.assert_close(view(ids, mask)[:1], view(torch.tensor([[1, 2, 3]]), torch.ones(1, 3).long()))


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_a_view_shares_the_bases_storage_and_keeps_ties(name: str) -> None:
    base = tiny_base(name)
    view = base.view(2)
    theirs = dict(base.backbone.named_parameters())
    mine = dict(view.backbone.named_parameters())
    assert len(mine) >= 20 and all(key.startswith("pooler.") for key in set(theirs) - set(mine))
    assert all(p.data_ptr() == theirs[key].data_ptr() and p is not theirs[key] for key, p in mine.items())
    tuned = create("full").prepare(view)
    randomise(tuned)
    assert not any(p.data_ptr() == theirs[key].data_ptr() for key, p in view.backbone.named_parameters())
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest


def test_the_same_seed_gives_the_same_head_whatever_was_drawn_before() -> None:
    first = tiny_base("bert").view(2, seed=1)
    torch.rand(5)
    second = tiny_base("bert").view(2, seed=1)
    other = tiny_base("bert").view(2, seed=2)
    assert torch.equal(first.head.linear.weight, second.head.linear.weight)
    assert not torch.equal(first.head.linear.weight, other.head.linear.weight)
    assert first.head.linear.weight.shape == (2, WIDTH)
    assert copy.deepcopy(first).head.linear.bias.abs().sum() == 0


def test_trainable_counts_of_gpt2_small_equal_the_book() -> None:
    """Design facts: book head (with a bias) and family head, for head-only, last-block, full and LoRA."""
    from transformers import GPT2Config, GPT2Model

    from lora_clf.base.architecture import architecture_of
    from lora_clf.base.base import Base
    from tests.bases import ByteTokenizer

    config = GPT2Config()
    with torch.device("meta"):
        backbone = GPT2Model(config).requires_grad_(False)
    backbone = backbone.to_empty(device="cpu")
    base = Base("gpt2-shape", backbone, config, architecture_of(config), ByteTokenizer(), "family", 120, "none")
    assert base.total_parameters == 124_439_808
    expected = {
        ("last", "head-only"): 1_538,
        ("last", "last-block"): 7_090_946,
        ("last", "full"): 124_441_346,
        ("family", "head-only"): 1_536,
        ("family", "last-block"): 7_090_944,
        ("family", "full"): 124_441_344,
    }
    for (pooling, strategy), count in expected.items():
        assert create(strategy).prepare(base.view(2, pooling)).trainable_parameters == count
    for engine in ("lora", "lora-scratch"):
        attention = create(engine, rank=8, targets="attention").prepare(base.view(2, "family"))
        assert attention.trainable_parameters == 294_912 + 1_536
        everything = create(engine, rank=16, targets="all").prepare(base.view(2, "family"))
        assert everything.trainable_parameters == 2_359_296 + 1_536
