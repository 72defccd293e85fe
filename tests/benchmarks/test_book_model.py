"""A row's classifier reads, pools, attends and trains what the row says, on tiny models."""

from __future__ import annotations

from dataclasses import replace

import book_model
import book_training
import numpy as np
import pytest
import quick
import torch
from book_rows import BY_NAME, Row, unsupported
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from lora_clf.base.base import Base
from lora_clf.data.dataset import Dataset
from tests.bases import ARCHITECTURE_NAMES, VARIANT_NAMES, tiny_base

ALL = np.arange(6)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return quick.quick_data(train=20, validation=6, test=6)


def classifier(base: Base, data: Dataset, row: Row | str, *, start: bool = True) -> book_model.Classifier:
    """A row's classifier with everything that trains moved away from where it starts."""
    row = BY_NAME[row] if isinstance(row, str) else row
    model = book_model.Classifier(base, data, row, 3, "fp32")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    if start:
        for part in book_training.PARTS:
            model.keep(part, np.arange(len(model.texts.ids[part])))
        model.start_above()
    return model


def by_hand(base: Base, model: book_model.Classifier, part: str = "train") -> Tensor:
    """Logits of the first six rows of row 1 and its like, as the book does it: padded, no mask, the last slot."""
    ids, _ = model.texts.collated(part, ALL)
    with torch.no_grad():
        hidden = model.view.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        found: Tensor = model.view.head(hidden[:, -1])
    return found


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_row_1_pools_a_padded_slot_and_lets_it_see(name: str, data: Dataset) -> None:
    base = tiny_base(name, 1)
    model = classifier(base, data, "1", start=False)
    ids, lengths = model.texts.collated("train", ALL)
    assert model.texts.width == model.texts.longest == ids.shape[1] > int(lengths.min())
    assert (ids == base.tokenizer.pad_id).any(dim=1).sum() >= 3
    wanted = by_hand(base, model)
    for part in book_training.PARTS:
        model.keep(part, np.arange(len(model.texts.ids[part])))
    model.start_above()
    found = model.logits("train", ALL, training=True)
    assert torch.allclose(found, wanted, atol=1e-5) and found.requires_grad
    assert not torch.allclose(wanted, model.logits("train", ALL, training=False).roll(1, 0), atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.parametrize("row", ["1", "3", "4", "11", "13", "16", "17", "19", "B", "C", "D"])
def test_kept_states_change_no_logit(row: str, name: str, data: Dataset) -> None:
    base = tiny_base(name, 1)
    model = classifier(base, data, row)
    plain = classifier(base, data, row, start=False)
    assert model.cut.blocks == {"3": 3, "4": 1, "11": 0}.get(row, 2) and model.cut.pooled == (row == "3")
    plain.cut = book_model.NOTHING
    order = np.array([4, 0, 9, 2])
    with torch.no_grad():
        found, wanted = (each.logits("train", order, training=False) for each in (model, plain))
    assert torch.allclose(found, wanted, atol=1e-5) and found.std() > 1e-3


@pytest.mark.parametrize(
    ("name", "row", "seen"),
    [("gpt2", "1", True), ("gpt2", "16", False), ("gpt2", "2", False), ("gpt2", "17", True), ("gpt2", "D", False),
     ("bert", "1", True), ("bert", "16", True), ("bert", "2", True), ("bert", "B", False), ("bert", "D", False),
     ("bert", "A", True), ("bert", "14", False), ("gpt2", "19", True), ("bert", "C", False)],
)  # fmt: skip
def test_padding_matters_where_the_row_says(name: str, row: str, seen: bool, data: Dataset) -> None:
    model = classifier(tiny_base(name, 1), data, row, start=False)
    model.cut = book_model.NOTHING
    shortest = np.array([int(model.texts.lengths["train"].argmin())])
    model.texts.width = 60
    with torch.no_grad():
        one = model.logits("train", shortest, training=False)
        model.texts.width = 90
        other = model.logits("train", shortest, training=False)
    assert model.texts.lengths["train"].min() < 60
    assert torch.allclose(one, other, atol=1e-5) != seen


@pytest.mark.parametrize("name", [*ARCHITECTURE_NAMES, *VARIANT_NAMES])
@pytest.mark.parametrize("training", [True, False])
def test_the_other_mask_turns_looking_ahead_round_or_is_refused(name: str, training: bool, data: Dataset) -> None:
    base = tiny_base(name, 1)
    row = replace(BY_NAME["D"], trains="all")
    refused = unsupported(row, base.config, base.architecture)
    assert (refused is not None) == (name in REFUSED), refused
    if refused:
        return
    model = classifier(base, data, row)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 266, (1, 9), generator=generator)
    later = ids.clone()
    later[0, -1] = (later[0, -1] - 10 + 7) % 256 + 10
    lengths = torch.tensor([9])
    with torch.no_grad():
        before, after = (model.hidden(each, lengths, training=training)[0, 0] for each in (ids, later))
        kept = model.view.hidden(ids, torch.ones_like(ids))[0, 0], model.view.hidden(later, torch.ones_like(ids))[0, 0]
    assert torch.allclose(before, after, atol=1e-6) != base.architecture.causal
    assert torch.allclose(*kept, atol=1e-6) == base.architecture.causal


REFUSED = ("mistral", "qwen2", "modernbert", "longformer", "opt", "opt-post-norm", "opt-projected")


