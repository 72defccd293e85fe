"""Adapters that PEFT's own `save_pretrained` wrote become ours, and compute what PEFT computes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.file import CONFIG, MODEL
from lora_clf.adapters.foreign import check_name, load_foreign, own_name, read_otherwise
from lora_clf.adapters.peft_fields import IDLE, OFF, READ, PeftFields, read_fields
from lora_clf.adapters.peft_folder import is_foreign
from lora_clf.base.architecture import ARCHITECTURES
from lora_clf.base.base import Base, load_base
from lora_clf.base.catalogue import CATALOGUE
from lora_clf.errors import (
    AdapterFormatError,
    AdapterNotFoundError,
    UnsupportedBaseError,
    UsageError,
    WrongBaseError,
)
from tests.adapters.making import make, shared_base
from tests.adapters.peft_making import LABELS, agree, leaves, peft_logits, saved_by_peft
from tests.adapters.whole_bases import whole_base
from tests.bases import FAMILY_NAMES, VARIANT_NAMES

TEXTS = ("Are you there?", "WIN a prize " * 3, "ok")
NAMES = (*FAMILY_NAMES, *VARIANT_NAMES)


def test_every_architecture_with_a_family_head_is_among_the_cases() -> None:
    types = {shared_base(name).architecture.model_type for name in NAMES}
    assert types == {name for name, entry in ARCHITECTURES.items() if entry.family is not None}
    assert len(types) == 13 and len(NAMES) == 16


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_peft(name: str, tmp_path: Path) -> None:
    model, base = saved_by_peft(name, tmp_path)
    base = replace(base, folder=tmp_path / "base")  # where ModernBERT's head has its first half
    adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS)
    expected = peft_logits(model, adapter.encode(TEXTS).ids)
    agree(adapter.logits(TEXTS), expected)
    body = base.view(3, "family", seed=1)
    body.head.load_state_dict(adapter.tuned.view.head.state_dict())
    with torch.inference_mode():
        rows = [torch.from_numpy(row).long()[None] for row in adapter.encode(TEXTS).ids]
        plain = np.stack([body(row, torch.ones_like(row))[0].numpy() for row in rows])
    assert not np.allclose(plain, expected, atol=1e-2), "the factors must matter"
    adapter.save(tmp_path / "ours")
    loaded = load_adapter(tmp_path / "ours", base, verify=True)
    agree(loaded.logits(TEXTS), expected)
    assert loaded.labels == LABELS and loaded.header.base_digest == base.digest
    assert loaded.header.training["converted_from"] == "peft"
    assert loaded.header.settings["rank"] == 4 and loaded.header.settings["alpha"] == 10.0
    assert loaded.header.settings["targets"] == "all" and loaded.header.settings["dropout"] == 0.1
    theirs = load_file(tmp_path / "adapter" / MODEL)
    ours = load_file(tmp_path / "ours" / MODEL)
    more = (
        {"base_model.model.head.dense.weight", "base_model.model.head.norm.weight"} if name == "modernbert" else set()
    )
    assert ours.keys() - theirs.keys() == more and not theirs.keys() - ours.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


PATTERNS = {
    "rslora": {"use_rslora": True},
    "ranks": {"rank_pattern": {"attention.self.query": 2, r"^bert\.encoder\.layer\.1\..*dense": 6}},
    "alphas": {"alpha_pattern": {"intermediate.dense": 3, "layer.2.attention.self.key": 24}},
    "all": {
        "use_rslora": True,
        "rank_pattern": {"query": 2, "0.output.dense": 7},
        "alpha_pattern": {"query": 5, "attention.output.dense": 1},
    },
    "layers": {"layers_to_transform": [0, 2]},
    "last": {"layers_to_transform": 2, "target_modules": ["query", "value"]},
    "excluded": {"exclude_modules": ["layer.1.output.dense"]},
    "expression": {"target_modules": r".*layer\.[12]\.attention\.(self\.(query|value)|output\.dense)"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "no task": {"task_type": None, "modules_to_save": ["classifier"]},
}


@pytest.mark.parametrize("case", PATTERNS)
def test_scalings_ranks_and_choices_of_layers(case: str, tmp_path: Path) -> None:
    model, base = saved_by_peft("bert", tmp_path, **PATTERNS[case])
    adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS)
    expected = peft_logits(model, adapter.encode(TEXTS).ids)
    agree(adapter.logits(TEXTS), expected)
    adapter.save(tmp_path / "ours")
    agree(load_adapter(tmp_path / "ours", base, verify=True, engine="lora-scratch").logits(TEXTS), expected)
    adapted = {name.removesuffix(".lora_A.weight") for name in load_file(tmp_path / "adapter" / MODEL) if "_A" in name}
    prefix = "base_model.model.bert."
    assert adapted == {f"{prefix}{layer}" for layer in adapter.tuned.coverage.modules}  # type: ignore[union-attr]
    settings = adapter.header.settings
    if case == "rslora":
        assert settings["alpha"] == 20.0 and adapter.header.scaling == 10 / 4**0.5
    if case == "all":
        assert settings["rank"] == 7
    if case == "last":
        assert (settings["targets"], settings["blocks"]) == ("attention.self.query,attention.self.value", 1)


def test_peft_reads_the_converted_adapter(tmp_path: Path) -> None:
    """There and back: mixed ranks in one, and PEFT's logits stay."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model, base = saved_by_peft("gpt2", tmp_path, rank_pattern={"attn.c_attn": 2}, alpha_pattern={"c_fc": 5})
    adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy="lora-scratch")
    adapter.save(tmp_path / "ours")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base").eval()
    again = PeftModel.from_pretrained(plain, str(tmp_path / "ours")).eval()
    ids = adapter.encode(TEXTS).ids
    agree(peft_logits(again, ids), peft_logits(model, ids))


