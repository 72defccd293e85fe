"""Averages of adapters: of LoRA the changes, exactly; of the others the weights; and what must not be averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.average import average
from lora_clf.adapters.factors import low_rank
from lora_clf.errors import UsageError
from tests.adapters.making import STRATEGIES, make, shared_base
from tests.bases import tiny_base


def moved(adapter: Adapter, seed: int, by: float = 0.3) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.tuned.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * by)
    return adapter


def weights_of(adapter: Adapter) -> dict[str, Any]:
    """The plain weights that it stands for, head included."""
    merged = adapter.tuned.merge()
    return {name: parameter.detach().double() for name, parameter in merged.named_parameters()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("name", "pooling"), [("bert", "mean"), ("gpt2", "family"), ("distilbert", "family")])
def test_the_weights_are_the_average(name: str, pooling: str, strategy: str, tmp_path: Path) -> None:
    one, other = make(name, strategy, pooling), moved(make(name, strategy, pooling), 1)
    found = average([one, other], [3, 1])
    assert found.weights == (0.75, 0.25) and found.kept == 1.0
    first, second, both = weights_of(one), weights_of(other), weights_of(found.adapter)
    assert both.keys() == first.keys()
    changed = 0
    for key, tensor in both.items():
        torch.testing.assert_close(tensor, 0.75 * first[key] + 0.25 * second[key], rtol=0, atol=2e-6)
        changed += not torch.equal(first[key], second[key])
    assert changed >= 1
    found.adapter.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", one.base, verify=True)
    assert loaded.header.strategy == strategy
    assert loaded.header.settings.get("rank") == (6 if strategy.startswith("lora") else None)
    assert loaded.header.metrics == {} and "metrics" in found.left_out
    assert loaded.header.training["weights"] == [0.75, 0.25]
    assert loaded.header.data_digest == one.header.data_digest and loaded.header.licence == "CC BY 4.0"


def test_the_average_of_one_adapter_with_itself_is_itself() -> None:
    adapter = make("bert", "lora", "mean")
    again = average([adapter, adapter, adapter], rank=3)
    assert again.adapter.header.settings["rank"] == 3 and again.kept == pytest.approx(1.0)
    for layer, part in low_rank(adapter.tuned).items():
        torch.testing.assert_close(low_rank(again.adapter.tuned)[layer].change(), part.change(), rtol=1e-4, atol=1e-6)


def test_a_smaller_rank_says_what_it_keeps() -> None:
    one, other = make("bert", "lora", "mean"), moved(make("bert", "lora", "mean"), 1)
    exact, cut = average([one, other]), average([one, other], rank=2)
    assert cut.adapter.header.settings["rank"] == 2 and 0.3 < cut.kept < 0.99
    whole = {layer: part.change() for layer, part in low_rank(exact.adapter.tuned).items()}
    rest = sum(float(((low_rank(cut.adapter.tuned)[n].change() - c) ** 2).sum()) for n, c in whole.items())
    total = sum(float((change**2).sum()) for change in whole.values())
    assert rest / total == pytest.approx(1 - cut.kept, rel=1e-3)


def test_different_ranks_scalings_and_layers() -> None:
    from lora_clf.tuners import create

    base = shared_base("bert")

    def adapter(seed: int, **settings: Any) -> Adapter:
        template = make("bert", "lora", "mean")
        tuned = create("lora", **settings).prepare(base.view(2, "mean", seed=3))
        header = replace(template.header, settings=settings, scaling=settings["alpha"] / settings["rank"])
        return moved(Adapter(base, tuned, header), seed)

    wide = adapter(1, rank=5, alpha=2.0, targets="attention", blocks=1)
    thin = adapter(2, rank=2, alpha=9.0, targets="all", blocks=2)
    found = average([wide, thin])
    first, second, both = weights_of(wide), weights_of(thin), weights_of(found.adapter)
    for key, tensor in both.items():
        torch.testing.assert_close(tensor, (first[key] + second[key]) / 2, rtol=0, atol=2e-6)
    settings = found.adapter.header.settings
    assert (settings["rank"], settings["targets"], settings["blocks"]) == (7, "all", 2)


def test_logits_of_averaged_heads_are_averaged_logits() -> None:
    one, other = make("bert", "head-only"), moved(make("bert", "head-only"), 1)
    texts = ["Are you there?", "ok"]
    both = average([one, other], [1, 4]).adapter.logits(texts)
    np.testing.assert_allclose(both, 0.2 * one.logits(texts) + 0.8 * other.logits(texts), atol=1e-5)


def test_the_engines_count_as_one() -> None:
    found = average([make("bert", "lora"), moved(make("bert", "lora-scratch"), 1)])
    assert found.adapter.header.strategy == "lora"


def test_what_does_not_hold_is_left_out() -> None:
    one = make("bert", "lora", threshold=0.7, temperature=2.0)
    other = make("bert", "lora", licence="MIT", data_digest="1" * 64, data_name="other", positive_label="ham")
    found = average([one, other])
    assert found.left_out == ("metrics", "threshold", "temperature")
    header = found.adapter.header
    assert header.threshold is header.temperature is header.positive_label is header.data_digest is None
    assert header.licence == "CC BY 4.0, MIT"


def test_unlike_adapters_are_refused() -> None:
    one = make("bert", "lora")
    for other, message in (
        (make("bert", "lora", labels=("spam", "ham")), "labels of the first is ham spam, of number 2 spam ham"),
        (make("bert", "lora", "first"), "head of the first is free mean, of number 2 free first"),
        (make("bert", "lora", max_length=8), "length of the first is 64 right, of number 2 8 right"),
        (make("bert", "full"), "strategy of the first is lora, of number 2 full.*adapters extract"),
        (make("bert", "lora", base=tiny_base("bert", seed=4)), "base of the first is .* different bases"),
    ):
        with pytest.raises(UsageError, match=f"cannot be averaged: the {message}"):
            average([one, other])
    with pytest.raises(UsageError, match=r"labels of the first .* number 3.*length of the first .* number 2"):
        average([one, make("bert", "lora", max_length=8), make("bert", "lora", labels=("x", "y"))])


def test_parts_on_another_base_are_refused(tmp_path: Path) -> None:
    """The result would carry the digest of a base that none of its parts was trained on."""
    make("bert", "lora").save(tmp_path / "a")
    part = load_adapter(tmp_path / "a", tiny_base("bert", seed=4), base_check="off")
    with pytest.raises(UsageError, match=r"number 1: .*trained on the base tiny-bert .* Load .* on its own base"):
        average([part, part])
    other = load_adapter(tmp_path / "a", shared_base("bert"))
    other.header = replace(other.header, tokenizer_digest="1" * 64)
    with pytest.raises(UsageError, match=r"number 1: .*another tokenizer"):
        average([other, other])


def test_weights_and_rank_must_be_such() -> None:
    pair = [make("bert", "lora"), make("bert", "lora")]
    for weights, message in (
        ([1], "1 weights for 2"),
        ([1, 0], "above 0"),
        ([1, -2], "above 0"),
        ([1, float("nan")], "ab"),
    ):
        with pytest.raises(UsageError, match=message):
            average(pair, weights)
    with pytest.raises(UsageError, match="two adapters or more, got 1"):
        average(pair[:1])
    with pytest.raises(UsageError, match="--rank 0"):
        average(pair, rank=0)
    with pytest.raises(UsageError, match="only LoRA adapters have a rank"):
        average([make("bert", "full"), make("bert", "full")], rank=2)