def test_rows_train_as_many_numbers_as_they_say() -> None:
    config, tiny = GPT2Config(), tiny_base("gpt2")
    with torch.device("meta"):
        base = replace(tiny, backbone=GPT2Model(config).requires_grad_(False), config=config)
    factors = (768 + 2304) + (768 + 768) + 2 * (768 + 3072)  # a block's four layers, for each rank
    for name, count in {
        "1": 7_090_946,
        "3": 1_538,
        "4": 7_090_946 + 7_087_872,
        "5": 124_441_346,
        "11": 12 * 16 * factors + 1_538,
    }.items():
        row = BY_NAME[name]
        assert book_model.strategy(row).prepare(base.view(2, row.pooling)).trainable_parameters == count, name
    scalings = {name: book_model.strategy(BY_NAME[name]).scaling for name in ("11", "12")}  # type: ignore[attr-defined]
    assert scalings == {"11": 16, "12": 8}  # the book multiplies by alpha, not by alpha / rank


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama"])
def test_random_weights_are_torchs_own_and_follow_the_seed(name: str) -> None:
    base = tiny_base(name, 1)
    before = {key: value.clone() for key, value in base.backbone.named_parameters()}
    one, same, other = (book_model.redrawn(base, seed) for seed in (0, 0, 1))
    assert all(torch.equal(value, before[key]) for key, value in base.backbone.named_parameters())
    pairs = list(
        zip(one.backbone.named_parameters(), same.backbone.parameters(), other.backbone.parameters(), strict=True)
    )
    assert len(pairs) > 20
    matrices = 0
    for (key, value), again, third in pairs:
        assert torch.equal(value, again) and not value.requires_grad, key
        if value.ndim == 2:
            matrices += 1
            assert not torch.equal(value, third) and not torch.equal(value, before[key]), key
    assert matrices > 10
    embedding = next(module for module in one.backbone.modules() if isinstance(module, nn.Embedding))
    assert embedding.weight.std() == pytest.approx(1, abs=0.05)
    linear = one.backbone.get_submodule(next(path for path, module in one.backbone.named_modules()
                                             if type(module).__name__ in ("Linear", "Conv1D")))  # fmt: skip
    bound = quick.WIDTH**-0.5
    assert float(linear.weight.abs().max()) <= bound and linear.weight.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert one.digest != other.digest != base.digest


def test_eight_batches_of_one_are_one_batch_of_eight(data: Dataset) -> None:
    base = tiny_base("gpt2", 1)
    recipe = book_training.Recipe(learning_rate=1e-3)
    order = np.random.default_rng(0).permutation(20)[:8]
    moved = []
    for name, batches in (("15", [order[i : i + 1] for i in range(8)]), ("16", [order])):
        model = classifier(base, data, replace(BY_NAME[name], padding="none"))
        before = model.view.head.weight if hasattr(model.view.head, "weight") else model.parameters[-1]
        started = before.detach().clone()
        optimizer, rate = book_training._optimizer(model, recipe)
        loss = book_training._stepped(model, optimizer, batches)
        assert rate == 1e-3 and not torch.equal(started, before)
        moved.append((loss, model.logits("train", order, training=False).detach()))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-5)
    assert torch.allclose(moved[0][1], moved[1][1], atol=1e-4)


def test_an_epoch_is_shuffled_and_drops_what_is_left_over() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (list(book_training.batches(21, BY_NAME["1"], generator)) for _ in range(2))
    assert [len(rows) for rows in first] == [8, 8] and not np.array_equal(first[0], second[0])
    assert len({int(row) for rows in first for row in rows}) == 16
    assert len(list(book_training.batches(21, BY_NAME["14"], generator))) == 21


@pytest.mark.parametrize("row", ["1", "10", "15", "A", "G"])
def test_a_row_learns_and_leaves_the_base_alone(row: str, data: Dataset) -> None:
    base = tiny_base("bert", 1)
    before = {name: value.clone() for name, value in base.backbone.named_parameters()}
    recipe = book_training.Recipe(epochs=6, learning_rate=5e-3)
    found, again = (book_training.trained(base, data, BY_NAME[row], 0, recipe) for _ in range(2))
    assert found["wrong"] == again["wrong"] and found["epochs"] == again["epochs"]
    assert found["test"] == pytest.approx(1 - len(found["wrong"]) / 6)
    if row != "G":
        losses = [epoch["train_loss"] for epoch in found["epochs"]]
        assert len(losses) == 6 and losses[-1] < losses[0] - 0.02
    assert all(torch.equal(value, before[name]) for name, value in base.backbone.named_parameters())


def test_seeds_share_the_frozen_part(data: Dataset) -> None:
    base, kept = tiny_base("bert", 1), book_model.Kept()
    recipe = book_training.Recipe(epochs=1)
    one = book_training.trained(base, data, BY_NAME["1"], 0, recipe, kept)
    states = [id(state) for state in kept.states["train"]]
    assert len(states) == 20 and None not in kept.states["train"]
    two = book_training.trained(base, data, BY_NAME["19"], 1, recipe, kept)  # another pooling of the same states
    assert [id(state) for state in kept.states["train"]] == states
    assert one["prefix_seconds"] == two["prefix_seconds"]
    book_training.trained(base, data, BY_NAME["17"], 1, recipe, kept)
    assert [id(state) for state in kept.states["train"]] != states


def test_times_are_taken_of_some_batches(data: Dataset) -> None:
    base = tiny_base("gpt2", 1)
    for name, count in (("1", 1), ("14", 3)):  # 20 rows make two batches of 8, of which one warms up
        found = book_training.timed(base, data, BY_NAME[name], 0, book_training.Recipe(), 3)
        assert found["timed_batches"] == count and found["training_seconds"] >= 0 and found["prefix_seconds"] >= 0