def test_half_precision_is_taken_as_peft_takes_it(tmp_path: Path) -> None:
    model, base = saved_by_peft("bert", tmp_path)
    state = load_file(tmp_path / "adapter" / MODEL)
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "adapter" / MODEL)
    exact = load_foreign(tmp_path / "adapter", base, labels=LABELS).logits(TEXTS)
    assert np.abs(exact - peft_logits(model, shared_ids(base))).max() < 0.05


def shared_ids(base: Base) -> list[Any]:
    return base.encode(TEXTS).ids


# The allow-list


def test_every_field_of_peft_is_in_one_table() -> None:
    """Fails when PEFT adds a field: read it, or write down what it is at when it is off."""
    fields = {field.name: field for field in dataclasses.fields(LoraConfig)}
    tables = [set(READ), set(IDLE), set(OFF)]
    assert sum(map(len, tables)) == len(set().union(*tables)), "a field in two tables"
    assert fields.keys() == set().union(*tables) and len(fields) == 42
    plain = LoraConfig()
    for name, off in OFF.items():
        assert getattr(plain, name) == off, name
    saved = plain.to_dict() | {"peft_type": "LORA", "task_type": "SEQ_CLS", "target_modules": ["query"]}
    assert read_fields(saved) == PeftFields(8, 8.0, targets=("query",), version=saved["peft_version"])


SWITCHED_ON: dict[str, Any] = {
    "bias": "lora_only",
    "megatron_config": {"hidden_size": 8},
    "megatron_core": "mine.core",
    "trainable_token_indices": [1, 2],
    "loftq_config": {"loftq_bits": 4},
    "eva_config": {"rho": 2.0},
    "corda_config": {"corda_method": "ipm"},
    "lora_ga_config": {"scale": "stable"},
    "use_dora": True,
    "velora_config": {"num_groups": 2},
    "alora_invocation_tokens": [5, 6],
    "use_qalora": True,
    "qalora_group_size": 8,
    "monteclora_config": {"num_samples": 2},
    "layer_replication": [[0, 2], [1, 3]],
    "lora_bias": True,
    "target_parameters": ["experts.gate_up_proj"],
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 0.1},
    "ensure_weight_tying": True,
}
PLAIN = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 10, "target_modules": ["query"]}


