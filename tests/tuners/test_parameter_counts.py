"""How many numbers each strategy trains, by the formula of its paper."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from lora_clf.base.base import Base
from lora_clf.errors import UsageError
from lora_clf.tuners import create, strategies
from tests.bases import BLOCKS, WIDTH, tiny_base

D, INNER, CLASSES = WIDTH, 48, 3


def trained(strategy: str, base: Base, **settings: Any) -> int:
    """Numbers that train, the head aside."""
    tuned = create(strategy, **settings).prepare(base.view(CLASSES))
    return tuned.trainable_parameters - sum(p.numel() for p in tuned.view.head.parameters())


BERT: Mapping[tuple[str, str], tuple[dict[str, Any], int]] = {
    ("bitfit", "all"): ({}, BLOCKS * (7 * D + INNER)),
    ("bitfit", "one block"): ({"blocks": 1}, 7 * D + INNER),
    ("layer-norm", "all"): ({}, BLOCKS * 4 * D),
    ("layer-norm", "two blocks"): ({"blocks": 2}, 2 * 4 * D),
    ("ia3", "all"): ({}, BLOCKS * (2 * D + INNER)),
    ("bottleneck", "houlsby"): ({"bottleneck": 5}, BLOCKS * (2 * (2 * 5 * D + 5 + D) + 4 * D)),
    ("bottleneck", "pfeiffer"): ({"bottleneck": 5, "placement": "pfeiffer"}, BLOCKS * (2 * 5 * D + 5 + D)),
    ("prefix-tuning", "all"): ({"prefix_length": 7}, BLOCKS * 2 * 7 * D),
    # Of a block: four layers of D to D, one of D to I, one of I to D.
    ("rslora", "all"): ({"rank": 3}, BLOCKS * 3 * (4 * 2 * D + 2 * (D + INNER))),
    ("dora", "all"): ({"rank": 3}, BLOCKS * (3 * (4 * 2 * D + 2 * (D + INNER)) + 5 * D + INNER)),
    ("vera", "all"): ({"rank": 9}, BLOCKS * (5 * D + INNER + 6 * 9)),
    ("adalora", "all"): ({"rank": 2, "initial_rank": 3}, BLOCKS * 3 * (4 * 2 * D + 2 * (D + INNER) + 6)),
    ("oft", "all"): ({"block_size": 8}, BLOCKS * (5 * D + INNER) // 8 * 28),
    ("boft", "all"): ({"block_size": 8}, BLOCKS * ((5 * D + INNER) * 8 + 5 * D + INNER)),
    ("dora", "attention of a block"): ({"rank": 3, "targets": "attention", "blocks": 1}, 3 * (3 * 2 * D + D)),
    ("prompt-tuning", "all"): ({"virtual_tokens": 7}, 7 * D),
    ("p-tuning", "mlp"): (
        {"virtual_tokens": 7, "network_width": 5},
        7 * D + (D * 5 + 5) + (5 * 5 + 5) + (5 * D + D),
    ),
    ("p-tuning", "lstm"): (
        {"virtual_tokens": 7, "network_width": 5, "network": "lstm"},
        # Two layers in two directions of four gates with two biases each, then two linear layers.
        7 * D + 2 * 4 * (D * 5 + 5 * 5 + 2 * 5) + 2 * 4 * (10 * 5 + 5 * 5 + 2 * 5) + (10 * 10 + 10) + (10 * D + D),
    ),
    # LoHa: two pairs of factors a layer.
    ("peft", "loha"): ({"set": "r=3,alpha=5"}, BLOCKS * 2 * 3 * (4 * 2 * D + 2 * (D + INNER))),
}


FIRST = {
    "head-only": 0,
    "last-block": 4 * D * D + 2 * D * INNER + 9 * D + INNER,
    "lora": BLOCKS * 8 * (4 * 2 * D + 2 * (D + INNER)),
    "lora-scratch": BLOCKS * 8 * (4 * 2 * D + 2 * (D + INNER)),
}
"""Of the five of the first table, with their defaults; `full` is everything."""


def test_every_strategy_is_counted_and_names_its_paper() -> None:
    assert {name for name, _ in BERT} | {*FIRST, "full"} == set(strategies()) and len(strategies()) >= 19
    base = tiny_base("bert")
    for name, expected in FIRST.items():
        assert trained(name, base) == expected, name
    view = base.view(CLASSES)
    assert trained("full", base) == sum(p.numel() for p in view.backbone.parameters())
    for name, kind in strategies().items():
        told = f"{sys.modules[kind.__module__].__doc__} {kind.__doc__}"
        assert re.search(r"[A-Z][a-z]+(?: et al\.| and [A-Z][a-z]+)? \(?(19|20)\d\d", told), f"{name} names no paper"


@pytest.mark.parametrize(("strategy", "case"), list(BERT))
def test_counts_on_bert(strategy: str, case: str) -> None:
    settings, expected = BERT[strategy, case]
    assert trained(strategy, tiny_base("bert"), **settings) == expected


def test_counts_where_query_key_and_value_are_one_or_heads_are_shared() -> None:
    gpt2, llama = tiny_base("gpt2"), tiny_base("llama")
    assert trained("ia3", gpt2) == BLOCKS * (3 * D + 4 * D)
    # Llama's keys and values have two of the four heads.
    assert trained("ia3", llama) == BLOCKS * (2 * D // 2 + INNER)
    assert trained("prefix-tuning", llama, prefix_length=7) == BLOCKS * 2 * 7 * D // 2
    # RMS norms have no bias; the final norm counts too.
    assert trained("layer-norm", llama) == (2 * BLOCKS + 1) * D
    # GPT-2's biases: 3 D + D for the attention, 4 D + D for the feed-forward part, 2 D in the norms, D behind the last.
    assert trained("bitfit", gpt2) == BLOCKS * 11 * D + D


def test_every_bias_and_every_norm_is_among_them() -> None:
    base = tiny_base("bert")
    biases = {n for n in create("bitfit").prepare(base.view(2)).trainable() if not n.startswith("head.")}
    assert biases == {n for n, _ in base.backbone.named_parameters() if n.startswith("encoder.") and "bias" in n}
    trains = create("layer-norm").prepare(base.view(2)).view.backbone
    frozen = [n for n, m in trains.named_modules() if isinstance(m, nn.LayerNorm) and not m.weight.requires_grad]
    assert frozen == ["embeddings.LayerNorm"]


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("bottleneck", {"bottleneck": 0}, "--bottleneck 0: expected at least 1"),
        ("bottleneck", {"placement": "pfeifer"}, "Did you mean 'pfeiffer'"),
        ("prefix-tuning", {"prefix_length": 0}, "--prefix-length 0: expected at least 1"),
        ("dora", {"rank": 0}, "--rank 0"),
        ("vera", {"rank": 0}, "--rank 0"),
        ("oft", {"block_size": 1}, "blocks of at least 2 inputs"),
        ("boft", {"dropout": 1.0}, "--dropout 1.0"),
        ("adalora", {"rank": 9, "initial_rank": 4}, "--rank 9 --initial-rank 4"),
        ("adalora", {"prune_from": 0.8, "alpha": -1.0}, "--alpha -1.0.*the first below the second"),
        ("prompt-tuning", {"virtual_tokens": 0}, "--virtual-tokens 0: expected at least 1"),
        ("p-tuning", {"network": "mpl"}, "Did you mean 'mlp'"),
        ("p-tuning", {"network_width": 0}, "--network-width 0: expected at least 1"),
    ],
)
def test_settings_without_sense_are_refused(strategy: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(strategy, **settings)
