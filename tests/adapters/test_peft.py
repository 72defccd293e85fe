"""PEFT and transformers read our LoRA folders, and compute what we compute."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.card import FOLDER
from lora_clf.adapters.file import CARD, CONFIG
from lora_clf.adapters.layout import config_of
from lora_clf.base.architecture import ARCHITECTURES
from tests.adapters.making import body_folder, classification_folder, make, shared_base
from tests.bases import ARCHITECTURE_NAMES, FAMILY_NAMES, VARIANT_NAMES

TEXTS = ("Are you there?", "WIN a prize " * 3, "ok")
LABELS = ("a", "b", "c")
PEFT_NAMES = (*FAMILY_NAMES, *VARIANT_NAMES)


def agree(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


def test_every_architecture_with_a_family_head_is_among_the_cases() -> None:
    types = {shared_base(name).architecture.model_type for name in PEFT_NAMES}
    assert types == {name for name, entry in ARCHITECTURES.items() if entry.family is not None}
    assert len(types) == 13 and len(PEFT_NAMES) == 16


@pytest.mark.parametrize("engine", ["lora", "lora-scratch"])
@pytest.mark.parametrize("name", PEFT_NAMES)
def test_peft_computes_our_logits(name: str, engine: str, tmp_path: Path) -> None:
    from peft import PeftModel

    adapter = make(name, engine, "family", LABELS)
    adapter.save(tmp_path / "a")
    folder = classification_folder(adapter.base, len(LABELS), tmp_path / "base")
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    before = run(plain, adapter)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of unknown or missing keys
        model = PeftModel.from_pretrained(plain, str(tmp_path / "a")).eval()
    agree(run(model, adapter), adapter.logits(TEXTS))
    assert not np.allclose(before, adapter.logits(TEXTS), atol=1e-2)
    adapted = [n for n, module in model.named_modules() if hasattr(module, "lora_A")]
    assert len(adapted) == len(adapter.tuned.coverage.modules) > 3  # type: ignore[union-attr]
    # What PEFT would save is what we saved.
    model.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    from safetensors.torch import load_file

    ours, theirs = (load_file(tmp_path / where / "adapter_model.safetensors") for where in ("a", "theirs"))
    assert sorted(ours) == sorted(theirs)
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


def run(model: Any, adapter: Adapter) -> Any:
    tokens = adapter.encode(TEXTS)
    with torch.inference_mode():
        rows = [model(input_ids=torch.from_numpy(row).long()[None]).logits[0].numpy() for row in tokens.ids]
    return np.stack(rows)


@pytest.mark.parametrize("strategy", ["head-only", "last-block", "full"])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_transformers_takes_the_other_strategies(name: str, strategy: str, tmp_path: Path) -> None:
    """Their names are those of the classification class: its own `load_state_dict` takes them."""
    from safetensors.torch import load_file

    adapter = make(name, strategy, "family", LABELS)
    adapter.save(tmp_path / "a")
    folder = classification_folder(adapter.base, len(LABELS), tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    report = model.load_state_dict(load_file(tmp_path / "a" / "adapter_model.safetensors"), strict=False)
    assert not report.unexpected_keys
    agree(run(model, adapter), adapter.logits(TEXTS))


class _Tokens(dict[str, Any]):
    """What a tokenizer of transformers returns, as far as the snippets go."""


def snippet(adapter: Adapter, where: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the card's lines with a folder in place of the names in them; returns their variables."""
    code = re.findall(r"```python\n(.*?)```", (where / CARD).read_text(), re.DOTALL)[-1]
    assert "lora_clf" not in code and len(code.splitlines()) <= 14

    def encode(text: str, **settings: Any) -> _Tokens:
        assert settings["max_length"] == adapter.header.max_length and settings["truncation"]
        ids = torch.from_numpy(adapter.encode([text]).ids[0]).long()[None]
        return _Tokens(input_ids=ids, attention_mask=torch.ones_like(ids))

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *args, **more: encode)
    code = code.replace(f'"{adapter.header.base_name}"', repr(str(folder))).replace(FOLDER, str(where))
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables


FREE = [*[(name, "mean") for name in ARCHITECTURE_NAMES], ("bert", "first"), ("gpt2", "last")]


@pytest.mark.parametrize(("name", "pooling"), FREE)
def test_the_card_runs_a_free_head(
    name: str, pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make(name, "lora", pooling, LABELS)
    adapter.save(tmp_path / "a")
    folder = body_folder(adapter.base, tmp_path / "base")
    variables = snippet(adapter, tmp_path / "a", folder, monkeypatch)
    agree(variables["logits"].detach(), adapter.logits(["Your text"])[0])
    assert capsys.readouterr().out.splitlines()[-1] == adapter.predict(["Your text"])[0].label
    adapted = [n for n, module in variables["body"].named_modules() if hasattr(module, "lora_A")]
    assert len(adapted) == len(adapter.tuned.coverage.modules)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert"])
def test_the_card_runs_a_family_head(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make(name, "lora-scratch", "family", LABELS)
    adapter.save(tmp_path / "a")
    folder = classification_folder(adapter.base, len(LABELS), tmp_path / "base")
    variables = snippet(adapter, tmp_path / "a", folder, monkeypatch)
    agree(variables["logits"].detach(), adapter.logits(["Your text"])[0])
    assert capsys.readouterr().out.splitlines()[-1] == adapter.predict(["Your text"])[0].label


def test_the_config_is_what_peft_understands(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftConfig

    heads = {"distilbert": ["pre_classifier"], "modernbert": ["head"]}
    for name in FAMILY_NAMES:
        adapter = make(name, "lora", "family")
        adapter.save(tmp_path / name)
        config = PeftConfig.from_pretrained(str(tmp_path / name))
        assert isinstance(config, LoraConfig)
        assert config.modules_to_save == [*heads.get(name, []), "classifier", "score"]
        assert (config.r, config.lora_alpha, config.task_type) == (3, 7, "SEQ_CLS")
        assert config.fan_in_fan_out is (name == "gpt2")
        known = set(LoraConfig().to_dict())
        assert set(config_of(adapter.header)) <= known
    free = make("bert", "lora", "mean")
    assert config_of_saved(free)["task_type"] == "FEATURE_EXTRACTION"
    assert config_of_saved(free)["modules_to_save"] is None


def config_of_saved(adapter: Adapter) -> dict[str, Any]:
    return config_of(adapter.header)


def test_targets_stand_in_the_order_of_the_blocks(tmp_path: Path) -> None:
    adapter = make("bert", "lora", "family")
    adapter.save(tmp_path / "a")
    modules = adapter.tuned.coverage.modules  # type: ignore[union-attr]
    targets = config_of(adapter.header)["target_modules"]
    assert sorted(targets) == sorted(f"bert.{module}" for module in modules)
    blocks = [int(target.split(".")[3]) for target in targets]
    assert blocks == sorted(blocks) and set(blocks) == {0, 1, 2}
    assert (tmp_path / "a" / CONFIG).read_text().endswith("}\n")


def test_the_default_base_goes_by_its_name_on_the_hub() -> None:
    from lora_clf.adapters.layout import hub_name

    repository, revision = hub_name("minilm")
    assert repository == "sentence-transformers/all-MiniLM-L6-v2" and revision and len(revision) == 40
    assert hub_name("owner/name@abc") == ("owner/name", "abc")
    assert hub_name("my-folder") == ("my-folder", None)
