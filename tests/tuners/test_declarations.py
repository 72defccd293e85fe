"""The opposite of every claim: strategies that are not mergeable, not the identity, that have hooks or modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_clf.base.view import View
from lora_clf.errors import NotMergeableError, UsageError
from lora_clf.inference.prefix import NOTHING, find_cut
from lora_clf.inference.runner import Runner
from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuned, Tuner
from tests.bases import batch, randomise, tiny_base
from tests.training.test_loop import FAST, toy


class _Shift(nn.Module):
    """A block that adds a trained vector to what enters it."""

    def __init__(self, block: nn.Module, width: int) -> None:
        super().__init__()
        self.block = block
        self.shift = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor, *more: object, **extra: object) -> Tensor:
        answer: Tensor = self.block(hidden + self.shift, *more, **extra)
        return answer


@dataclass(frozen=True)
class InputShift(Tuner):
    """Neither the identity at first, nor mergeable, and it changes what enters the blocks."""

    name: ClassVar[str] = "input-shift"
    summary: ClassVar[str] = "a vector in front of the first block"
    learning_rate: ClassVar[float] = 1e-3
    identity_at_init: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False
    changes_inputs: ClassVar[bool] = True

    def prepare(self, view: View) -> Tuned:
        """Wrap the first block."""
        view.blocks[0] = _Shift(view.blocks[0], view.config.hidden_size)
        return Tuned(self, view)


class _Hooked(Tuned):
    """Counts its hooks and looks at the gradients."""

    penalties = 0
    seen: list[tuple[int, int, bool]]

    def penalty(self) -> Tensor:
        """A pull of the head to zero."""
        self.penalties += 1
        return sum((p.square().sum() for p in self.view.head.parameters()), torch.zeros(()))

    def after_step(self, step: int, total_steps: int) -> None:
        """Remember the step, and whether its gradients were there."""
        self.seen = [*getattr(self, "seen", []), (step, total_steps, self.view.head_parameters()[0].grad is not None)]


@dataclass(frozen=True)
class Hooked(Tuner):
    """Head-only with every hook."""

    name: ClassVar[str] = "hooked"
    summary: ClassVar[str] = "the head, with hooks"
    learning_rate: ClassVar[float] = 1e-2
    made: ClassVar[list[_Hooked]] = []

    def prepare(self, view: View) -> Tuned:
        """Count."""
        self.made.append(_Hooked(self, view))
        return self.made[-1]


def test_every_real_strategy_has_declared_itself() -> None:
    for kind in strategies().values():
        assert kind.summary and kind.learning_rate > 0 and isinstance(kind.identity_at_init, bool)


def test_the_opposite_claims_hold_too() -> None:
    base = tiny_base("bert")
    tuned = InputShift().prepare(base.view(2))
    with torch.no_grad():
        assert not torch.equal(tuned.view(*batch()), base.view(2)(*batch()))
    with pytest.raises(NotMergeableError, match="input-shift"):
        tuned.merge()
    assert find_cut(tuned.view, changes_inputs=tuned.tuner.changes_inputs) == NOTHING
    result = train(base, toy(), InputShift(), FAST)
    assert result.prefix_seconds == 0
    assert not torch.equal(result.adapter.tuned.state_dict()["encoder.layer.0.shift"], torch.ones(32))
    with pytest.raises(UsageError, match=r"'input-shift' is not part of lora_clf\.tuners"):
        result.save("never-written")


def test_hooks_are_called_and_nothing_is_solved_past_them() -> None:
    Hooked.made.clear()
    data, base = toy(), tiny_base("bert")
    free = replace(FAST, epochs=2, lr=None)  # without a rate of its own a head alone is solved for
    result = train(base, data, Hooked(), free)
    run = Hooked.made[0]
    assert run.penalties == 12 and run.seen == [(step, 12, True) for step in range(1, 13)]
    assert "solver" not in result.adapter.header.training
    assert "solver" in train(base, data, create("head-only"), free).adapter.header.training
    plain = train(tiny_base("bert"), data, create("head-only"), replace(FAST, epochs=2))
    sizes = [float(r.adapter.tuned.state_dict()["head.linear.weight"].norm()) for r in (result, plain)]
    assert sizes[0] < sizes[1]  # The penalty was in the loss.


class _Drawing(Tuned):
    """Draws in both of its hooks."""

    drawn: ClassVar[list[float]] = []

    def penalty(self) -> Tensor:
        """Weights of the head, each drawn anew."""
        weight = self.view.head_parameters()[0]
        return (weight * torch.rand_like(weight)).sum()

    def after_step(self, step: int, total_steps: int) -> None:
        """Remember a number."""
        self.drawn.append(float(torch.rand(())))


def test_what_hooks_draw_depends_on_seed_and_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hooked, "prepare", lambda self, view: _Drawing(self, view))
    found, drawn = [], []
    for seed in (1, 1, 2):
        base = tiny_base("bert")
        torch.rand(len(found) + 1)  # what was drawn before must not matter
        before = torch.get_rng_state()
        _Drawing.drawn.clear()
        result = train(base, toy(), Hooked(), replace(FAST, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)  # nor are the caller's numbers taken
        found.append(result.adapter.tuned.state_dict()["head.linear.weight"])
        drawn.append(tuple(_Drawing.drawn))
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 12
    assert torch.equal(found[0], found[1])


def test_a_module_beside_backbone_and_head_is_not_cut_away() -> None:
    tuned = create("head-only").prepare(tiny_base("bert").view(2))
    assert find_cut(tuned.view).pooled
    tuned.view.extra = nn.Linear(32, 32)
    assert not find_cut(tuned.view).pooled


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("lora", {"rank": "8"}, r"rank='8', expected int"),
        ("lora", {"targets": ["query"]}, r"targets=\['query'\], expected str"),
        ("lora", {"rank": True, "alpha": "x"}, r"rank=True, expected int; alpha='x', expected float"),
        ("last-block", {"blocks": 1.5}, r"blocks=1.5, expected int"),
    ],
)
def test_settings_of_another_type_are_refused(strategy: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(strategy, **settings)


def test_training_settings_of_another_type_are_refused() -> None:
    with pytest.raises(UsageError, match=r"epochs=2.5, expected int; lr='1e-3', expected float \| None; seed=None"):
        TrainSettings(epochs=2.5, lr="1e-3", seed=None)  # type: ignore[arg-type]
    base = tiny_base("bert")
    with pytest.raises(UsageError, match=r"takes a base from load_base\(\), got 'minilm'"):
        train("minilm", toy(), create("full"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"takes a strategy such as LoRA"):
        train(base, toy(), type(create("full")))  # type: ignore[arg-type]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What the optimizer moved by at each step: rates, decays, the norm of the gradients."""
    steps: list[dict[str, object]] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: object) -> object:
        found = real(self, *arguments)
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        steps.append(
            {
                "rate": self.param_groups[0]["lr"],
                "decay": [group["weight_decay"] for group in self.param_groups],
                "norm": float(torch.cat([g.flatten() for g in gradients if g is not None]).norm()),
            }
        )
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    yield steps


