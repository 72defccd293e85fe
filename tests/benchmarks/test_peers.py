"""The peers of the speed benchmarks do what their descriptions say, on tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import book_loop
import pytest
import quick
import torch
import trainer_recipe
from transformers import GPT2Config, GPT2Model

from lora_clf.base.base import Base
from lora_clf.data.dataset import Dataset
from lora_clf.tuners.lora_scratch import LoRAScratch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def data() -> Dataset:
    found = quick.quick_data(train=21, validation=8, test=8)
    assert [len(part) for part in found.parts.values()] == [21, 8, 8] and set(found.test.labels) == {"ham", "spam"}
    return found


@pytest.fixture(scope="module")
def gpt2(folder: Path) -> Base:
    return quick.quick_base("gpt2", folder)


@pytest.fixture(scope="module")
def bert(folder: Path) -> Base:
    return quick.quick_base("bert", folder)


@pytest.mark.parametrize(("trains", "count"), [("last-block", 7_090_946), ("full", 124_441_346)])
def test_the_book_trains_as_many_parameters_as_it_says(trains: str, count: int, gpt2: Base, data: Dataset) -> None:
    with torch.device("meta"):
        small = replace(gpt2, backbone=GPT2Model(GPT2Config()).requires_grad_(False), config=GPT2Config())
    loop = book_loop.BookLoop(small, data, trains, steps=None)
    backbone, head = loop.load()
    parameters = [*backbone.parameters(), *head.parameters()]
    assert sum(p.numel() for p in parameters if p.requires_grad) == count
    assert head.bias is not None


def test_the_books_loop_pads_to_one_width_and_reads_the_last_slot(gpt2: Base, data: Dataset) -> None:
    loop = book_loop.BookLoop(gpt2, data, "last-block", steps=None, width=60)
    assert loop.inputs["train"].shape == (21, 60) and loop.inputs["validation"].shape == (8, 60)
    backbone, head = loop.load()
    shortest = int((loop.inputs["train"] == gpt2.tokenizer.pad_id).sum(1).argmax())
    ids = loop.inputs["train"][shortest]
    assert ids[-1] == gpt2.tokenizer.pad_id
    with torch.no_grad():
        found = loop._logits(backbone, head, "train", torch.tensor([shortest]))
        hidden = backbone(input_ids=ids[None]).last_hidden_state
    assert torch.allclose(found, head(hidden[:, -1]), atol=1e-6)


def test_the_books_loop_evaluates_on_schedule_and_is_extrapolated_with_its_evaluations(
    gpt2: Base, data: Dataset
) -> None:
    loop = book_loop.BookLoop(gpt2, data, "last-block", steps=None, epochs=2, eval_every=3, eval_batches=1)
    assert loop.total_steps == 4  # 21 // 8 = 2 steps an epoch: the remainder is dropped
    before = {name: p.clone() for name, p in gpt2.backbone.named_parameters()}
    seconds = loop()
    timing = loop.timing
    assert timing is not None and timing.complete and timing.seconds == timing.measured == seconds > 0
    assert len(loop.losses) == 2  # after the first step and after the fourth
    assert all(torch.equal(p, before[name]) for name, p in gpt2.backbone.named_parameters())
    part = book_loop.BookLoop(gpt2, data, "last-block", steps=1, epochs=2, eval_every=3, eval_batches=1)
    seconds = part()
    timing = part.timing
    assert timing is not None and not timing.complete and (timing.steps, timing.total_steps) == (1, 4)
    assert seconds > 2 * timing.measured  # four steps, and two evaluations more than the one that was timed


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("trains", ["lora", "head", "full"])
def test_a_recipe_of_the_trainer_trains_what_it_says(trains: str, tuned: bool, bert: Base, data: Dataset) -> None:
    recipe = trainer_recipe.TrainerRecipe(bert, data, trains, tuned=tuned, steps=2, bf16=False)
    before = {name: p.clone() for name, p in recipe.load().named_parameters()}
    seconds = recipe()
    model: Any = recipe.trainer.model
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    count = sum(p.numel() for p in trainable.values())
    head = 2 * quick.WIDTH + 2
    if trains == "lora":
        ours = LoRAScratch(rank=trainer_recipe.RANK).prepare(bert.view(2, "mean"))
        assert count == ours.trainable_parameters and ours.coverage is not None and len(ours.coverage.modules) == 18
        assert not any("pooler" in name for name in trainable)
        assert model.active_peft_config.lora_alpha == trainer_recipe.ALPHA
    else:
        assert count == (head if trains == "head" else sum(p.numel() for p in before.values()))
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert {"classifier.weight", "classifier.bias"} <= changed and (len(changed) == 2) == (trains == "head")
    arguments = recipe.trainer.args
    assert arguments.per_device_train_batch_size == (32 if tuned else 8) and arguments.num_train_epochs == 3
    assert arguments.train_sampling_strategy == ("group_by_length" if tuned else "random")
    # 21 rows: three steps an epoch by eights; one by 32s, where whole epochs are timed.
    assert recipe.timing is not None and (recipe.timing.steps, recipe.timing.total_steps) == (
        (2, 3) if tuned else (2, 9)
    )
    assert seconds > recipe.timing.measured > 0 and not recipe.timing.complete
    assert recipe.predict(data.test.texts).shape == (8,)


def test_the_recipes_texts_are_tokenised_as_transformers_would(bert: Base, data: Dataset) -> None:
    recipe = trainer_recipe.TrainerRecipe(bert, data, "head", tuned=False, steps=1)
    theirs = recipe.tokenizer(list(data.train.texts), truncation=True, max_length=bert.max_length)
    assert [row["input_ids"] for row in recipe.rows] == theirs["input_ids"] and len(recipe.rows) == 21
