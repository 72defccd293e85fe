"""Every field of a config that moves a logit moves the digest: each is changed in turn, and the logits looked at.

This finds fields that the list in `lora_clf.base.digest` lacks, those of later versions of transformers included.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from lora_clf.base.base import Base
from lora_clf.base.digest import SETTINGS, backbone_digest, settings_of
from tests.bases import ARCHITECTURE_NAMES, VARIANT_NAMES, batch, tiny_backbone, tiny_base, tiny_config

# What the code reads although no config class has it.
UNLISTED = {"is_causal": True, "sliding_window": None}
# Feed-forward layers run in slices: the same numbers up to rounding. The other is about the output's kind.
SAME_BUT_FOR_ROUNDING = frozenset({"chunk_size_feed_forward", "return_dict"})
# How many fields move the logits with the tensors as they are; where more move, the list here is old.
MOVING = {
    "gpt2": 6, "bert": 4, "roberta": 5, "distilbert": 2, "llama": 4, "qwen3": 4, "gpt_neox": 5, "modernbert": 10,
    "longformer": 5, "big_bird": 5,
    "opt": 3, "t5": 3, "bart": 3, "mistral": 5, "qwen2": 6, "llama-wide": 4, "opt-post-norm": 3, "opt-projected": 3,
}  # fmt: skip


def other(name: str, value: Any) -> Any:
    """Another value that the field could have, or None where none comes to mind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value + 0.1
    if isinstance(value, int):
        return value * 2 or 1
    if name == "sliding_window":
        return 4
    if name == "attention_window" and value is not None:
        return [part // 2 for part in value]
    if name == "classifier_pooling":
        return "mean"
    if name == "feed_forward_proj":
        return "gated-relu"
    if isinstance(value, str):
        return "tanh"
    if name == "layer_types" and value is not None:
        return ["sliding_attention" if kind == "full_attention" else "full_attention" for kind in value]
    if name == "rope_parameters" and value is not None:
        parts = {key: other(name, part) if isinstance(part, dict) else part for key, part in value.items()}
        return {**parts, "rope_theta": parts["rope_theta"] / 1000} if "rope_theta" in parts else parts
    return None


def logits(base: Base) -> Tensor:
    view = base.view(3, "family" if base.architecture.family else "mean")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in view.head.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
        answers: Tensor = view(*batch(width=40))
    return answers


@pytest.mark.parametrize("name", [*ARCHITECTURE_NAMES, *VARIANT_NAMES])
def test_what_moves_a_logit_moves_the_digest(name: str) -> None:
    base = tiny_base(name)
    fields, expected = base.config.to_dict(), logits(base)
    tensors = {key: parameter.shape for key, parameter in base.backbone.named_parameters()}
    moving, missed = [], []
    for field, value in {**UNLISTED, **fields}.items():
        changed = other(field, value)
        if changed is None or field in ("model_type", "transformers_version") or field in SAME_BUT_FOR_ROUNDING:
            continue
        try:
            config = AutoConfig.for_model(**{**copy.deepcopy(fields), field: changed})
            backbone = tiny_backbone(config).requires_grad_(False)
        except Exception:
            continue  # Not a base, so there is nothing to tell apart.
        if {key: parameter.shape for key, parameter in backbone.named_parameters()} != tensors:
            continue  # It shows in the tensors.
        backbone.load_state_dict(base.backbone.state_dict())
        try:
            answers = logits(replace(base, backbone=backbone, config=config))
        except (ValueError, KeyError):
            continue  # A layer type without what it needs.
        if (answers - expected).abs().max() > 1e-4:
            moving.append(field)
            if backbone_digest(backbone.named_parameters(), config.to_dict()) == base.digest:
                missed.append(field)
    assert not missed
    assert len(moving) == MOVING[name], moving


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *[({"model_type": model_type}, {"is_causal": False})
      for model_type in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox", "opt")],
    ({"model_type": "modernbert"}, {"classifier_pooling": "mean"}),
    ({"model_type": "modernbert"}, {"classifier_activation": "relu"}),
    ({"model_type": "modernbert"}, {"classifier_bias": True}),
    ({"model_type": "llama", "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
     {"max_position_embeddings": 4096}),
]  # fmt: skip


@pytest.mark.parametrize(("config", "change"), CHANGES)
def test_a_change_survives_saving_and_its_usual_value_is_left_out(
    config: dict[str, Any], change: dict[str, Any], tmp_path: Path
) -> None:
    changed = {**config, **change}
    assert settings_of(changed) != settings_of(config)
    AutoConfig.for_model(**changed).save_pretrained(tmp_path)
    assert settings_of(json.loads((tmp_path / "config.json").read_text())) == settings_of(changed)
    assert settings_of(AutoConfig.from_pretrained(tmp_path).to_dict()) == settings_of(changed)
    name = next(iter(change))
    if name in SETTINGS:
        assert settings_of({**config, name: SETTINGS[name]}) == settings_of(config)


def test_the_number_of_positions_matters_only_where_the_frequencies_depend_on_it() -> None:
    assert len(CHANGES) == 11
    plain = {"model_type": "llama"}
    assert settings_of({**plain, "max_position_embeddings": 4096}) == settings_of(plain)


@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_saving_a_variants_config_changes_nothing(name: str, tmp_path: Path) -> None:
    config = tiny_config(name)
    config.save_pretrained(tmp_path)
    assert settings_of(json.loads((tmp_path / "config.json").read_text())) == settings_of(config.to_dict())
