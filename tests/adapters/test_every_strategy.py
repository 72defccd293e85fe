"""Every strategy that is found, through everything that is done with an adapter: covered, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.average import average
from lora_clf.adapters.coverage import adapter_coverage
from lora_clf.adapters.extraction import extract
from lora_clf.adapters.pool import AdapterPool
from lora_clf.errors import NotMergeableError, UsageError
from lora_clf.inference.predict import MANY
from lora_clf.tuners import create, strategies
from tests.adapters.making import make, shared_base
from tests.bases import randomise

FURTHER = tuple(strategies())[5:]
BASES = ("bert", "gpt2")
TEXTS = ["Win a prize now", "ok", "see you at the station tonight?", ""]


def possible(strategy: str, name: str) -> None:
    if create(strategy).refusal(shared_base(name).view(2)) is not None:
        pytest.skip("refused, as tests/tuners/test_contract.py checks")


def test_there_are_further_strategies() -> None:
    assert len(FURTHER) == len(strategies()) - 5 >= 5


@pytest.mark.parametrize("strategy", FURTHER)
@pytest.mark.parametrize("name", BASES)
def test_what_is_saved_computes_the_same_alone_and_in_a_pool(strategy: str, name: str, tmp_path: Path) -> None:
    possible(strategy, name)
    base = shared_base(name)
    pooling = "family" if name == "gpt2" else "mean"
    adapter = make(name, strategy, pooling)
    adapter.save(tmp_path / "one")
    loaded = load_adapter(tmp_path / "one", base, verify=True)
    assert loaded.header.strategy == strategy
    expected = adapter.logits(TEXTS)
    assert np.array_equal(loaded.logits(TEXTS), expected)
    bytes_of = (tmp_path / "one" / "adapter_model.safetensors").read_bytes()
    loaded.save(tmp_path / "two")
    assert (tmp_path / "two" / "adapter_model.safetensors").read_bytes() == bytes_of
    many = adapter.logits(TEXTS * MANY)[: len(TEXTS)]
    assert np.abs(many - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert adapter_coverage(adapter).passed
    pool = AdapterPool(base)
    pool.add("one", tmp_path / "one")
    pool.add("head", make(name, "head-only", pooling))
    found = pool.logits([*TEXTS, "other"], ["one"] * len(TEXTS) + ["head"])
    for row, text_logits in zip(found, expected, strict=False):
        assert np.abs(np.asarray(row) - text_logits).max() <= 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("strategy", FURTHER)
def test_bf16_files_are_read_again(strategy: str, tmp_path: Path) -> None:
    make("bert", strategy).save(tmp_path / "half", dtype="bf16")
    loaded = load_adapter(tmp_path / "half", shared_base("bert"), verify=True)
    assert all(entry.dtype == "BF16" for entry in loaded.header.tensors)


@pytest.mark.parametrize("strategy", FURTHER)
def test_averages_are_means_of_what_trains(strategy: str) -> None:
    one, two = make("bert", strategy), make("bert", strategy)
    randomise(two.tuned, seed=99)
    if one.header.low_rank:
        assert average([one, two]).kept == 1.0
        return
    mean = average([one, two], [3.0, 1.0]).adapter.tuned.state_dict()
    first, second = one.tuned.state_dict(), two.tuned.state_dict()
    assert mean.keys() == first.keys()
    assert all(torch.allclose(mean[key], 0.75 * first[key] + 0.25 * second[key], atol=1e-6) for key in mean)


@pytest.mark.parametrize("strategy", FURTHER)
def test_extraction_takes_what_linear_layers_hold_or_says_why_not(strategy: str) -> None:
    adapter = make("bert", strategy)
    if not strategies()[strategy].mergeable:
        with pytest.raises(NotMergeableError, match=strategy):
            extract(adapter, 4)
    elif strategy in ("bitfit", "layer-norm"):
        with pytest.raises(UsageError, match="No linear layer"):
            extract(adapter, 4)
    else:
        found = extract(adapter, 32)
        assert found.kept > 0.5 and found.adapter.header.low_rank
