"""Gradients are scaled down to the largest norm, as PyTorch's own function does it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_clf.training.loop import train
from lora_clf.training.run import Run
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import toy

SETTINGS = TrainSettings(epochs=3, batch_size=8, lr=3e-3, precision="fp32", seed=1)


def trained(strategy: str, clip: float, norms: list[float] | None = None) -> dict[str, Tensor]:
    """The weights after some steps; ``norms`` takes those of the gradients as the optimizer had left them."""
    real: Any = Run._move

    def seen(run: Run) -> bool:
        moved: bool = real(run)
        if norms is not None:
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])))
        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_move", seen)
        found = train(tiny_base("gpt2"), toy(), create(strategy), replace(SETTINGS, clip=clip))
    return found.adapter.tuned.state_dict()


def by_pytorch(run: Run) -> None:
    torch.nn.utils.clip_grad_norm_(run.parameters, run.settings.clip)


@pytest.mark.parametrize("strategy", ["last-block", "lora", "bottleneck", "adalora"])
def test_clipped_steps_are_those_of_pytorchs_function(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[float] = []
    trained(strategy, 1e9, plain)
    middle = sorted(plain)[len(plain) // 2]
    norms: list[float] = []
    found = trained(strategy, middle, norms)
    assert len(norms) == len(plain) >= 9 and max(plain) > 1.05 * middle
    assert max(norms) <= middle * 1.0001
    assert 0 < sum(norm < 0.999 * middle for norm in norms) < len(norms)  # some were small enough already
    monkeypatch.setattr(Run, "_clip", by_pytorch)
    expected = trained(strategy, middle)
    monkeypatch.undo()
    never = trained(strategy, 1e9)
    assert found.keys() == expected.keys() and len(found) >= 2
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(never[name], weight, rtol=1e-3, atol=1e-5) for name, weight in expected.items())
