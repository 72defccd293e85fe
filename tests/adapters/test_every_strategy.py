"""Every strategy that is found, through everything that is done with an adapter: covered, or refused with a reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.average import average
from lora_clf.adapters.contrast import layers_apart
from lora_clf.adapters.coverage import adapter_coverage
from lora_clf.adapters.extraction import extract
from lora_clf.adapters.pool import AdapterPool
from lora_clf.errors import NotMergeableError, UsageError
from lora_clf.inference.predict import MANY
from lora_clf.tuners import create, strategies
from tests.adapters.making import classification_folder, make, shared_base
from tests.adapters.peft_making import agree, peft_logits
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
    pool.add("head", make(name, "head-only", pooling, ("ham", "spam")))
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
    if not strategies()[strategy].averages:
        with pytest.raises(UsageError, match=f"{strategy} trains no change of weights"):
            average([one, two])
        return
    if one.header.low_rank:  # the changes, not the factors
        both = average([one, two], [3.0, 1.0]).adapter
        texts = [adapter.tuned.merge().backbone.state_dict() for adapter in (one, two, both)]
        assert texts[0].keys() == texts[2].keys()
        for key, first in texts[0].items():
            assert torch.allclose(texts[2][key], 0.75 * first + 0.25 * texts[1][key], atol=1e-5), key
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


@pytest.mark.parametrize("strategy", FURTHER)
def test_two_are_told_apart_tensor_by_tensor(strategy: str) -> None:
    one, two = make("bert", strategy), make("bert", strategy)
    randomise(two.tuned, seed=99)
    parts = [(adapter.header, adapter.tuned.state_dict()) for adapter in (one, two)]
    found = list(layers_apart(parts[0], parts[1], one.base))
    assert len(found) > 2 and all(contrast.first > 0 and contrast.apart > 0 for contrast in found)


IN_PEFT = [(name, strategy) for strategy in FURTHER for name in ("bert", "gpt2", "llama", "distilbert")
           if strategies()[strategy].peft_ending or strategy == "rslora"]  # fmt: skip


@pytest.mark.parametrize(("name", "strategy"), IN_PEFT)
def test_peft_computes_our_logits(name: str, strategy: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    possible(strategy, name)
    adapter = make(name, strategy, "family")
    folder = adapter.save(tmp_path / "adapter")
    base = classification_folder(adapter.base, 2, tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PEFT about its own settings
        model = AutoModelForSequenceClassification.from_pretrained(base).eval()
        theirs = PeftModel.from_pretrained(model, str(folder)).eval()
    ids = [row for row in adapter.base.encode(TEXTS[:3]).ids]
    agree(peft_logits(theirs, ids), adapter.logits(TEXTS[:3]))
    assert "from peft import PeftModel" in (folder / "README.md").read_text()
