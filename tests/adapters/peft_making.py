"""Adapters as PEFT itself makes and saves them, on folders of tiny bases; every factor and head away from zero."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from lora_clf.base.base import Base
from lora_clf.base.targets import expand_targets
from tests.adapters.making import classification_folder, shared_base

LABELS = ("a", "b", "c")


def saved_by_peft(
    name: str, where: Path, *, base: Base | None = None, classes: int = 3, noise: float = 0.2, **config: Any
) -> tuple[Any, Base]:
    """PEFT's model on the tiny base ``name``, saved to ``where``/adapter; the model and the base."""
    from peft import LoraConfig, get_peft_model

    base = base or shared_base(name)
    folder = classification_folder(base, classes, where / "base")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    known = {
        "task_type": "SEQ_CLS",
        "r": 4,
        "lora_alpha": 10,
        "target_modules": leaves(base),
        "lora_dropout": 0.1,
        "fan_in_fan_out": name == "gpt2",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PEFT about its own settings
        peft = get_peft_model(model, LoraConfig(**(known | config))).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in (p for p in peft.parameters() if p.requires_grad):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise)
    peft.save_pretrained(str(where / "adapter"), save_embedding_layers=False)
    return peft, base


def leaves(base: Base) -> list[str]:
    """Name endings of all linear layers of the blocks, beginning in the block: PEFT finds no other layer by them."""
    modules = expand_targets(base.backbone, base.architecture, "all").modules
    return sorted({module.split(".0.", 1)[1] for module in modules if ".0." in module})


def peft_logits(model: Any, ids: list[Any]) -> Any:
    """The logits of rows of ids, one at a time: (N, C)."""
    with torch.inference_mode():
        return np.stack([model(input_ids=torch.from_numpy(row).long()[None]).logits[0].numpy() for row in ids])


def agree(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()