def test_the_optimizer_gets_the_schedule_the_decay_and_clipped_gradients(recorded: list[dict[str, float]]) -> None:
    settings = replace(FAST, lr=0.01, weight_decay=0.05, clip=0.02, warmup=0.25, epochs=2)
    train(tiny_base("bert"), toy(), create("last-block"), settings)
    assert len(recorded) == 12
    rates = [step["rate"] for step in recorded]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[3:] == pytest.approx([0.01 * (12 - step) / 9 for step in range(3, 12)])
    assert all(step["decay"] == [0.05, 0.0] for step in recorded)
    assert [step["norm"] for step in recorded] == pytest.approx([0.02] * 12, rel=1e-3)


def test_gradients_are_left_alone_without_clipping(recorded: list[dict[str, float]]) -> None:
    train(tiny_base("bert"), toy(), create("last-block"), replace(FAST, clip=0.0))
    assert max(step["norm"] for step in recorded) > 0.02


def test_training_runs_the_kernel_that_the_rule_chose() -> None:
    base = tiny_base("bert")
    tokens = base.encode(["hello there", "you"])
    runner = Runner(base, create("full").prepare(base.view(2)), "fp32", {"train": tokens})
    kernels = []
    for training in (True, False):
        runner.logits("train", np.array([0, 1]), training=training)
        kernels.append(runner.view.config._attn_implementation)
    assert kernels == ["eager", "sdpa"]


def test_what_has_no_effect_and_what_was_cut_is_said() -> None:
    settings = TrainSettings(epochs=9, batch_size=4, max_length=5, precision="fp32")
    result = train(tiny_base("bert"), toy(), create("head-only"), settings)
    assert any("--epochs, --batch-size had no effect" in warning for warning in result.warnings)
    assert any("train texts were longer" in warning for warning in result.warnings)
    recipe = result.adapter.header.training
    assert set(recipe) == {"solver", "l2", "precision", "seed"}


def test_a_prefix_that_is_too_large_is_not_kept() -> None:
    from lora_clf.inference.cache import prefix_cache

    base = tiny_base("bert")
    prefix_cache(base).budget = 1000
    result = train(base, toy(), create("last-block"), FAST)
    assert any("computed again in every epoch" in warning for warning in result.warnings)
    assert result.prefix_seconds == 0 and len(prefix_cache(base)) == 0


def test_randomised_means_moved() -> None:
    tuned = create("lora").prepare(tiny_base("bert").view(2))
    before = tuned.state_dict()
    randomise(tuned)
    assert not any(torch.equal(before[name], tensor) for name, tensor in tuned.state_dict().items())
