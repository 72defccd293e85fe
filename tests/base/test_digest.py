"""The base digest: blind to how a base is stored, not to one bit of what it computes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from lora_clf.base.digest import backbone_digest, settings_of
from lora_clf.errors import UnsupportedBaseError
from tests.bases import ARCHITECTURE_NAMES, tiny_config

# Literal: a digest that changes makes every adapter that was ever saved useless.
TINY = "70a77c6f5126cab3e8e789c79feb58c294e6055e78ca1922bb852d63b4186b5e"
MINILM = "e4533b679f201ebc741aadd6074b22d17456b00bdcca9a7a4b946c57bc19a19e"

CONFIG = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}


def tiny_state() -> dict[str, torch.Tensor]:
    return {
        "embeddings.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
        "layer.bias": torch.tensor([0.5, -0.0, 1e-30, 3.0]).to(torch.bfloat16),
        "scale": torch.tensor(2.0, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
    }


def test_the_digest_is_pinned() -> None:
    assert backbone_digest(tiny_state().items(), CONFIG) == TINY


def test_order_contiguity_and_parameters_do_not_matter() -> None:
    state = tiny_state()
    state["embeddings.weight"] = torch.nn.Parameter(state["embeddings.weight"].t().contiguous().t())
    assert not state["embeddings.weight"].is_contiguous()
    assert backbone_digest(reversed(state.items()), CONFIG) == TINY


@pytest.mark.parametrize("name", ["embeddings.weight", "layer.bias", "scale"])
def test_one_bit_matters(name: str) -> None:
    state = tiny_state()
    state[name].view(-1).view(torch.uint8)[0] ^= 1
    assert backbone_digest(state.items(), CONFIG) != TINY


def test_names_shapes_and_dtypes_matter() -> None:
    digests = {TINY}
    renamed, reshaped, recast, fewer = tiny_state(), tiny_state(), tiny_state(), tiny_state()
    renamed["other"] = renamed.pop("scale")
    reshaped["embeddings.weight"] = reshaped["embeddings.weight"].reshape(4, 3)
    recast["layer.bias"] = recast["layer.bias"].view(torch.float16)
    del fewer["empty"]
    for state in (renamed, reshaped, recast, fewer):
        digests.add(backbone_digest(state.items(), CONFIG))
    assert len(digests) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_eps": 1e-6},
        {"hidden_act": "relu"},
        {"num_attention_heads": 4},
        {"is_decoder": True},
        {"position_embedding_type": "relative_key"},
    ],
)
def test_a_setting_that_changes_the_computation_matters(change: dict[str, Any]) -> None:
    assert backbone_digest(tiny_state().items(), {**CONFIG, **change}) != TINY


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_eps": 1e-12, "hidden_act": "gelu", "position_embedding_type": "absolute", "pad_token_id": 3},
        {"hidden_dropout_prob": 0.5, "id2label": {"0": "ham"}, "_name_or_path": "/somewhere", "use_cache": False},
        {"transformers_version": "4.1", "architectures": ["BertModel"], "torch_dtype": "bfloat16"},
    ],
)
def test_defaults_and_everything_else_do_not_matter(change: dict[str, Any]) -> None:
    assert backbone_digest(tiny_state().items(), {**CONFIG, **change}) == TINY


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_saving_a_config_and_reading_it_back_changes_nothing(name: str, tmp_path: Path) -> None:
    config = tiny_config(name)
    config.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    again = AutoConfig.from_pretrained(tmp_path)
    assert settings_of(raw) == settings_of(config.to_dict()) == settings_of(again.to_dict())
    assert {"model_type"} < set(settings_of(raw))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"model_type": "llama", "rope_theta": 5000.0, "rope_scaling": None},
         {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 5000}}),
        ({"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 10000},
         {"model_type": "gpt_neox", "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 10000.0,
                                                        "rope_type": "default"}}),
        ({"model_type": "gpt2", "n_inner": None}, {"model_type": "gpt2", "n_inner": 3072}),
        ({"model_type": "gpt2", "num_attention_heads": 6}, {"model_type": "gpt2", "n_head": 6}),
    ],
)  # fmt: skip
def test_old_spellings_are_the_same_settings(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert settings_of(old) == settings_of(new)


def test_rope_and_sliding_windows_matter() -> None:
    qwen = {"model_type": "qwen2", "num_hidden_layers": 4}
    window = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}
    settings = [settings_of(qwen), settings_of({**qwen, "rope_theta": 1e6}), settings_of({**qwen, **window})]
    assert settings[0] != settings[1] != settings[2] != settings[0]
    assert "layer_types" in settings[2] and "layer_types" not in settings[0]


def test_the_padding_id_matters_only_where_positions_start_from_it() -> None:
    assert settings_of({"model_type": "roberta", "pad_token_id": 1}) != settings_of(
        {"model_type": "roberta", "pad_token_id": 0}
    )
    assert settings_of({"model_type": "gpt2", "pad_token_id": 1}) == settings_of({"model_type": "gpt2"})


def test_re_saving_and_sharding_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(tiny_config("bert"))
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    digests = {backbone_digest(model.named_parameters(), model.config.to_dict())}
    for folder in ("whole", "shards"):
        again = AutoModel.from_pretrained(tmp_path / folder)
        digests.add(backbone_digest(again.named_parameters(), again.config.to_dict()))
    assert len(digests) == 1


def test_a_config_that_its_architecture_does_not_take_is_refused() -> None:
    with pytest.raises(UnsupportedBaseError, match="not one of a bert base"):
        settings_of({"model_type": "bert", "hidden_size": "wide"})


def test_a_type_that_transformers_does_not_know_is_taken_as_it_is() -> None:
    assert settings_of({"model_type": "homemade", "n_head": 2, "dropout": 0.1}) == {
        "model_type": "homemade",
        "n_head": 2,
    }


def test_22_million_parameters_take_seconds_at_most() -> None:
    state = [(f"layer.{index}", torch.full((1_000_000,), 0.1)) for index in range(22)]
    backbone_digest([], CONFIG)  # what is imported at the first call is not what is measured
    start = time.process_time()
    backbone_digest(state, CONFIG)
    seconds = time.process_time() - start
    assert seconds < 5  # of the processor: usually 0.08, or 0.3 without instructions for SHA-256


@pytest.mark.usefixtures("real_cache")
def test_the_digest_of_minilm_is_pinned() -> None:
    from lora_clf.base.sources import cache_folder

    file = cache_folder("minilm") / "model.safetensors"
    if not file.exists():
        pytest.skip("minilm is not in the cache of this machine: lora-clf bases fetch minilm")
    config = json.loads((file.parent / "config.json").read_text())
    state = {name: tensor for name, tensor in load_file(file).items() if not name.endswith("position_ids")}
    assert os.path.getsize(file) == 90_868_376
    assert backbone_digest(state.items(), config) == MINILM
