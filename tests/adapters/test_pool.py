"""Many adapters on one base: each text gets the answer that its adapter gives alone, whoever else is in the batch."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lora_clf.adapters import parts
from lora_clf.adapters.adapter import Adapter, make_header
from lora_clf.adapters.head_stack import HeadKind
from lora_clf.adapters.mixed import Pass, Trunk
from lora_clf.adapters.pool import AdapterPool
from lora_clf.adapters.prediction import Prediction
from lora_clf.base.base import Base
from lora_clf.base.digest import backbone_digest
from lora_clf.errors import AdapterFormatError, UsageError, WrongBaseError
from lora_clf.inference.attention import FUSED, set_attention
from lora_clf.inference.precision import has_native_bf16
from lora_clf.tuners import create
from lora_clf.tuners.base import Tuned, Tuner, unfreeze
from tests.adapters.making import TEXTS, classification_folder, make
from tests.bases import ARCHITECTURE_NAMES, FAMILY_NAMES, WIDTH, batch, randomise, tiny_base

LABELS = ("a", "b", "c", "d")
# strategy, settings, pooling, labels: ranks, targets, depths, poolings and numbers of classes are mixed.
KINDS: tuple[tuple[str, dict[str, Any], str, int], ...] = (
    ("head-only", {}, "mean", 2),
    ("lora-scratch", {"rank": 2, "alpha": 5.0}, "mean", 3),
    ("last-block", {}, "first", 2),
    ("lora", {"rank": 3, "alpha": 7.0}, "last", 2),
    ("lora-scratch", {"rank": 2, "alpha": 3.0, "blocks": 1}, "mean", 2),
    ("lora-scratch", {"rank": 5, "alpha": 2.0, "targets": "attention"}, "mean", 4),
    ("full", {}, "mean", 3),
    ("lora-scratch", {"rank": 2, "alpha": 1.0}, "mean", 3),
    ("head-only", {}, "family", 3),
    ("lora-scratch", {"rank": 3, "alpha": 7.0, "targets": "attention+output"}, "family", 3),
    ("last-block", {"blocks": 2}, "family", 2),
)


def adapter(
    base: Base, strategy: str, settings: dict[str, Any], pooling: str, classes: int, seed: int = 0, **more: Any
) -> Adapter:
    tuned = create(strategy, **settings).prepare(base.view(classes, pooling, seed=seed))
    randomise(tuned, seed=seed + 11)
    return Adapter(base, tuned, make_header(base, tuned, labels=LABELS[:classes], **more))


def several(base: Base, family: bool) -> dict[str, Adapter]:
    kinds = [kind for kind in KINDS if family or kind[2] != "family"]
    return {f"{kind[0]}-{seed}": adapter(base, *kind, seed=seed) for seed, kind in enumerate(kinds)}


def filled(base: Base, adapters: dict[str, Adapter], **settings: Any) -> AdapterPool:
    pool = AdapterPool(base, **settings)
    for name, one in adapters.items():
        pool.add(name, one)
    return pool


def loras(base: Base, count: int, **settings: Any) -> dict[str, Adapter]:
    settings = {"rank": 2, "alpha": 5.0, **settings}
    return {f"lora-{seed}": adapter(base, "lora-scratch", settings, "mean", 2, seed=seed) for seed in range(count)}


def drift(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())


def near(found: list[Prediction], expected: list[Prediction]) -> bool:
    assert [p.label for p in found] == [p.label for p in expected]
    return drift([p.probability for p in found], [p.probability for p in expected]) <= 1e-5


def furthest(pool: AdapterPool, adapters: dict[str, Adapter], texts: list[str], names: list[str]) -> float:
    found = pool.logits(texts, names)
    return max(
        drift(row, adapters[name].logits([text])[0]) for row, text, name in zip(found, texts, names, strict=True)
    )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Rows, first and last block of every forward pass."""
    seen: list[tuple[int, int, int]] = []
    run = Trunk.run

    def noted(self: Trunk, now: Pass, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((now.rows, now.start, now.stop))
        return run(self, now, *args, **kwargs)

    monkeypatch.setattr(Trunk, "run", noted)
    return seen


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_a_mixed_batch_answers_as_each_adapter_does_alone(name: str) -> None:
    base = tiny_base(name)
    adapters = several(base, name in FAMILY_NAMES)
    assert len(adapters) == (11 if name in FAMILY_NAMES else 8)
    pool = filled(base, adapters)
    names = [list(adapters)[i % len(adapters)] for i in range(4 * len(TEXTS))]
    texts = [TEXTS[i % len(TEXTS)] + "abc"[i % 3] * (i % 4) for i in range(len(names))]
    assert furthest(pool, adapters, texts, names) <= 1e-5
    every = pool.predict_all(texts[:7])
    assert list(every) == list(adapters)
    for one, predictions in every.items():
        expected = adapters[one].predict(texts[:7])
        assert near(predictions, expected)
    answers = [answer for rows in every.values() for answer in rows]
    assert len({round(answer.probability, 6) for answer in answers}) > len(answers) / 2


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama", "modernbert"])
def test_a_mixed_batch_answers_as_peft_does(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = tiny_base(name)
    pool, model = AdapterPool(base), None
    plain = AutoModelForSequenceClassification.from_pretrained(classification_folder(base, 3, tmp_path / "base"))
    settings = [{"rank": 2, "alpha": 5.0}, {"rank": 5, "alpha": 3.0}, {"rank": 2, "alpha": 8.0, "targets": "attention"}]
    for seed, setting in enumerate(settings):
        one = adapter(base, "lora-scratch", setting, "family", 3, seed=seed)
        one.save(tmp_path / f"n{seed}")
        pool.add(f"n{seed}", tmp_path / f"n{seed}")
        if model is None:
            model = PeftModel.from_pretrained(plain, str(tmp_path / "n0"), adapter_name="n0")
        else:
            model.load_adapter(str(tmp_path / f"n{seed}"), f"n{seed}")
    assert model is not None
    texts, names = list(TEXTS) * 2, [f"n{i % 3}" for i in range(2 * len(TEXTS))]
    found = pool.logits(texts, names)
    model.eval()
    expected = []
    for text, one in zip(texts, names, strict=True):
        ids = torch.from_numpy(base.encode([text]).ids[0]).long()[None]
        # PEFT has mixed batches only where the head is one linear layer.
        mixed = {} if name == "modernbert" else {"adapter_names": [one]}
        if not mixed:
            model.set_adapter(one)
        with torch.inference_mode():
            expected.append(model(input_ids=ids, **mixed).logits[0].numpy())
    assert drift(found, expected) <= 1e-5
    assert np.abs(np.diff(np.asarray(expected), axis=0)).max() > 0.1


@pytest.mark.parametrize("bytes_a_slice", [0, 1 << 60], ids=["slices", "batched"])
def test_both_ways_through_a_layer_agree(bytes_a_slice: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of one adapter each, and batched products, with groups of equal and of unequal size."""
    monkeypatch.setattr(parts, "SLICE_BYTES", {"cpu": bytes_a_slice, "cuda": bytes_a_slice})
    made: list[str] = []
    for kind in (parts.OneAdapter, parts.ManyAdapters):
        start = kind.__init__

        def noted(self: Any, *args: Any, _start: Any = start) -> None:
            made.append(type(self).__name__)
            _start(self, *args)

        monkeypatch.setattr(kind, "__init__", noted)
    for architecture in ("bert", "gpt2", "opt"):
        base = tiny_base(architecture)
        adapters = loras(base, 4)
        pool = filled(base, adapters)
        texts = [f"text {i}" for i in range(8)]
        for names in (["lora-0", "lora-1"] * 4, ["lora-0", *["lora-1"] * 3, "lora-2", "lora-2", "lora-3", "lora-3"]):
            made.clear()
            assert furthest(pool, adapters, texts, names) <= 1e-5
            assert set(made) == ({"ManyAdapters"} if bytes_a_slice else {"OneAdapter"})


def test_the_cheaper_way_is_chosen_by_counting_bytes() -> None:
    base = tiny_base("bert")
    workshop = filled(base, loras(base, 1))._workshop
    layout = workshop.wiring.layout(dict.fromkeys(workshop.wiring.names, 2))
    row = torch.zeros(layout.numbers)
    assert layout.numbers == row.numel() == sum(2 * sum(shape) for shape in workshop.wiring.shapes.values())
    wide = torch.zeros(layout.numbers * 10_000).as_strided((layout.numbers * 10_000,), (1,))
    assert [type(p).__name__ for p in parts.parts_of(0, layout, [(row, 3)])] == ["OneAdapter"]
    assert [type(p).__name__ for p in parts.parts_of(0, layout, [(row, 1)] * 3)] == ["ManyAdapters"]
    small = layout.numbers * 4 / len(layout.sites)
    assert small * 3 < parts.SLICE_BYTES["cpu"] < wide.nbytes / len(layout.sites)


def test_query_key_and_value_are_one_site_in_the_order_of_the_blocks() -> None:
    base = tiny_base("bert")
    wiring = filled(base, {})._workshop.wiring
    layout = wiring.layout(dict.fromkeys(wiring.names, 3))
    assert len(wiring.names) == 18 and len(layout.sites) == 3 * 4 and len(layout.pieces) == 12 + 18
    assert wiring.groups[0] == tuple(f"encoder.layer.0.attention.self.{n}" for n in ("query", "key", "value"))
    assert layout.places[0].site_rank == 9  # type: ignore[union-attr]
    assert wiring.layout(dict.fromkeys(wiring.names, 3)) is layout
    assert wiring.layout(dict.fromkeys(wiring.names, 2)) is not layout


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
def test_rows_of_the_base_are_the_base_bit_for_bit(name: str) -> None:
    base = tiny_base(name)
    workshop = filled(base, {})._workshop
    one = workshop.from_tuned("x", *_header_and_tuned(next(iter(loras(base, 1).values()))))
    ids, mask = batch(rows=6)
    view = base.view(2, "mean")
    set_attention(view, FUSED)
    with torch.inference_mode():
        expected = view.hidden(ids, mask)
        assert one.layout is not None and one.row is not None
        for runs in ([(one.row, 3)], [(one.row, 1), (one.row, 2)]):
            added = parts.parts_of(3, one.layout, runs)
            found = workshop.trunk.run(Pass(6, 0, 3, parts=added), ids, mask)
            assert torch.equal(found[:3], expected[:3])
            assert (found[3:] - expected[3:]).abs().amax(dim=(1, 2)).min() > 1e-3


def _header_and_tuned(one: Adapter) -> tuple[Any, Tuned]:
    return one.header, one.tuned


def test_permuted_rows_get_permuted_answers() -> None:
    base = tiny_base("bert")
    adapters = several(base, True)
    pool = filled(base, adapters, batch_tokens=64)
    texts = [f"{'ab' * (i % 9)} {i % 5}" for i in range(60)]
    names = [list(adapters)[(i * 7) % len(adapters)] for i in range(60)]
    found = pool.logits(texts, names)
    order = np.random.default_rng(0).permutation(60)
    permuted = pool.logits([texts[i] for i in order], [names[i] for i in order])
    assert all(np.array_equal(permuted[place], found[i]) for place, i in enumerate(order))
    assert len({row.tobytes() for row in found}) > 30


def test_unknown_names_fail_before_anything_runs(passes: list[Any]) -> None:
    base = tiny_base("bert")
    pool = filled(base, loras(base, 12))
    with pytest.raises(UsageError, match=r"'lora-l' \(did you mean 'lora-\d+'.*'spam'\. There are: .* and 2 more"):
        pool.predict(["x", "y", "z"], ["lora-1", "lora-l", "spam"])
    for wrong, message in (
        (["lora-1"], "2 texts and 1 names"),
        (["lora-1", None], r"adapter\[1\] is None.*no head"),
        ("nobody", "no adapter 'nobody'"),
    ):
        with pytest.raises(UsageError, match=message):
            pool.predict(["x", "y"], wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nobody"):
        pool.predict([], "nobody")
    with pytest.raises(UsageError, match="nobody"):
        pool.predict_all(["x"], ["nobody"])
    with pytest.raises(UsageError, match="one name"):
        pool.predict_all(["x"], "lora-1")
    with pytest.raises(UsageError, match="got one text"):
        pool.predict("x", "lora-1")
    with pytest.raises(UsageError, match=r"texts\[1\] is a int"):
        pool.predict_all(["x", 1])  # type: ignore[list-item]
    for act in (pool.remove, pool.header, lambda name: pool.use(name).__enter__()):
        with pytest.raises(UsageError, match="'lora-l'"):
            act("lora-l")
    assert not passes and pool.predict([], "lora-1") == [] and pool.predict_all([]) == {name: [] for name in pool.names}


def test_names_are_taken_once_and_given_back() -> None:
    base = tiny_base("bert")
    pool = filled(base, loras(base, 2))
    with pytest.raises(UsageError, match="Remove it first"):
        pool.add("lora-0", make(base=base))
    with pytest.raises(UsageError, match="expected a text"):
        pool.add("", make(base=base))
    assert pool.names == ("lora-0", "lora-1") and len(pool) == 2 and "lora-0" in pool
    held = pool.resident_bytes
    pool.remove("lora-0")
    assert pool.names == ("lora-1",) and pool.resident_bytes == held / 2 and "lora-0" not in pool
    other = make(base=base, strategy="head-only")
    pool.add("lora-0", other)
    assert furthest(pool, {"lora-0": other}, ["x"], ["lora-0"]) <= 1e-5
    with pytest.raises(WrongBaseError):
        pool.add("other", make(base=tiny_base("bert", seed=1)))


def test_each_keeps_length_truncation_threshold_and_temperature() -> None:
    base = tiny_base("bert")
    common: dict[str, Any] = {"positive_label": "b"}
    adapters = {
        f"n{seed}": adapter(base, "lora-scratch", {"rank": 2}, "mean", 2, seed=seed, **common, **more)
        for seed, more in enumerate((
            {"max_length": 6}, {"max_length": 9, "truncation": "left"}, {"threshold": 0.9},
            {"threshold": 0.05, "temperature": 3.0}, {"max_length": 6, "temperature": 0.5},
        ))
    }  # fmt: skip
    pool = filled(base, adapters)
    texts = ["a long enough text, whose end differs", "short", "1234567", "WIN"] * 5
    names = [f"n{i % 5}" for i in range(20)]
    assert furthest(pool, adapters, texts, names) <= 1e-5
    found = pool.predict(texts, names)
    expected = [adapters[name].predict([text])[0] for text, name in zip(texts, names, strict=True)]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.label, ours.truncated) == (theirs.label, theirs.truncated)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
    assert {p.truncated for p in found} == {True, False} and {p.label for p in found} == {"a", "b"}
    chosen_below_a_half = [p for p in found if p.probability < 0.5]
    assert chosen_below_a_half  # The thresholds were used.
    for name, predictions in pool.predict_all(texts).items():
        assert [p.truncated for p in predictions] == [p.truncated for p in adapters[name].predict(texts)]


def test_what_adapters_share_runs_once(passes: list[tuple[int, int, int]]) -> None:
    base = tiny_base("bert")
    adapters = loras(base, 8, blocks=1)
    adapters |= {"head": adapter(base, "head-only", {}, "mean", 2, seed=20)}
    adapters |= {"last": adapter(base, "last-block", {"blocks": 2}, "mean", 2, seed=21)}
    pool = filled(base, adapters)
    texts = [f"text {i}" for i in range(6)]
    found = pool.predict_all(texts)
    #                  the prefix, last-block's own blocks, the prefix, the LoRA rows of block 2, the whole base
    assert passes == [(6, 0, 1), (6, 1, 3), (6, 1, 2), (48, 2, 3), (6, 2, 3)]
    for name, predictions in found.items():
        assert near(predictions, adapters[name].predict(texts))
    # Different texts for each share nothing: one batch from the first block on.
    passes.clear()
    pool.predict(texts, [f"lora-{i}" for i in range(6)])
    assert passes == [(6, 0, 3)]
    # The same text for two of them is shared, whichever way it is asked.
    passes.clear()
    pool.predict([texts[0], texts[0]], ["lora-0", "lora-1"])
    assert passes == [(1, 0, 2), (2, 2, 3)]


@pytest.mark.parametrize("name", ["bert", "gpt2", "gpt_neox", "opt", "t5"])
def test_the_inputs_of_the_first_adapted_attention_are_shared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, key and value of the base are computed for each text once, not for each adapter."""
    base = tiny_base(name)
    adapters = loras(base, 3, blocks=None if name == "t5" else 2)
    pool = filled(base, adapters, batch_tokens=40)  # several batches of the same texts
    rows: dict[int, int] = {}
    for number, layer in enumerate(pool._workshop.wiring.names):
        module: Any = pool._workshop.trunk._view.backbone.get_submodule(_staged(layer, base))
        plain = module.product

        def counted(x: torch.Tensor, _plain: Any = plain, _number: int = number) -> torch.Tensor:
            rows[_number] = rows.get(_number, 0) + x.shape[0]
            return _plain(x)  # type: ignore[no-any-return]

        module.product = counted
    texts = ["one text", "another", "a third one"]
    found = pool.predict_all(texts)
    for one, predictions in found.items():
        assert near(predictions, adapters[one].predict(texts))
    shared = pool._workshop.wiring.attention[0 if name == "t5" else 1]
    assert 1 <= len(shared) <= 3
    assert all(rows[number] == 3 for number in shared)
    others = [rows[n] for n, layer in enumerate(pool._workshop.wiring.names)
              if n not in shared and pool._workshop.wiring.blocks[layer] >= 1]  # fmt: skip
    assert others and min(others) >= 9


def _staged(layer: str, base: Base) -> str:
    """The name of a layer in a tree whose blocks can be entered and left."""
    if not base.architecture.resumable:
        return layer
    depth = len(base.architecture.blocks.split(".")) + 1
    names = layer.split(".")
    return ".".join([*names[:depth], "block", *names[depth:]])


@pytest.mark.parametrize(("name", "pooling", "layer"), [
    ("gpt2", "family", "h.2.mlp.c_fc"), ("gpt2", "last", "h.2.mlp.c_fc"), ("llama", "family", "layers.2.mlp.up_proj"),
    ("bert", "family", "encoder.layer.2.intermediate.dense"), ("bert", "first", "encoder.layer.2.intermediate.dense"),
])  # fmt: skip
def test_where_one_position_is_read_the_last_block_computes_one(name: str, pooling: str, layer: str) -> None:
    base = tiny_base(name)
    kinds = (("head-only", {}), ("lora-scratch", {"rank": 2, "alpha": 5.0}), ("lora-scratch", {"rank": 3, "blocks": 1}))
    adapters = {f"n{i}": adapter(base, *kind, pooling, 2, seed=i) for i, kind in enumerate(kinds)}
    pool = filled(base, adapters)
    module: Any = pool._workshop.trunk._view.backbone.get_submodule(_staged(layer, base))
    plain, tokens = module.product, []
    module.product = lambda x: tokens.append(x.shape[1]) or plain(x)
    texts = ["one text", "another text", "a", "the fourth"] * 3
    names = [f"n{i % 3}" for i in range(12)]
    assert furthest(pool, adapters, texts, names) <= 1e-5
    assert set(tokens) == {1}
    for one, predictions in pool.predict_all(texts[:4]).items():
        assert near(predictions, adapters[one].predict(texts[:4]))
    adapters["mean"] = adapter(base, "lora-scratch", {"rank": 2}, "mean", 2, seed=9)
    pool.add("mean", adapters["mean"])
    tokens.clear()
    assert furthest(pool, adapters, texts, [*names[:-1], "mean"]) <= 1e-5
    assert max(tokens) > 1


def test_choosing_changes_nothing_in_the_base() -> None:
    base = tiny_base("gpt2")
    adapters = several(base, True)
    pool = filled(base, adapters)
    before = pool.logits(["x"] * len(adapters), list(adapters))
    names = list(adapters)
    for i in range(10_000):
        with pool.use(names[i % len(names)], names[(i * 3) % len(names)]):
            pass
        if i % 200 == 0:
            pool.predict(["x", "yy"], [names[i // 200 % len(names)], names[(i // 200 + 3) % len(names)]])
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest
    after = pool.logits(["x"] * len(adapters), list(adapters))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_least_recently_used_are_put_out_and_read_again(tmp_path: Path) -> None:
    base = tiny_base("bert")
    adapters = {name: one for name, one in several(base, True).items() if not name.startswith("full")}
    for name, one in adapters.items():
        one.save(tmp_path / name)
    loose = AdapterPool(base)
    for name in adapters:
        loose.add(name, tmp_path / name)
    largest = max(loose._residency.entry(name).nbytes for name in adapters)
    budget = largest + 4000
    pool = AdapterPool(base, budget=budget)
    for name in adapters:
        pool.add(name, tmp_path / name)
        assert pool.resident_bytes <= budget
    in_memory = [name for name in adapters if pool._residency.entry(name).resident is not None]
    assert 0 < len(in_memory) < len(adapters) and in_memory[-1] == list(adapters)[-1]
    # More than fit at once are served in turns.
    texts, names = [f"text {i}" for i in range(20)], [list(adapters)[i % len(adapters)] for i in range(20)]
    assert furthest(pool, adapters, texts, names) <= 1e-5
    assert pool.resident_bytes <= budget
    every = pool.predict_all(texts[:3])
    for name, predictions in every.items():
        assert near(predictions, adapters[name].predict(texts[:3]))
    # What is used last stays, and what is put out is left with nothing but NaN.
    first = pool._residency.entry("lora-scratch-1")
    with pool.use("lora-scratch-1"):
        resident = first.resident
        assert resident is not None and bool(torch.isfinite(resident.row).all())  # type: ignore[arg-type]
        pool.predict(["x"] * 3, ["last-block-2", "lora-3", "head-only-0"])
        assert first.resident is resident
    for name in adapters:
        if name != "lora-scratch-1":
            pool.predict(["x"], name)
    assert first.resident is None and len(resident.owned) >= 2
    assert all(bool(torch.isnan(tensor).all()) for tensor in resident.owned)
    # A folder that holds another adapter by now is not taken for the old one.
    adapters["lora-3"].save(tmp_path / "lora-scratch-1", force=True)
    with pytest.raises(AdapterFormatError, match="another one than was added"):
        pool.predict(["x"], "lora-scratch-1")
    assert furthest(pool, adapters, ["x"], ["lora-3"]) <= 1e-5


def test_the_budget_is_held_or_refused(tmp_path: Path) -> None:
    base = tiny_base("bert")
    adapters = loras(base, 2)
    nbytes = filled(base, adapters).resident_bytes // 2
    adapters["lora-0"].save(tmp_path / "a")
    with pytest.raises(UsageError, match="budget=0"):
        AdapterPool(base, budget=0)
    with pytest.raises(UsageError, match="does not fit"):
        AdapterPool(base, budget=nbytes - 1).add("x", tmp_path / "a")
    pool = AdapterPool(base, budget=2 * nbytes - 1)
    pool.add("memory", adapters["lora-1"])
    with pytest.raises(UsageError, match="for good"):
        pool.add("x", tmp_path / "a")
    assert pool.names == ("memory",)
    pool.remove("memory")
    pool.add("x", tmp_path / "a")
    with pytest.raises(UsageError, match="for good"):
        pool.add("memory", adapters["lora-1"])
    assert pool.names == ("x",) and pool.resident_bytes == nbytes


def test_what_is_kept_in_use_is_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a budget of one and a half adapters, from folders that were named relative to another place."""
    base = tiny_base("bert")
    adapters = loras(base, 2)
    for name, one in adapters.items():
        one.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    pool = AdapterPool(base, budget=filled(base, adapters).resident_bytes * 3 // 4)
    for name in adapters:
        pool.add(name, name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found: list[Any] = []

    def ask() -> None:
        with pool.use("lora-0"):
            found.extend(pool.logits(["x"], "lora-1"))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 2
    assert all(np.abs(each - adapters["lora-1"].logits(["x"])[0]).max() < 1e-5 for each in found)


def test_all_of_them_are_those_of_one_moment() -> None:
    base = tiny_base("bert")
    adapters = loras(base, 2)
    pool = filled(base, adapters)
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            pool.remove("lora-1")
            pool.add("lora-1", adapters["lora-1"])

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        found = [pool.predict_all(["x"]) for _ in range(60)]
    finally:
        stop.set()
        thread.join()
    found.append(pool.predict_all(["x"]))  # when both are there
    assert len(found) == 61 and all("lora-0" in each for each in found) and "lora-1" in found[-1]
    expected = adapters["lora-1"].predict(["x"])
    assert all(near(each["lora-1"], expected) for each in found if "lora-1" in each)


def test_a_resident_takes_its_raw_bytes_and_no_more(tmp_path: Path) -> None:
    base = tiny_base("bert")
    for rank in (1, 2, 5):
        one = adapter(base, "lora-scratch", {"rank": rank}, "mean", 3, seed=rank)
        one.save(tmp_path / f"r{rank}")
        pool = AdapterPool(base)
        pool.add("x", tmp_path / f"r{rank}")
        assert pool.resident_bytes == 4 * one.header.parameters
        assert pool.header("x").labels == ("a", "b", "c") and not pool.header("x").tensors


def test_canaries_are_held_to_once_for_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base("gpt2")
    seen = []
    gives = AdapterPool._gives
    monkeypatch.setattr(AdapterPool, "_gives", lambda self, *args: seen.append(gives(self, *args)) or seen[-1])
    for name, one in several(base, True).items():
        one.save(tmp_path / name)
        pool = AdapterPool(base)
        pool.add("a", tmp_path / name)
        pool.add("b", tmp_path / name)
        assert seen == [True], name
        seen.clear()
    pool = AdapterPool(base, verify=False)
    pool.add("c", tmp_path / "lora-3")
    assert not seen
    pool.add("d", tmp_path / "lora-3", verify=True)
    assert seen == [True]


def test_an_adapter_that_drifts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base("bert")
    one = adapter(base, "lora-scratch", {"rank": 3, "alpha": 7.0}, "mean", 2)
    one.save(tmp_path / "a")
    stored = one.header.canaries
    assert stored is not None
    swapped = {name: row[::-1] for name, row in stored["logits"].items()}
    monkeypatch.setattr("lora_clf.adapters.adapter.canaries", lambda *args: {**stored, "logits": swapped})
    replaced = Adapter(base, one.tuned, replace(one.header, canaries=None))
    replaced.save(tmp_path / "b")
    pool = AdapterPool(base)
    pool.add("a", tmp_path / "a")
    with pytest.raises(AdapterFormatError, match="permuted labels"):
        pool.add("b", tmp_path / "b")
    pool.add("b", tmp_path / "b", verify=False)
    assert pool.names == ("a", "b")
    # What only the pool computes wrongly is found as well.
    monkeypatch.setattr("lora_clf.adapters.pages.Layout.row", _doubled(one))
    with pytest.raises(AdapterFormatError, match="computes this lora-scratch adapter otherwise"):
        AdapterPool(base).add("a", tmp_path / "a")


def _doubled(one: Adapter) -> Any:
    from lora_clf.adapters.pages import Layout

    row = Layout.row
    return lambda self, state, scaling, *rest: row(self, state, 2 * scaling, *rest)


def test_a_damaged_folder_or_another_base_is_refused(tmp_path: Path) -> None:
    base = tiny_base("bert")
    one = adapter(base, "lora-scratch", {"rank": 3}, "mean", 2)
    one.save(tmp_path / "a")
    with pytest.raises(WrongBaseError):
        AdapterPool(tiny_base("bert", seed=1)).add("x", tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(AdapterFormatError, match="digest"):
        AdapterPool(base).add("x", tmp_path / "a")


@dataclass(frozen=True)
class Biases(Tuner):
    """A strategy that the pool knows nothing of: the biases of the last blocks train."""

    blocks: int = 2
    name: ClassVar[str] = "biases"
    summary: ClassVar[str] = "biases"
    learning_rate: ClassVar[float] = 1e-3

    def prepare(self, view: Any) -> Tuned:
        last = list(view.blocks)[-self.blocks :]
        return unfreeze(self, view, [p for block in last for n, p in block.named_parameters() if n.endswith("bias")])


def test_any_further_strategy_runs_on_weights_of_its_own() -> None:
    base = tiny_base("bert")
    tuned = Biases().prepare(base.view(2, "mean", seed=3))
    randomise(tuned)
    adapters = {"biases": Adapter(base, tuned, make_header(base, tuned, labels=("a", "b"))), **loras(base, 2)}
    pool = filled(base, adapters)
    resident = pool._residency.entry("biases").resident
    assert resident is not None and resident.cut == 1
    assert resident.nbytes == 4 * tuned.trainable_parameters
    assert furthest(pool, adapters, ["x", "yy", "zzz", "w"], ["biases", "lora-0", "biases", "lora-1"]) <= 1e-5
    # Training on does not reach the pool's copy.
    expected = pool.logits(["x"], "biases")[0]
    randomise(tuned, seed=1)
    assert np.array_equal(pool.logits(["x"], "biases")[0], expected)


def test_half_precision_stays_near_and_takes_half_the_memory() -> None:
    base = tiny_base("bert")
    if not has_native_bf16(base.device):
        pytest.skip("this device has no native bf16")
    adapters = several(base, True)
    pool, exact = filled(base, adapters, precision="bf16"), filled(base, adapters)
    texts, names = list(TEXTS) * 4, [list(adapters)[i % len(adapters)] for i in range(4 * len(TEXTS))]
    for found, expected in zip(pool.logits(texts, names), exact.logits(texts, names), strict=True):
        assert drift(found, expected) < 0.1
    assert furthest(exact, adapters, texts, names) <= 1e-5
    for name in adapters:
        mine, theirs = (p._residency.entry(name).nbytes for p in (pool, exact))
        assert mine == theirs if name.startswith("head") else mine < 0.75 * theirs
    own = pool._residency.entry("last-block-2").resident
    trunk = pool._workshop.trunk
    assert own is not None and own.own is not None
    assert all(layer.weight.dtype == torch.bfloat16 for layer in _linears(own.own))
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest
    assert trunk.precision == "bf16" and pool.precision == "bf16"


def _linears(view: Any) -> Iterator[torch.nn.Linear]:
    found = [module for module in view.blocks.modules() if isinstance(module, torch.nn.Linear)]
    assert len(found) == 6
    yield from found


def test_threads_never_get_another_adapter(tmp_path: Path) -> None:
    """Adapters come, go and are put out while others ask; freed memory is NaN, so a mixture would show."""
    base = tiny_base("bert")
    adapters = loras(base, 6)
    adapters |= {"head": adapter(base, "head-only", {}, "mean", 2, seed=30)}
    for name, one in adapters.items():
        one.save(tmp_path / name)
    budget = 3 * filled(base, {"lora-0": adapters["lora-0"]}).resident_bytes + 2000
    pool = AdapterPool(base, budget=budget, verify=False)
    steady = ["lora-0", "lora-1", "lora-2", "head"]
    for name in steady:
        pool.add(name, tmp_path / name)
    texts = [f"text {i}" for i in range(8)]
    expected = {name: one.logits(texts) for name, one in adapters.items()}
    coming = ("lora-3", "lora-4", "lora-5")
    wrong: list[str] = []
    done = threading.Event()
    asked = [0]

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not done.is_set():
            names = [steady[i] for i in random.integers(0, len(steady), len(texts))]
            guest = bool(random.integers(0, 2))
            if guest:
                names[3] = "guest"
            try:
                found = pool.logits(texts, names)
            except UsageError as error:
                if not (guest and "no adapter 'guest'" in str(error)):
                    wrong.append(repr(error))
                continue
            except Exception as error:
                wrong.append(repr(error))
                return
            asked[0] += 1
            for row, name in enumerate(names):
                possible = coming if name == "guest" else (name,)
                if min(drift(found[row], expected[one][row]) for one in possible) > 1e-5:
                    wrong.append(f"{name}: {found[row]}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        pool.add("guest", tmp_path / coming[turn % 3])
        pool.predict(["x"], "guest")
        pool.remove("guest")
    done.set()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong and asked[0] > 20 and not any(thread.is_alive() for thread in threads)
    assert pool.resident_bytes <= budget and all(not pool._residency.entry(name).leases for name in steady)


@pytest.mark.parametrize(("strategy", "buffer"), [("vera", "vera_A"), ("boft", "boft_P"), ("oft", "oft_R")])
def test_what_a_strategy_keeps_beside_its_parameters_counts(strategy: str, buffer: str) -> None:
    base = tiny_base("bert")
    one = adapter(base, strategy, {}, "mean", 2)
    buffers = {b.data_ptr(): b.nbytes for name, b in one.tuned.view.named_buffers() if buffer[:4] in name}
    pool = filled(base, {"one": one})
    assert buffers and pool.resident_bytes == 4 * one.tuned.trainable_parameters + sum(buffers.values())


@pytest.mark.parametrize("name", ["roberta", "distilbert", "modernbert"])
def test_heads_of_two_layers_that_run_in_two_threads_at_once_keep_their_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base(name)
    kind = HeadKind(base, "family", 2)
    heads = [adapter(base, "head-only", {}, "family", 2, seed=seed).tuned.view.head for seed in range(2)]
    states = [dict(head.state_dict()) for head in heads]
    vectors = torch.randn(4, WIDTH)
    expected = [head(vectors).detach() for head in heads]
    inside, forward = threading.Barrier(2), type(heads[0]).forward

    def meeting(self: Any, pooled: torch.Tensor) -> torch.Tensor:
        inside.wait(10)  # both threads have put their weights in
        logits = forward(self, pooled)
        inside.wait(10)  # and neither has taken them out
        return logits

    monkeypatch.setattr(type(heads[0]), "forward", meeting)
    with torch.no_grad(), ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda state: kind.logits(vectors, [(state, 4)]), states))
    assert drift(expected[0], expected[1]) > 0.01
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(found, expected, strict=True))


def test_an_adapter_from_memory_that_is_removed_while_it_answers_answers_still() -> None:
    base = tiny_base("bert")
    adapters = loras(base, 1)
    pool = filled(base, adapters)
    expected = pool.logits(["x"], "lora-0")[0]
    with pool._residency.asked(["lora-0"]) as entries:
        pool.remove("lora-0")
        assert len(pool) == 0 and pool.resident_bytes > 0
        with pool._residency.lease(list(entries.values())) as (resident,):
            found = pool._mixture.logits(base.encode(["x"]).ids, {resident: np.array([0])})[resident][0]
        assert np.array_equal(found, expected)
    assert pool.resident_bytes == 0 and bool(torch.isnan(resident.owned[0]).all())


def test_the_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_clf

    page = (Path(__file__).resolve().parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AdapterPool" in block]
    base = tiny_base("bert")
    for seed, (name, strategy, settings, classes) in enumerate(
        (("spam", "lora-scratch", {"rank": 3}, 2), ("topic", "head-only", {}, 4))
    ):
        adapter(base, strategy, settings, "mean", classes, seed=seed).save(tmp_path / "my-adapters" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lora_clf, "load_base", lambda name: {"minilm": base}[name])
    lines = code.rstrip().splitlines()
    variables: dict[str, Any] = {}
    exec("\n".join([*lines[:-2], f"two = {lines[-2]}", f"all_of_them = {lines[-1]}"]), variables)
    assert [len(prediction.probabilities) for prediction in variables["two"]] == [2, 4]
    assert {name: len(found) for name, found in variables["all_of_them"].items()} == {"spam": 1, "topic": 1}