def test_each_variant_is_refused_by_name() -> None:
    assert read_fields(PLAIN) == PeftFields(4, 10.0, targets=("query",))
    assert SWITCHED_ON.keys() == OFF.keys()
    for name, value in SWITCHED_ON.items():
        with pytest.raises(AdapterFormatError, match=name):
            read_fields({**PLAIN, name: value})
        read_fields({**PLAIN, name: OFF[name]})
    for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "eva", "lora_ga", "mica", "invented", 1):
        with pytest.raises(AdapterFormatError, match="init_lora_weights"):
            read_fields({**PLAIN, "init_lora_weights": start})
    with pytest.raises(AdapterFormatError, match="use_dora is True; use_mora is True"):
        read_fields({**PLAIN, "use_mora": True, "use_dora": True})
    read_fields({**PLAIN, "enable_lora": None, "merge_weights": False})  # of old versions, and not in use


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": None}, "only LORA"),
        ({"task_type": "CAUSAL_LM"}, "CAUSAL_LM"),
        ({"task_type": "FEATURE_EXTRACTION"}, "without a head there are no labels"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"lora_alpha": -1}, "lora_alpha is -1"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"rank_pattern": {"query": 1.5}}, "rank_pattern"),
        ({"alpha_pattern": {"query": "2"}}, "alpha_pattern"),
        ({"target_modules": 3}, "target_modules"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path"),
        ({"modules_to_save": "classifier"}, "modules_to_save"),
    ],
)
def test_fields_of_the_wrong_kind(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterFormatError, match=message):
        read_fields({**PLAIN, **change})


def test_an_expression_that_never_ends_is_stopped() -> None:
    fields = read_fields({**PLAIN, "alpha_pattern": {r"(?:.|..)+(?!.)[^\w]": 3}})
    with pytest.raises(AdapterFormatError, match="alpha_pattern of the PEFT adapter cannot be used"):
        fields.scaling_of("bert.encoder.layer.0.attention.self.query" * 4)
    with pytest.raises(AdapterFormatError, match="cannot be used"):
        read_fields({**PLAIN, "rank_pattern": {"(": 3}}).rank_of("query")


def test_dora_as_peft_writes_it(tmp_path: Path) -> None:
    saved_by_peft("bert", tmp_path, use_dora=True)
    with pytest.raises(AdapterFormatError, match="use_dora is True"):
        load_foreign(tmp_path / "adapter", shared_base("bert"), labels=LABELS)


# What else is refused


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    saved_by_peft("bert", folder)
    return folder / "adapter"


