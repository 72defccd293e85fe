"""Layer-wise decay: what is deeper learns more slowly, whatever the strategy calls its parameters."""

from __future__ import annotations

from typing import Any

import pytest

from lora_clf.training.layer_decay import decayed
from lora_clf.training.loop import train
from lora_clf.training.run import Run
from lora_clf.training.settings import TrainSettings
from lora_clf.training.snapshot import Best
from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuned
from tests.bases import ARCHITECTURE_NAMES, BLOCKS, tiny_base
from tests.training.test_loop import toy


def rates(tuned: Tuned, decay: float = 0.5) -> dict[str, float]:
    """The rate of each parameter, by its name."""
    groups = decayed(tuned.parameter_groups(1.0, 0.01), tuned.view, decay)
    names = {id(parameter): name for name, parameter in tuned.trainable().items()}
    found = [(names[id(p)], float(group["lr"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found)) == len(tuned.trainable())
    return dict(found)


def block_of(name: str, tuned: Tuned) -> int | None:
    prefix = f"{tuned.view.architecture.blocks}."
    return int(name.removeprefix(prefix).split(".")[0]) if name.startswith(prefix) else None


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_each_block_at_its_depth(architecture: str) -> None:
    tuned = create("full").prepare(tiny_base(architecture).view(2))
    found = rates(tuned)
    seen = set()
    for name, rate in found.items():
        block = block_of(name, tuned)
        if block is not None:
            assert rate == 0.5 ** (BLOCKS - block), name
        elif name.startswith("head.") or "final" in name or name.startswith(("ln_f", "norm.", "pooler")):
            assert rate == 1.0, name
        else:
            assert rate == 0.5 ** (BLOCKS + 1), name
        seen.add(rate)
    assert len(seen) == BLOCKS + 2


@pytest.mark.parametrize("strategy", list(strategies()))
def test_every_strategy_by_its_depth(strategy: str) -> None:
    tuned = create(strategy).prepare(tiny_base("bert").view(2))
    found = rates(tuned)
    for name, rate in found.items():
        block = block_of(name, tuned)
        below = 0.0 if name.startswith("head.") else BLOCKS + 1
        expected = 0.5 ** (below if block is None else BLOCKS - block)
        assert rate == expected, name
    deep = [name for name in found if not name.startswith("head.")]
    assert bool(deep) == (strategy != "head-only")


def test_groups_keep_what_else_they_say_and_one_changes_nothing() -> None:
    tuned = create("ia3").prepare(tiny_base("gpt2").view(2))
    groups = tuned.parameter_groups(0.02, 0.3)
    assert decayed(groups, tuned.view, 1) is groups
    cut = decayed(groups, tuned.view, 0.9)
    assert {group["weight_decay"] for group in cut} == {0.0, 0.3} and len(cut) == len(groups) + BLOCKS - 1


@pytest.mark.parametrize(
    ("base", "strategy", "flags", "expected"),
    [("bert", "lora", {"blocks": 2}, {1.0, 0.5, 0.25}), ("gpt2", "last-block", {}, {1.0, 0.5})],
)
def test_a_base_frozen_in_part_keeps_its_depths(
    base: str, strategy: str, flags: dict[str, Any], expected: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks below the cut are taken out of the view for a run; those above stay where they were."""
    seen: list[float] = []
    real = Run.fit

    def fit(run: Run) -> Best:
        seen.extend(run.peaks)
        return real(run)

    monkeypatch.setattr(Run, "fit", fit)
    settings = TrainSettings(epochs=1, lr=1.0, layer_decay=0.5, precision="fp32", warmup=1.0)
    train(tiny_base(base), toy(), create(strategy, **flags), settings)
    assert set(seen) == expected


def test_it_says_where_it_makes_no_difference() -> None:
    settings = TrainSettings(epochs=1, lr=1e-2, layer_decay=0.5, precision="fp32")
    result = train(tiny_base("bert"), toy(), create("head-only"), settings)
    assert any("at one depth" in warning for warning in result.warnings)
    result = train(tiny_base("bert"), toy(), create("lora"), settings)
    assert not any("depth" in warning for warning in result.warnings)
    assert result.adapter.header.training["layer_decay"] == 0.5
