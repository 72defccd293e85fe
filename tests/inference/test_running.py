"""Batches, kernels, precision and prediction over many texts."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.base.tokenizer import Tokens
from lora_clf.errors import UsageError
from lora_clf.inference.attention import choose_attention, set_attention
from lora_clf.inference.batches import COPIES, collate, inference_rows, split_rows, training_rows
from lora_clf.inference.precision import autocast, cast_frozen, has_native_bf16, resolve_precision
from lora_clf.inference.predict import logits, reference_logits
from lora_clf.inference.runner import Runner
from lora_clf.tuners import create, strategies
from tests.bases import ARCHITECTURE_NAMES, batch, randomise, tiny_base

LENGTHS = np.random.default_rng(3).integers(2, 60, 1045)


def test_every_row_once_an_epoch_and_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = training_rows(LENGTHS, 16, seed=1, epoch=0)
    assert sorted(np.concatenate(first).tolist()) == list(range(1045))
    assert [len(rows) for rows in first].count(16) == 1045 // 16
    assert all(np.array_equal(a, b) for a, b in zip(first, training_rows(LENGTHS, 16, 1, 0), strict=True))
    for seed, epoch in ((1, 1), (2, 0)):
        assert not np.array_equal(np.concatenate(first), np.concatenate(training_rows(LENGTHS, 16, seed, epoch)))


def test_a_batch_of_long_texts_goes_through_in_parts() -> None:
    lengths = np.array([5, 900, 40, 300, 12, 7])
    rows = np.array([3, 0, 2, 4])
    assert [part.tolist() for part in split_rows(rows, lengths, 1200)] == [[3, 0, 2, 4]]
    assert [part.tolist() for part in split_rows(rows, lengths, 1199)] == [[3, 0], [2, 4]]
    assert [part.tolist() for part in split_rows(np.array([1, 5]), lengths, 100)] == [[1], [5]]


def test_windows_save_padding() -> None:
    def padded(window: int) -> float:
        batches = training_rows(LENGTHS, 8, 0, 0, window)
        return sum(LENGTHS[rows].max() * len(rows) for rows in batches) / LENGTHS.sum()

    assert padded(20) < 1.1 < 1.5 < padded(1)
    neighbours = [LENGTHS[rows].max() for rows in training_rows(LENGTHS, 8, 0, 0)]
    assert np.abs(np.diff(neighbours)).mean() > 10  # Consecutive batches are not of like length.


def test_inference_batches_hold_their_budget() -> None:
    batches = inference_rows(LENGTHS, 500)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1045))
    assert max(LENGTHS[rows].max() * len(rows) for rows in batches) <= 500
    assert [rows.tolist() for rows in inference_rows(np.array([9, 900, 3]), 500)] == [[1], [0, 2]]
    assert inference_rows(np.array([], dtype=np.int64), 500) == []


def test_batches_are_cut_where_that_saves_more_than_it_costs() -> None:
    def price(batches: list[Any], lengths: Any, cost: int) -> int:
        return sum(int(lengths[rows].max()) * len(rows) + cost for rows in batches)

    random = np.random.default_rng(0)
    for cost in (1, 7, 40, 1000):
        lengths = random.integers(1, 60, 9)
        ordered = np.sort(lengths)[::-1]
        every = [
            sum(int(ordered[a]) * (b - a) + cost for a, b in pairwise([0, *where, 9]))
            for count in range(9)
            for where in combinations(range(1, 9), count)
        ]
        batches = inference_rows(lengths, 10_000, cost)
        assert sorted(np.concatenate(batches).tolist()) == list(range(9))
        assert price(batches, lengths, cost) == min(every)
    assert len(inference_rows(LENGTHS, 8192, 1)) > len(inference_rows(LENGTHS, 8192, 200)) > 5
    assert max(LENGTHS[rows].max() * len(rows) for rows in inference_rows(LENGTHS, 500, 40)) <= 500
    assert inference_rows(np.array([], dtype=np.int64), 500, 40) == []


def test_collate_pads_on_the_right() -> None:
    made = collate([np.array([5, 6], dtype=np.int32), np.array([7], dtype=np.int32)], np.array([1, 0]))
    assert made.input_ids.tolist() == [[7, 0], [5, 6]]
    assert made.attention_mask.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_answers_come_in_input_order_whatever_the_batches(name: str) -> None:
    base = tiny_base(name)
    tuned = create("lora").prepare(base.view(3))
    randomise(tuned)
    tokens = base.encode(["b" * n for n in (3, 50, 1, 20, 7, 33)] + [""])
    alone = reference_logits(tuned.view, tokens)
    for budget in (1, 100, 8192):
        answers = logits(tuned.view, tokens, batch_tokens=budget)
        np.testing.assert_allclose(answers, alone, rtol=1e-5, atol=1e-5)
    assert alone.shape == (7, 3) and alone.std(axis=0).min() > 1e-4
    assert logits(tuned.view, base.encode([])).shape == (0, 3)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_both_kernels_give_equal_results(name: str) -> None:
    view = tiny_base(name).view(3)
    answers = []
    for kernel in ("eager", "sdpa"):
        set_attention(view, kernel)
        assert view.config._attn_implementation == (kernel if view.architecture.fused else "eager")
        with torch.no_grad():
            answers.append(view(*batch()))
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)


def test_the_kernel_is_chosen_by_shape_and_purpose() -> None:
    view = tiny_base("bert").view(2)
    chosen = []
    for tokens, training in ((32, True), (32, False), (2048, True)):
        choose_attention(view, tokens, training=training)
        chosen.append(view.config._attn_implementation)
    assert chosen == ["eager", "sdpa", "sdpa"]


def test_precision_is_decided_by_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert has_native_bf16(cpu) is native
        assert resolve_precision("auto", cpu) == ("bf16" if native else "fp32")
    with pytest.raises(UsageError, match="no native bf16"):
        resolve_precision("bf16", cpu)
    with pytest.raises(UsageError, match=r"'fp8'.*auto, bf16, fp16, fp32"):
        resolve_precision("fp8", cpu)


def test_bf16_casts_only_what_is_frozen_and_keeps_the_head_in_fp32() -> None:
    base = tiny_base("bert")
    tuned = create("last-block").prepare(base.view(2))
    cast_frozen(tuned.view, "bf16")
    kinds = {name: p.dtype for name, p in tuned.view.named_parameters()}
    assert kinds["backbone.encoder.layer.0.attention.self.query.weight"] == torch.bfloat16
    assert kinds["backbone.encoder.layer.2.attention.self.query.weight"] == torch.float32
    assert kinds["head.linear.weight"] == torch.float32
    assert all(p.dtype == torch.float32 for p in base.backbone.parameters())
    with autocast("bf16", base.device):
        answers = tuned.view(*batch())
    assert answers.dtype == torch.float32
    plain = create("last-block").prepare(base.view(2)).view(*batch())
    assert 0 < (answers - plain).abs().max() < 0.05


def test_prediction_leaves_the_view_as_it_was() -> None:
    base = tiny_base("bert")
    tuned = create("lora", dropout=0.5).prepare(base.view(2))
    randomise(tuned)
    view = tuned.view
    view.train()
    with torch.no_grad():
        assert not torch.equal(view(*batch()), view(*batch()))
    tokens = base.encode(["hello", "you"])
    assert np.array_equal(logits(view, tokens), logits(view, tokens))  # No dropout while predicting.
    assert view.training
    assert any(module.training for module in view.backbone.modules() if isinstance(module, torch.nn.Dropout))


def test_fp16_is_for_cuda() -> None:
    with pytest.raises(UsageError, match="fp16 is for CUDA"):
        resolve_precision("fp16", torch.device("cpu"))
    assert resolve_precision("fp16", torch.device("cuda")) == "fp16"


def test_copies_stand_together() -> None:
    random = np.random.default_rng(0)
    texts = np.concatenate([np.arange(80), np.repeat([3, 50, 60], [1, 3, 10])])  # two of 3, four of 50, eleven of 60
    lengths = random.integers(2, 60, 80)[texts]
    firsts = texts  # the first 80 rows are all different
    meetings = {3: 0, 50: 0}
    for epoch in range(10):
        batches = training_rows(lengths, 8, 1, epoch, 2, firsts=firsts)
        assert sorted(np.concatenate(batches).tolist()) == list(range(94))
        assert sorted(len(rows) for rows in batches) == [6] + [8] * 11
        for text in meetings:
            meetings[text] += max(int((texts[rows] == text).sum()) for rows in batches) == (texts == text).sum()
        again = training_rows(lengths, 8, 1, epoch, 2, firsts=firsts)
        assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))
        for window in (1, 20):  # without copies nothing is another order
            alone = training_rows(lengths[:80], 8, 1, epoch, window)
            same = training_rows(lengths[:80], 8, 1, epoch, window, firsts=np.arange(80))
            assert all(np.array_equal(one, other) for one, other in zip(alone, same, strict=True))
    assert meetings[3] >= 8 and meetings[50] >= 5  # the others lie across the end of a batch
    # Of a text that comes more often no more than so many stand together: they are spread over the windows.
    often = np.concatenate([np.arange(300), np.zeros(100, dtype=np.int64)])
    batches = training_rows(random.integers(2, 60, 300)[often], 16, 0, 0, 1, firsts=often)
    assert COPIES <= max(int((often[rows] == 0).sum()) for rows in batches) <= 3 * COPIES
    assert training_rows(LENGTHS[:0], 8, 0, 0, firsts=np.zeros(0, dtype=np.int64)) == []


@pytest.mark.parametrize("strategy", list(strategies()))
def test_what_drops_something_else_of_each_copy_is_known(strategy: str) -> None:
    options = {"dropout": 0.3} if "dropout" in type(create(strategy)).flags() else {}
    base = tiny_base("bert")
    for settings in ({}, options):
        tuned = create(strategy, **settings).prepare(base.view(2))
        randomise(tuned)
        view = tuned.view.train()
        ids, mask = batch()
        with torch.no_grad():
            vectors = view.vectors(ids[[0, 0, 1, 0]], mask[[0, 0, 1, 0]])
        assert not torch.equal(vectors[0], vectors[2])
        alike = torch.allclose(vectors[0], vectors[1], rtol=1e-5, atol=1e-6)
        assert alike == torch.allclose(vectors[0], vectors[3], rtol=1e-5, atol=1e-6)
        assert view.drops == (not alike)
        assert not (view.drops and not settings)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("lora-scratch", {}),
        ("last-block", {}),
        ("lora-scratch", {"dropout": 0.3}),
        ("peft", {"peft_type": "RANDLORA", "set": "r=4,randlora_dropout=0.3"}),
    ],
)
def test_copies_are_computed_once_and_their_gradients_add_up(
    name: str, strategy: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base(name)
    texts = ["one two", "b" * 20, "one two", "c", "b" * 20, "one two"]
    tuned = create(strategy, **settings).prepare(base.view(2, "last" if name != "bert" else None))
    randomise(tuned)
    runner = Runner(base, tuned, "fp32", {"train": base.encode(texts)})
    assert runner.view.drops == bool(settings)
    computed: list[int] = []
    vectors = Runner._vectors

    def counted(self: Runner, part: str, rows: Any, **more: Any) -> torch.Tensor:
        computed.append(len(rows))
        return vectors(self, part, rows, **more)

    monkeypatch.setattr(Runner, "_vectors", counted)
    tuned.view.train()
    targets = torch.tensor([0, 1, 1, 0, 1, 0])  # copies with other labels among them

    def gradients(parts: list[list[int]]) -> tuple[list[torch.Tensor], torch.Tensor]:
        tuned.view.zero_grad()
        answers = torch.zeros(6, 2)
        for rows in parts:
            found = runner.logits("train", np.array(rows), training=True)
            torch.nn.functional.cross_entropy(found, targets[rows], reduction="sum").backward()
            answers[rows] = found.detach()
        return [p.grad for p in tuned.view.parameters() if p.grad is not None], answers

    together, answers = gradients([[5, 1, 0, 2, 4, 3]])
    if settings:  # each copy has its own share dropped
        assert computed == [6] and not torch.equal(answers[0], answers[2])
        return
    assert computed == [3] and torch.equal(answers[0], answers[2]) and not torch.equal(answers[0], answers[1])
    apart, one_by_one = gradients([[row] for row in range(6)])
    assert computed == [3] + [1] * 6
    torch.testing.assert_close(answers, one_by_one, rtol=1e-5, atol=1e-5)
    assert len(together) == len(apart) > 3
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert max(float(each.abs().max()) for each in apart) > 1e-3
    monkeypatch.setattr("lora_clf.inference.runner.MOST_TRAINED_TOKENS", 20)
    parts = runner.split(np.array([5, 1, 0, 2, 4, 3]))  # copies stay together where a batch goes through in parts
    assert len(parts) > 1 and sorted(np.concatenate(parts).tolist()) == list(range(6))
    assert all(len({i for i, rows in enumerate(parts) for row in rows if texts[row] == text}) == 1 for text in texts)


def test_what_is_kept_for_the_backward_pass_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def counted(rows: Any, lengths: Any, limit: int) -> Any:
        limits.append(limit)
        return split_rows(rows, lengths, limit)

    monkeypatch.setattr("lora_clf.inference.runner.split_rows", counted)
    base = tiny_base("bert")
    runner = Runner(base, create("lora-scratch").prepare(base.view(2)), "fp32", {"train": base.encode(["a"])})
    for count in (16, 24, 40, 64, 1000):
        runner.split(np.zeros(count, dtype=np.int64))
    assert limits == [1536, 1536, 2560, 4096, 4096]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bert", [6, 3, 6, 3]), ("gpt2", [3, 3]), ("llama", [3, 3, 3, 3])],  # GPT-2's last block needs no ids
)
def test_shapes_stay_the_same_where_padding_is_left_out(
    name: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of one token fill a batch up; not where they would be computed in full."""
    base = tiny_base(name)
    shapes: list[int] = []
    made = collate

    def counted(*given: Any) -> Any:
        batch = made(*given)
        shapes.append(len(batch.input_ids))
        return batch

    monkeypatch.setattr("lora_clf.inference.runner.collate", counted)
    texts = ["one two", "b" * 20, "one two", "c", "b" * 20, "one two"]
    for settings in ({}, {"blocks": 1}):  # and from kept states
        tuned = create("lora-scratch", **settings).prepare(base.view(2))
        randomise(tuned)
        runner = Runner(base, tuned, "fp32", {"train": base.encode(texts)})
        found = runner.logits("train", np.arange(6), training=True)
        assert found.shape == (6, 2) and torch.isfinite(found).all()
        assert runner.all_logits("train").shape == (6, 2)
    assert shapes == expected
    monkeypatch.setattr("lora_clf.inference.runner.EAGER_TOKENS", 12)  # above that a block computes padding
    shapes.clear()
    long = Runner(base, create("lora-scratch").prepare(base.view(2)), "fp32", {"train": base.encode(texts)})
    long.logits("train", np.arange(6), training=True)
    assert shapes == [3]


def test_gradients_of_copies_add_up_in_one_order() -> None:
    base = tiny_base("gpt2")
    tuned = create("lora-scratch").prepare(base.view(2))
    randomise(tuned)
    tokens = base.encode(["one", "two three", "four"])
    many = Tokens([tokens.ids[row % 3] for row in range(3000)], np.zeros(3000, dtype=np.bool_))
    runner = Runner(base, tuned, "fp32", {"train": many})
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    found = []
    try:
        for _ in range(5):
            tuned.view.zero_grad()
            answers = runner.logits("train", np.arange(3000), training=True)
            (answers * torch.linspace(-1, 1, 6000).view(3000, 2).sin()).sum().backward()
            found.append([p.grad.clone() for p in tuned.view.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(threads)
    assert len(found[0]) > 3
    assert all(torch.equal(one, other) for each in found[1:] for one, other in zip(found[0], each, strict=True))