@pytest.fixture
def changed(theirs: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the adapter with changes in its config or its tensors."""

    def copy(config: dict[str, Any] | None = None, tensors: Callable[[dict[str, Any]], Any] | None = None) -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        values = json.loads((theirs / CONFIG).read_text()) | (config or {})
        (folder / CONFIG).write_text(json.dumps(values))
        state = load_file(theirs / MODEL)
        save_file(tensors(state) if tensors else state, folder / MODEL)
        return folder

    return copy


def test_labels_must_come_and_fit(theirs: Path, changed: Callable[..., Path]) -> None:
    base = shared_base("bert")
    for labels, message in (
        (None, "name its 3 in the order of the outputs, as --labels label0,label1,label2"),
        (["ham", "spam"], r"2 labels \(ham, spam\) .* whose head has 3 outputs"),
        (["a", "a", "b"], "expected a list of different names"),
        ("abc", "expected a list"),
    ):
        with pytest.raises(UsageError, match=message):
            load_foreign(theirs, base, labels=labels)
    with pytest.raises(UsageError, match="Unknown label 'd'"):
        load_foreign(theirs, base, labels=LABELS, positive_label="d")
    with pytest.raises(UsageError, match="only of two labels"):
        load_foreign(theirs, base, labels=LABELS, positive_label="a")
    folder = changed()
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "x", "1": "y", "2": "z"}}))
    assert load_foreign(folder, base).labels == ("x", "y", "z")
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}))
    with pytest.raises(UsageError, match="PEFT stores no labels"):
        load_foreign(folder, base)


def test_settings_that_peft_does_not_store(theirs: Path) -> None:
    adapter = load_foreign(theirs, shared_base("bert"), labels=LABELS, max_length=9, truncation="left")
    assert (adapter.header.max_length, adapter.header.truncation) == (9, "left")
    assert adapter.header.positive_label is None and adapter.header.task == "multiclass"


@pytest.mark.parametrize("name", ["r", "lora_alpha", "lora_dropout", "layers_to_transform"])
def test_a_whole_number_without_end_is_refused(name: str, changed: Callable[..., Path]) -> None:
    with pytest.raises(AdapterFormatError, match=r"adapter_config.json is not JSON .* of more than 64 bits"):
        load_foreign(changed({name: 10**400}), shared_base("bert"), labels=LABELS)


def test_a_file_without_a_head_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed(tensors=lambda state: {n: t for n, t in state.items() if "classifier" not in n})
    with pytest.raises(AdapterFormatError, match=r"no classification head \(.*classifier\.weight, .*classifier\.bias"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


def test_half_a_head_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed(tensors=lambda state: {n: t for n, t in state.items() if not n.endswith("classifier.bias")})
    with pytest.raises(AdapterFormatError, match=r"A part of its head is missing: .*classifier\.bias"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


def test_a_head_of_a_single_number_is_refused(changed: Callable[..., Path]) -> None:
    name = "base_model.model.classifier.weight"
    folder = changed(tensors=lambda state: {**state, name: torch.tensor(1.0)})
    with pytest.raises(AdapterFormatError, match=rf"{name} is \(\), expected outputs and width"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


def test_what_was_random_in_modernbert_is_lost(tmp_path: Path) -> None:
    saved_by_peft("modernbert", tmp_path)
    with pytest.raises(AdapterFormatError, match=r"drawn at random .* modules_to_save=\['head'\] added"):
        load_foreign(tmp_path / "adapter", shared_base("modernbert"), labels=LABELS)


def test_a_regression_is_refused(tmp_path: Path) -> None:
    saved_by_peft("bert", tmp_path, classes=1)
    with pytest.raises(AdapterFormatError, match="it is a regression"):
        load_foreign(tmp_path / "adapter", shared_base("bert"), labels=["a"])


def test_a_file_with_a_part_lost_is_refused(changed: Callable[..., Path]) -> None:
    lost = "layer.1.attention.self.key.lora_"
    folder = changed(tensors=lambda state: {n: t for n, t in state.items() if lost not in n})
    with pytest.raises(AdapterFormatError, match=r"names 18 layers .* no factors for 1 of them \(encoder.layer.1.att"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


@pytest.mark.parametrize(
    ("saved", "inside", "says"),
    [
        ("pooler", ".pooler.", "1 trained .*pooler"),
        ("output.LayerNorm", ".LayerNorm.", "6 trained .*layer.0.*LayerNorm"),
    ],
)
def test_weights_of_the_base_that_were_trained_along_are_missed(
    saved: str, inside: str, says: str, tmp_path: Path
) -> None:
    saved_by_peft("bert", tmp_path, modules_to_save=["classifier", saved])
    with pytest.raises(AdapterFormatError, match="have no place in LoRA beside"):
        load_foreign(tmp_path / "adapter", shared_base("bert"), labels=LABELS)
    state = load_file(tmp_path / "adapter" / MODEL)
    kept = {name: tensor for name, tensor in state.items() if inside not in name}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "adapter" / MODEL)
    with pytest.raises(AdapterFormatError, match=rf"not whole: its config names {says}"):
        load_foreign(tmp_path / "adapter", shared_base("bert"), labels=LABELS)


SELECTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "expression": ({"target_modules": r".*attention\.self\.(query|value)"}, "layer.2.attention.self.value"),
    "excluded": ({"target_modules": ["query", "key"], "exclude_modules": ["layer.0.attention.self.key"]}, "1.*query"),
    "excluded by expression": ({"target_modules": ["query"], "exclude_modules": r".*layer\.0\..*"}, "layer.1"),
    "layers": ({"layers_to_transform": [0, 2], "target_modules": ["query", "value"]}, "layer.2"),
    "pattern": ({"layers_to_transform": 1, "layers_pattern": "layer", "target_modules": ["query", "value"]}, "value"),
    "outside the blocks": ({"target_modules": ["query", "pooler.dense"]}, "pooler"),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_what_the_config_selects_is_what_the_file_holds(case: str, tmp_path: Path) -> None:
    """A part that was lost is missed, however the config chooses; and so is a config that chooses less."""
    config, lost = SELECTIONS[case]
    strategy = "full" if "outside" in case else "lora"
    model, base = saved_by_peft("bert", tmp_path, **config)
    whole = load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy=strategy)
    agree(whole.logits(TEXTS), peft_logits(model, whole.encode(TEXTS).ids))
    file = tmp_path / "adapter" / MODEL
    state = load_file(file)
    rest = {n: t for n, t in state.items() if "lora_" not in n or not re.search(lost, n)}
    assert 0 < len(state) - len(rest) < sum("lora_" in name for name in state)
    save_file(rest, file)
    with pytest.raises(AdapterFormatError, match=r"not whole.*there are no factors for \d of them"):
        load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy=strategy)


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({"target_modules": ["query"]}, 15),
        ({"target_modules": r".*\.query"}, 15),
        ({"layers_to_transform": [0, 1]}, 6),
        ({"layers_to_transform": 2, "layers_pattern": ["layers", "layer"]}, 12),
        ({"layers_to_transform": [0, 1, 2], "layers_pattern": "h"}, 18),
        ({"exclude_modules": r".*\.key"}, 3),
        ({"exclude_modules": ["key"]}, 3),
    ],
)
def test_factors_that_the_config_leaves_out(config: dict[str, Any], number: int, changed: Callable[..., Path]) -> None:
    """PEFT would not apply them, so neither may we."""
    with pytest.raises(AdapterFormatError, match=rf"has factors for {number} layers .* does not select"):
        load_foreign(changed(config=config), shared_base("bert"), labels=LABELS)


def test_a_selection_that_cannot_be_followed(changed: Callable[..., Path]) -> None:
    for config, message in (
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": "("}, r"The expression '\(' in target_modules"),
        ({"target_modules": r"(?:.|..)+(?!.)[^\w]"}, "in target_modules of the PEFT adapter cannot be used"),
        ({"exclude_modules": "["}, "in exclude_modules"),
        ({"exclude_modules": [1]}, "exclude_modules is"),
        ({"layers_to_transform": ["1"]}, "layers_to_transform is"),
        ({"layers_to_transform": [1], "layers_pattern": "("}, "in layers_pattern"),
        ({"layers_pattern": 3}, "layers_pattern is 3"),
        ({"target_modules": ".*query", "layers_to_transform": [1]}, "layers_to_transform .* with an expression"),
    ):
        folder = changed(config=config)
        with pytest.raises(AdapterFormatError, match=message):
            load_foreign(folder, shared_base("bert"), labels=LABELS)
        shutil.rmtree(folder)


def test_all_linear_as_a_word(tmp_path: Path) -> None:
    """PEFT writes what it found in place of it, and reads the word too."""
    model, base = saved_by_peft("bert", tmp_path, target_modules="all-linear")
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps({**config, "target_modules": "all-linear"}))
    adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy="full")
    agree(adapter.logits(TEXTS), peft_logits(model, adapter.encode(TEXTS).ids))


def test_half_of_a_pair_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed(tensors=lambda s: {n: t for n, t in s.items() if not n.endswith("0.output.dense.lora_B.weight")})
    with pytest.raises(AdapterFormatError, match=r"not whole; missing: .*0\.output\.dense\.lora_B"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


def test_other_ranks_than_the_config_says(changed: Callable[..., Path]) -> None:
    with pytest.raises(AdapterFormatError, match="has rank 4, by r and rank_pattern it is 5"):
        load_foreign(changed(config={"r": 5}), shared_base("bert"), labels=LABELS)


@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.output.dense.bias"])
def test_more_tensors_are_refused_by_name(name: str, changed: Callable[..., Path]) -> None:
    folder = changed(tensors=lambda state: {**state, f"base_model.model.{name}": torch.ones(3)})
    with pytest.raises(AdapterFormatError, match=f"have no place.*{name}"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


def test_numbers_that_are_none(changed: Callable[..., Path]) -> None:
    def spoil(state: dict[str, Any]) -> dict[str, Any]:
        state["base_model.model.classifier.bias"][0] = float("nan")
        return state

    with pytest.raises(AdapterFormatError, match=r"hold NaN or infinity: .*classifier"):
        load_foreign(changed(tensors=spoil), shared_base("bert"), labels=LABELS)


def test_a_pickle_is_not_read(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / MODEL).rename(folder / "adapter_model.bin")
    assert is_foreign(folder)
    with pytest.raises(AdapterFormatError, match=r"is a adapter_model.bin: a pickle.*save_pretrained\(NEW_FOLDER\)"):
        load_foreign(folder, shared_base("bert"), labels=LABELS)


def test_damaged_files(theirs: Path, tmp_path: Path, changed: Callable[..., Path]) -> None:
    base = shared_base("bert")
    folder = changed()
    whole = (folder / MODEL).read_bytes()
    for content in (b"", whole[:100], whole[:-5], b"\xff" * 64):
        (folder / MODEL).write_bytes(content)
        with pytest.raises(AdapterFormatError):
            load_foreign(folder, base, labels=LABELS)
    (folder / MODEL).write_bytes(whole)
    for config in ("", "[]", '{"r": 1, "r": 2}'):
        (folder / CONFIG).write_text(config)
        with pytest.raises(AdapterFormatError, match=CONFIG if config == "[]" else "JSON"):
            load_foreign(folder, base, labels=LABELS)
    with pytest.raises(AdapterNotFoundError):
        load_foreign(tmp_path / "no", base, labels=LABELS)


def test_one_of_ours_is_not_foreign(tmp_path: Path, theirs: Path) -> None:
    make("bert", "lora", "family", LABELS).save(tmp_path / "ours")
    make("bert", "full", "family", LABELS).save(tmp_path / "full")
    assert is_foreign(theirs)
    assert not is_foreign(tmp_path / "ours") and not is_foreign(tmp_path / "full") and not is_foreign(tmp_path / "no")
    with pytest.raises(AdapterFormatError, match="is one of lora_clf already"):
        load_foreign(tmp_path / "ours", shared_base("bert"), labels=LABELS)


def test_load_adapter_takes_labels(theirs: Path, tmp_path: Path) -> None:
    base = shared_base("bert")
    with pytest.raises(AdapterFormatError, match=r"What PEFT saved comes in with its labels: `lora-clf adapters conv"):
        load_adapter(theirs, base)
    adapter = load_adapter(theirs, base, labels=LABELS, engine="lora-scratch")
    assert adapter.labels == LABELS and adapter.header.strategy == "lora-scratch"
    adapter.save(tmp_path / "ours")
    assert load_adapter(tmp_path / "ours", base, labels=LABELS).header == adapter.header
    with pytest.raises(UsageError, match=r"has labels of its own, a, b, c; given were x, y, z"):
        load_adapter(tmp_path / "ours", base, labels=["x", "y", "z"])


# The base


def test_another_base_is_refused_where_it_can_be_seen(theirs: Path, changed: Callable[..., Path]) -> None:
    for other in ("roberta", "gpt2", "llama"):
        with pytest.raises(WrongBaseError, match=rf"adapts layers such as base_model\.model\.bert.* on a {other} base"):
            load_foreign(theirs, shared_base(other), labels=LABELS)
    with pytest.raises(UnsupportedBaseError, match="runs the decoder"):
        load_foreign(theirs, shared_base("t5"), labels=LABELS)
    deep = changed(
        config={"target_modules": ["query"]},
        tensors=lambda s: {n.replace("layer.2", "layer.7"): t for n, t in s.items()},
    )
    with pytest.raises(WrongBaseError, match=r"no linear layer encoder\.layer\.7"):
        load_foreign(deep, shared_base("bert"), labels=LABELS)


def test_other_shapes_are_refused(changed: Callable[..., Path]) -> None:
    def wider(state: dict[str, Any]) -> dict[str, Any]:
        return {n: torch.cat([t, t], dim=1) if n.endswith("lora_A.weight") else t for n, t in state.items()}

    with pytest.raises(WrongBaseError, match=r"goes from 64 to 32, here from 32 to 32"):
        load_foreign(changed(tensors=wider), shared_base("bert"), labels=LABELS)


def test_names_of_bases() -> None:
    base = replace(shared_base("bert"), name="minilm")

    def said(name: str | None, mode: str = "strict") -> str:
        return check_name("folder", PeftFields(4, 8.0, base_name=name), base, mode)

    assert said("sentence-transformers/all-MiniLM-L6-v2") == "equal"
    assert said("minilm") == "equal"
    for unknown in (None, "/home/me/checkpoints/7", "..\\base", ".", "all-MiniLM-L6-v2"):
        assert said(unknown) == "unknown"
    # Once names on the Hub had no owner: bert-base-cased is google-bert/bert-base-cased today.
    assert said("bert-base-uncased", "off") == "other"
    with pytest.raises(WrongBaseError, match=r"was trained on bert-base-uncased, .* this base is minilm"):
        said("bert-base-uncased")
    with pytest.raises(
        WrongBaseError, match=r"was trained on someone/other, .* this base is minilm .*--base-check off"
    ):
        said("someone/other")
    assert said("someone/other", "warn") == said("someone/other", "off") == "other"
    with pytest.raises(UsageError, match="base check"):
        said("someone/other", "maybe")


def test_revisions_of_bases() -> None:
    commits = "a" * 40, "b" * 40
    bases = [replace(shared_base("bert"), name=f"owner/name{end}") for end in (f"@{commits[0]}", "@v1", "")]

    def said(revision: str | None, base: Base = bases[0], mode: str = "strict") -> str:
        return check_name("folder", PeftFields(4, 8.0, base_name="owner/name", revision=revision), base, mode)

    assert said(None) == said("main") == said(commits[0]) == "equal"
    assert said("v1", bases[1]) == "equal" and said("main", bases[2]) == "equal"
    for base, revision in ((bases[0], "v1"), (bases[1], "v2"), (bases[1], commits[0]), (bases[2], commits[0])):
        assert said(revision, base) == "unknown"  # which commit a branch or a tag meant then is not known
    with pytest.raises(WrongBaseError, match=rf"was trained on owner/name@{commits[1]}, .*--base owner/name@b"):
        said(commits[1])
    assert said(commits[1], mode="warn") == "other"
    minilm = replace(shared_base("bert"), name="minilm")
    named = PeftFields(4, 8.0, base_name="sentence-transformers/all-MiniLM-L6-v2", revision=commits[1])
    assert check_name("folder", named, minilm, "off") == "other"
    moved = replace(minilm, name=f"openai-community/gpt2@{commits[0]}")
    assert check_name("folder", PeftFields(4, 8.0, base_name="gpt2"), moved) == "equal"


def test_another_name_is_warned_of_where_asked(changed: Callable[..., Path]) -> None:
    folder = changed({"base_model_name_or_path": "someone/other", "revision": "v1"})
    base = replace(shared_base("bert"), name="owner/name")
    with pytest.warns(UserWarning, match=r"names the base someone/other@v1; this base is owner/name\.$") as said:
        load_foreign(folder, base, labels=LABELS, base_check="warn")
        load_adapter(folder, base, labels=LABELS, base_check="warn")
    assert len(said) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_foreign(folder, base, labels=LABELS, base_check="off")
        load_foreign(folder, replace(base, name="someone/other"), labels=LABELS, base_check="warn")


def test_texts_that_transformers_reads_otherwise_are_named(tmp_path: Path) -> None:
    base = whole_base("bert", tmp_path / "base")
    assert read_otherwise(base) == [] == read_otherwise(shared_base("bert"))
    file = base.folder / "tokenizer.json"  # type: ignore[operator]
    form = json.loads(file.read_text())
    form["normalizer"]["lowercase"] = False  # and tokenizer_config.json, whom transformers believes, says otherwise
    file.write_text(json.dumps(form))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (base.folder / "tokenizer_config.json").write_text(json.dumps(config))  # type: ignore[operator]
    assert "promotion" in read_otherwise(load_base(tmp_path / "base", device="cpu"))


def test_the_base_by_the_name_in_the_file() -> None:
    def found(name: str | None, revision: str | None = None) -> str | None:
        return own_name(PeftFields(4, 8.0, base_name=name, revision=revision))

    assert found(None) is None and found("gpt2") == "gpt2"
    assert found("sentence-transformers/all-MiniLM-L6-v2", "main") == "minilm"
    minilm = CATALOGUE["minilm"]
    assert found(minilm.repo, minilm.revision) == "minilm"
    assert found(minilm.repo, "v1.0") == f"{minilm.repo}@v1.0" and found("gpt2", "x") == "openai-community/gpt2@x"
    assert found("openai-community/gpt2-medium") == "gpt2-medium"
    assert found("owner/name") == "owner/name" and found("owner/name", "abc") == "owner/name@abc"
    assert found("/home/me/base", "abc") == "/home/me/base"


def test_no_path_goes_into_the_record(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed(config={"base_model_name_or_path": "/home/me/secret/place"})
    load_foreign(folder, shared_base("bert"), labels=LABELS).save(tmp_path / "ours")
    assert all(b"secret" not in file.read_bytes() for file in (tmp_path / "ours").iterdir())


def test_layers_outside_the_blocks_go_into_the_weights(tmp_path: Path) -> None:
    """PEFT's "all-linear" adapts BERT's pooler too."""
    model, base = saved_by_peft("bert", tmp_path, target_modules="all-linear")
    with pytest.raises(AdapterFormatError, match=r"blocks of the base tiny-bert: pooler\.dense.*--strategy full"):
        load_foreign(tmp_path / "adapter", base, labels=LABELS)
    adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy="full")
    agree(adapter.logits(TEXTS), peft_logits(model, adapter.encode(TEXTS).ids))
    adapter.save(tmp_path / "ours")
    assert load_adapter(tmp_path / "ours", base, verify=True).header.strategy == "full"
    with pytest.raises(UsageError, match="There are: full, lora, lora-scratch"):
        load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy="last-block")


def test_full_writes_into_a_conv1d_too(tmp_path: Path) -> None:
    model, base = saved_by_peft("gpt2", tmp_path, use_rslora=True)
    adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS, strategy="full")
    agree(adapter.logits(TEXTS), peft_logits(model, adapter.encode(TEXTS).ids))
    assert len(leaves(base)) == 4
