"""Adapters with randomised weights on tiny bases, and folders that PEFT and transformers load."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from lora_clf.adapters.adapter import Adapter, make_header
from lora_clf.base.base import Base
from lora_clf.tuners import create
from tests.bases import tiny_base

TEXTS = ("Are you there?", "WIN a prize " * 4, "", "ok", "Grüße, 5 € [PAD] <|endoftext|>", "x" * 200)
STRATEGIES = ("head-only", "last-block", "full", "lora", "lora-scratch")
LABELS = ("ham", "spam")


@cache
def shared_base(name: str) -> Base:
    return tiny_base(name)


def make(
    architecture: str = "bert",
    strategy: str = "lora-scratch",
    pooling: str = "mean",
    labels: tuple[str, ...] = LABELS,
    base: Base | None = None,
    **header: Any,
) -> Adapter:
    """An adapter as after training: no factor is zero, and the rank is not alpha."""
    base = base or shared_base(architecture)
    settings = {"rank": 3, "alpha": 7.0} if strategy.startswith("lora") else {}
    tuned = create(strategy, **settings).prepare(base.view(len(labels), pooling, seed=3))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    known = {
        "positive_label": labels[1] if len(labels) == 2 else None,
        "seed": 3,
        "data_name": "demo",
        "data_digest": "0" * 64,
        "licence": "CC BY 4.0",
        "training": {"epochs": 3, "lr": 5e-4},
        "metrics": {"validation": {"n": 4, "accuracy": 0.75}, "test": {"n": 8, "accuracy": 0.875}},
    }
    return Adapter(base, tuned, make_header(base, tuned, labels=labels, **(known | header)))


def classification_folder(base: Base, classes: int, folder: Path) -> Path:
    """A folder of the base as transformers' classification class: the backbone's weights, a head at random."""
    config = base.config.__class__.from_dict(base.config.to_dict())
    config.num_labels = classes
    if config.pad_token_id is None:
        config.pad_token_id = 0
    model = AutoModelForSequenceClassification.from_config(config)
    _copy(base.backbone, getattr(model, base.architecture.prefix))
    model.save_pretrained(folder)
    return folder


def body_folder(base: Base, folder: Path) -> Path:
    """A folder of the base as transformers' class without a head."""
    model = AutoModel.from_config(base.config)
    part = base.architecture.part
    _copy(base.backbone, getattr(model, part) if part else model)
    model.save_pretrained(folder)
    return folder


def _copy(backbone: nn.Module, into: nn.Module) -> None:
    missing, unexpected = into.load_state_dict(backbone.state_dict(), strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.startswith("pooler.")]
