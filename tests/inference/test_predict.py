"""Many texts at once: any order, any number, equal ones, the faster copy; the answers stay what they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.provenance import make_header
from lora_clf.base.base import Base
from lora_clf.base.digest import backbone_digest
from lora_clf.errors import UsageError
from lora_clf.inference import predict
from lora_clf.inference.predict import answering, chunks, logits
from lora_clf.tuners import create, strategies
from tests.bases import ARCHITECTURE_NAMES, randomise, tiny_base

TEXTS = [chr(97 + i % 26) * (1 + (7 * i) % 40) for i in range(60)]
FEWER = TEXTS[:24]  # still several batches of several lengths


CORE = ("head-only", "last-block", "full", "lora", "lora-scratch")


def made(strategy: str = "lora", name: str = "bert", pooling: str = "mean", base: Base | None = None) -> Adapter:
    base = base or tiny_base(name)
    options = {"rank": 4, "alpha": 6.0} if strategy.startswith("lora") else {}
    tuned = create(strategy, **options).prepare(base.view(3, pooling))
    randomise(tuned)
    return Adapter(base, tuned, make_header(base, tuned, labels=["a", "b", "c"]))


def test_chunks() -> None:
    assert [*chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [*chunks([], 3)] == [] and [*chunks("ab", 2)] == [["a", "b"]]
    endless = chunks(itertools.count(), 2)
    assert next(endless) == [0, 1] and next(endless) == [2, 3]


@pytest.mark.parametrize("strategy", list(strategies()))
@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_the_copy_for_many_texts_is_the_same_function(name: str, strategy: str) -> None:
    base = tiny_base(name)
    if reason := create(strategy).refusal(base.view(2)):
        pytest.skip(reason)
    poolings = ("mean", "last") if name != "bert" else ("mean", "last", "first", "family")
    if strategy not in CORE and name not in ("bert", "gpt2", "llama"):  # one is enough, half of them each
        poolings = poolings[(ARCHITECTURE_NAMES.index(name) + list(strategies()).index(strategy)) % 2 :][:1]
    for pooling in poolings:
        adapter = made(strategy, name, pooling, base)
        view, tokens = adapter.tuned.view, adapter.base.encode(FEWER)
        before = {key: tensor.clone() for key, tensor in view.state_dict().items()}
        copy, last = answering(adapter.tuned, "fp32", predict.MANY)
        expected = logits(view, tokens)
        found = logits(copy, tokens, last=last)
        assert np.abs(found - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))
        assert expected.std(axis=0).min() > 1e-3
        assert copy is not view and (last is None or pooling != "mean")
        assert last is None or last.mask is None
        assert answering(adapter.tuned, "fp32", predict.MANY - 1) == (view, None)
        assert all(torch.equal(tensor, before[key]) for key, tensor in view.state_dict().items())
        assert np.array_equal(logits(view, tokens), expected)  # nothing of the copy is left in the view
        assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest


def test_one_position_where_one_is_pooled() -> None:
    found = {pooling: answering(made("lora", "bert", pooling).tuned, "fp32", 999).last is not None
             for pooling in ("mean", "first", "last", "family")}  # fmt: skip
    assert found == {"mean": False, "first": True, "last": True, "family": True}


def test_no_copy_of_a_base_that_is_too_large_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    assert answering(adapter.tuned, "fp32", predict.MANY).view is not adapter.tuned.view
    monkeypatch.setattr(predict, "LARGEST_COPY", 1000)
    assert answering(adapter.tuned, "fp32", predict.MANY) == (adapter.tuned.view, None)


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_the_copy_takes_little_memory(strategy: str) -> None:
    """Only what is merged is copied; the rest is the same storage."""
    adapter = made(strategy)
    places = {p.data_ptr() for module in (adapter.tuned.view, adapter.base.backbone) for p in module.parameters()}
    copy = answering(adapter.tuned, "fp32", predict.MANY).view
    own = [name for name, p in copy.named_parameters() if p.data_ptr() not in places]
    merged = 18 if strategy == "lora" else 0  # 6 linear layers in each of 3 blocks
    assert sum(name.startswith("backbone") for name in own) == merged


def test_memory_is_given_back_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    given: list[int] = []
    monkeypatch.setattr(predict.heap, "release", lambda: given.append(1))
    expected = adapter.logits(TEXTS)
    assert not given  # a few texts are answered without
    monkeypatch.setattr(predict, "RELEASED_TOKENS", 100)
    monkeypatch.setattr(predict, "CPU_BATCH_TOKENS", 60)
    np.testing.assert_allclose(adapter.logits(TEXTS), expected, rtol=1e-5, atol=1e-5)
    assert len(given) > 5


def test_memory_of_what_a_copy_was_made_of_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    cast, done = predict.cast_frozen, list[str]()
    monkeypatch.setattr(predict, "cast_frozen", lambda *given: (done.append("cast"), cast(*given))[1])
    monkeypatch.setattr(predict.heap, "release", lambda: done.append("released"))
    answering(adapter.tuned, "bf16", predict.MANY - 1)
    assert not done
    answering(adapter.tuned, "bf16", predict.MANY)
    assert done == ["cast", "released"]


@pytest.mark.parametrize("strategy", ["last-block", "lora"])
def test_the_copy_in_bf16_is_private(strategy: str) -> None:
    adapter = made(strategy)
    copy, last = answering(adapter.tuned, "bf16", predict.MANY)
    kinds = {p.dtype for p in copy.blocks.parameters() if p.ndim == 2}
    assert kinds == {torch.bfloat16} and next(copy.head.parameters()).dtype == torch.float32
    assert all(
        p.dtype == torch.float32 for p in [*adapter.base.backbone.parameters(), *adapter.tuned.view.parameters()]
    )
    tokens = adapter.base.encode(TEXTS)
    found = logits(copy, tokens, precision="bf16", last=last)
    assert 0 < np.abs(found - logits(adapter.tuned.view, tokens)).max() < 0.1


def test_equal_texts_are_computed_once_and_get_equal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    view = adapter.tuned.view
    seen: list[int] = []
    plain = type(view).classify

    def counted(self, ids, mask):  # type: ignore[no-untyped-def]
        seen.append(len(ids))
        return plain(self, ids, mask)

    monkeypatch.setattr(type(view), "classify", counted)
    texts = [TEXTS[i % 7] for i in range(50)]
    found = logits(view, adapter.base.encode(texts))
    assert sum(seen) == 7
    alone = logits(view, adapter.base.encode(texts[:7]))
    assert np.array_equal(found, alone[np.arange(50) % 7]) and len(np.unique(alone, axis=0)) == 7


@pytest.mark.parametrize("size", [1, 7, 60, 61])
def test_chunks_change_no_answer(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    expected, answers = adapter.logits(TEXTS), adapter.predict(TEXTS)
    monkeypatch.setattr(predict, "CHUNK", size)
    monkeypatch.setattr(predict, "MANY", 5)
    np.testing.assert_allclose(adapter.logits(TEXTS), expected, rtol=1e-5, atol=1e-5)
    now = adapter.predict(TEXTS)
    assert [each.label for each in now] == [each.label for each in answers] and len(now) == 60
    assert len({each.label for each in now}) > 1


def test_a_stream_reads_no_further_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    monkeypatch.setattr(predict, "CHUNK", 4)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for text in itertools.cycle(TEXTS):
            read += 1
            yield text

    answers = adapter.stream(endless())
    assert read == 0
    first = [next(answers) for _ in range(5)]
    assert read == 8
    assert [each.label for each in first] == [each.label for each in adapter.predict(TEXTS[:5])]


def test_no_texts_and_what_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = made()
    assert adapter.predict([]) == [] and adapter.logits([]).shape == (0, 3) and [*adapter.stream([])] == []
    for ask in (adapter.predict, adapter.stream, adapter.logits, adapter.encode):
        with pytest.raises(UsageError, match="got one text"):
            ask("a text")  # type: ignore[operator]
    monkeypatch.setattr(predict, "CHUNK", 2)
    answers = adapter.stream(["a", "b", "c", None])  # type: ignore[list-item]
    assert next(answers) and next(answers)
    with pytest.raises(UsageError, match=r"texts\[3\] is a NoneType"):
        next(answers)
    with pytest.raises(UsageError, match=r"texts\[3\] is a NoneType"):
        adapter.predict(["a", "b", "c", None])  # type: ignore[list-item]
