"""LoRA adapters extracted from others: the nearest change, the same head, and an account of what stays behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.extraction import extract
from lora_clf.adapters.factors import low_rank
from lora_clf.errors import UsageError
from tests.adapters.making import LABELS, make
from tests.bases import ARCHITECTURE_NAMES, tiny_base

TEXTS = ["Are you there?", "WIN a prize " * 4, "ok"]


@pytest.mark.parametrize("strategy", ["last-block", "full"])
@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_all_ranks_hold_the_whole_change_of_the_linear_layers(name: str, strategy: str) -> None:
    adapter = make(name, strategy)
    found = extract(adapter, 1000)
    assert 16 <= found.rank <= 48
    ours = adapter.tuned.merge().backbone
    theirs = found.adapter.tuned.merge().backbone
    before = dict(adapter.base.backbone.named_parameters())
    layers = set(low_rank(found.adapter.tuned))
    assert len(layers) == found.layers >= 2
    others = 0.0
    for key, parameter in ours.named_parameters():
        if key.removesuffix(".weight") in layers:
            torch.testing.assert_close(theirs.get_parameter(key), parameter, rtol=0, atol=1e-5)
        else:
            assert torch.equal(theirs.get_parameter(key), before[key])
            others += float(((parameter - before[key]).double() ** 2).sum())
    total = sum(float(((p - before[key]).double() ** 2).sum()) for key, p in ours.named_parameters())
    assert found.kept == pytest.approx(1 - others / total, abs=1e-6)
    assert sum(found.left_out.values()) + found.kept == pytest.approx(1)
    assert "norms" in found.left_out and ("embeddings" in found.left_out) == (strategy == "full")


def test_a_file_of_it_loads_and_names_only_what_changed(tmp_path: Path) -> None:
    adapter = make(
        "bert",
        "last-block",
        threshold=0.7,
        training={"epochs": 3, "threshold": {"rows": 9}, "temperature": {"rows": 9}},
    )
    found = extract(adapter, 5)
    found.adapter.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", adapter.base, verify=True)
    header = loaded.header
    assert (header.strategy, header.settings["rank"], header.settings["targets"]) == ("lora", 5, "all")
    assert header.settings["blocks"] == 1 and found.layers == 6 and header.metrics == {}
    assert header.labels == LABELS and header.data_digest == adapter.header.data_digest and header.threshold is None
    assert header.training["extracted_from"] == "last-block" and header.training["epochs"] == 3
    assert not {"threshold", "temperature"} & set(header.training)
    old, new = (each.tuned.view.head.state_dict() for each in (adapter, loaded))
    assert all(torch.equal(old[key], new[key]) for key in old)


def test_more_rank_is_nearer() -> None:
    adapter = make("gpt2", "full", "family")
    found = [extract(adapter, rank) for rank in (1, 4, 16, 32)]
    kept = [each.kept for each in found]
    assert kept == sorted(kept) and kept[0] < 0.5 < kept[-1]
    assert [each.rank for each in found] == [1, 4, 16, 32]
    assert "rank" not in found[-1].left_out or found[-1].left_out["rank"] < 1e-6


def test_a_low_rank_change_comes_back_exactly() -> None:
    """What LoRA made is found again in the full weights that it was merged into."""
    lora = make("gpt2", "lora", "family")
    full = make("gpt2", "full", "family")
    merged = lora.tuned.merge()
    state = dict(merged.backbone.named_parameters()) | {f"head.{n}": p for n, p in merged.head.named_parameters()}
    full.tuned.load_state_dict(state)
    found = extract(full, 3)
    assert found.kept == pytest.approx(1) and found.layers == 12
    np.testing.assert_allclose(found.adapter.logits(TEXTS), lora.logits(TEXTS), atol=1e-4, rtol=1e-4)
    settings = found.adapter.header.settings
    assert (settings["targets"], settings["blocks"]) == ("all", None)


def test_the_rank_of_a_lora_comes_down() -> None:
    adapter = make("bert", "lora-scratch")
    same, less = extract(adapter, 3), extract(adapter, 1)
    assert same.kept == pytest.approx(1) and not same.left_out.get("norms")
    np.testing.assert_allclose(same.adapter.logits(TEXTS), adapter.logits(TEXTS), atol=1e-4)
    assert less.rank == 1 and 0 < less.left_out["rank"] == pytest.approx(1 - less.kept)


def test_nothing_to_extract() -> None:
    with pytest.raises(UsageError, match="changed by this head-only adapter"):
        extract(make("bert", "head-only"), 4)
    with pytest.raises(UsageError, match="--rank 0"):
        extract(make("bert", "full"), 0)
    idle = make("bert", "lora-scratch")
    factors = [parameter for name, parameter in idle.tuned.trainable().items() if "lora_B" in name]
    with torch.no_grad():
        for b in factors:
            b.zero_()
    with pytest.raises(UsageError, match="changed by this lora-scratch adapter"):
        extract(idle, 4)
    with torch.no_grad():
        factors[0][0, 0] = 1.0
    found = extract(idle, 4)
    assert len(factors) == 18 and found.layers == 1 and found.kept == pytest.approx(1)


def test_one_on_another_base_is_refused(tmp_path: Path) -> None:
    """The result would carry the digest of a base that it was never trained on."""
    make("bert", "lora").save(tmp_path / "a")
    with pytest.raises(UsageError, match=r"trained on the base tiny-bert .* Load it on its own base"):
        extract(load_adapter(tmp_path / "a", tiny_base("bert", 4), base_check="off"), 2)
