"""Vectors before the text: what the base computes of them, and where they are pooled, cut and pooled together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lora_clf.errors import UsageError
from lora_clf.inference.one_position import last_block_for
from lora_clf.inference.prefix import NOTHING, find_cut
from lora_clf.training.loop import train
from lora_clf.tuners import create
from tests.bases import ARCHITECTURE_NAMES, POSITIONS, batch, randomise, tiny_base
from tests.training.test_loop import FAST, toy

STRATEGIES = ("prompt-tuning", "p-tuning")


# Longformer's global token is the first of the text, with the vectors in front the first of those.
@pytest.mark.parametrize("name", [name for name in ARCHITECTURE_NAMES if name != "longformer"])
def test_the_vectors_of_words_are_those_words(name: str) -> None:
    """Begun as the embeddings of words, the prompt does what those words before the text would."""
    base = tiny_base(name)
    tuned = create("prompt-tuning", virtual_tokens=3).prepare(base.view(2, "mean", seed=4))
    words = torch.tensor([17, 200, 55])
    table = base.backbone.get_input_embeddings()(words)  # type: ignore[operator]
    with torch.no_grad():
        tuned.trainable()["front.encoder.embedding.weight"].copy_(table)
    ids, mask = batch()
    with torch.no_grad():
        ours = tuned.view.hidden(ids, mask)
        longer = (
            torch.cat([words.expand(len(ids), -1), ids], dim=1),
            torch.cat([mask[:, :1].expand(-1, 3), mask], dim=1),
        )
        theirs = base.view(2, "mean").hidden(*longer)[:, 3:]
    assert ours.shape == (*ids.shape, ours.shape[-1])
    assert (ours - theirs)[mask.bool()].abs().max() <= 1e-5


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_padding_changes_nothing(strategy: str, name: str) -> None:
    tuned = create(strategy).prepare(tiny_base(name).view(2, "last", seed=4))
    randomise(tuned)
    ids, mask = batch(rows=5, width=12)
    with torch.no_grad():
        expected = tuned.view(ids, mask)
        alone = torch.cat([tuned.view(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(1))])
    assert (alone - expected).abs().max() <= 1e-5 and expected.std() > 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_below_is_kept_and_no_position_left_out(strategy: str) -> None:
    for name, pooling in (("bert", "first"), ("gpt2", "last"), ("llama", "last")):
        tuned = create(strategy).prepare(tiny_base(name).view(2, pooling))
        assert find_cut(tuned.view, changes_inputs=tuned.tuner.changes_inputs) == NOTHING
        assert last_block_for(tuned.view, pooling) is None
        assert last_block_for(tiny_base(name).view(2, pooling), pooling) is not None


def test_texts_and_vectors_share_the_base_s_positions() -> None:
    base = replace(tiny_base("bert"), max_length=POSITIONS)
    data = toy()
    longest = replace(data.train, texts=("x" * 90, *data.train.texts[1:]))  # which the loop pads to a round width
    data = replace(data, train=longest)
    tuner = create("prompt-tuning", virtual_tokens=30)
    result = train(base, data, tuner, replace(FAST, epochs=1))
    assert result.adapter.header.max_length == POSITIONS - 30
    assert len(result.adapter.logits(["long " * 90])) == 1
    with pytest.raises(UsageError, match="takes 1 to 66 tokens beside the 30 positions that the strategy takes"):
        train(base, toy(), tuner, replace(FAST, epochs=1, max_length=67))


def test_only_padding_is_left_out_where_there_is_no_room() -> None:
    tuned = create("prompt-tuning", virtual_tokens=30).prepare(tiny_base("bert").view(2, "last"))
    ids, mask = torch.full((2, POSITIONS), 20), torch.zeros(2, POSITIONS, dtype=torch.long)
    mask[:, :66] = 1
    with torch.no_grad():
        wide, narrow = tuned.view.hidden(ids, mask), tuned.view.hidden(ids[:, :66], mask[:, :66])
    assert wide.shape[1] == POSITIONS and (wide[:, :66] - narrow).abs().max() <= 1e-6
    mask[0, 66] = 1
    with pytest.raises(UsageError, match="more tokens than the 66 that the vectors before it leave"):
        tuned.view.hidden(ids, mask)
    with pytest.raises(UsageError, match="the base has 96 positions"):
        create("prompt-tuning", virtual_tokens=96).prepare(tiny_base("bert").view(2))
