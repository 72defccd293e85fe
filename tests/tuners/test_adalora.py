"""AdaLoRA's per-step update is made, its final rank is the budget, and what is kept is what was pruned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_clf.adapters.adapter import load_adapter
from lora_clf.training.loop import train
from lora_clf.tuners import create
from lora_clf.tuners.adalora import AdaLoRATuned
from tests.bases import tiny_base
from tests.training.test_loop import FAST, toy

LAYERS = 18  # six linear layers in each of three blocks


def ranks_of(tuned: AdaLoRATuned) -> dict[str, int]:
    """How many values each layer still has."""
    ends = ".lora_E"
    return {n.removesuffix(ends): int(p.count_nonzero()) for n, p in tuned.trainable().items() if n.endswith(ends)}


def test_the_final_rank_is_the_budget(tmp_path: Path) -> None:
    base = tiny_base("bert")
    tuner = create("adalora", rank=2, initial_rank=5, prune_until=0.7)
    result = train(base, toy(), tuner, replace(FAST, epochs=5))
    tuned = result.adapter.tuned
    assert isinstance(tuned, AdaLoRATuned)
    ranks = ranks_of(tuned)
    assert len(ranks) == LAYERS and sum(ranks.values()) == 2 * LAYERS
    assert len(set(ranks.values())) > 1, "the budget goes where it is needed, not to each layer alike"
    # Of five epochs the fourth is the first that has the final rank at its end: earlier ones are not kept.
    assert result.best_epoch >= 4
    result.save(tmp_path / "pruned")
    loaded = load_adapter(tmp_path / "pruned", base, verify=True).tuned
    assert isinstance(loaded, AdaLoRATuned) and ranks_of(loaded) == ranks
    merged = tuned.merge()
    for name, rank in ranks.items():
        change = merged.backbone.get_submodule(name).weight - base.backbone.get_submodule(name).weight  # type: ignore[operator]
        assert int(torch.linalg.matrix_rank(change.detach().double(), rtol=1e-4)) <= rank
        assert rank == 0 or float(change.abs().max()) > 0


def test_the_rank_goes_down_along_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, bool]] = []
    after = AdaLoRATuned.after_step

    def noted(self: AdaLoRATuned, step: int, total_steps: int) -> None:
        after(self, step, total_steps)
        seen.append((step, sum(ranks_of(self).values()), self.settled))

    monkeypatch.setattr(AdaLoRATuned, "after_step", noted)
    train(tiny_base("bert"), toy(), create("adalora", rank=2, initial_rank=4), replace(FAST, epochs=4))
    assert [step for step, _, _ in seen] == list(range(1, 25))
    ranks = [rank for _, rank, _ in seen]
    assert ranks[0] >= 4 * LAYERS - 1 and ranks[-1] == 2 * LAYERS
    # Importance moves, so single steps may let a value back in; the schedule is what the budget follows.
    assert ranks[2] > ranks[8] > ranks[13]
    assert [settled for _, _, settled in seen] == [step >= 14 for step in range(1, 25)]
    assert set(ranks[13:]) == {2 * LAYERS}


@pytest.mark.parametrize(("batch", "epochs", "accumulate"), [(48, 1, 1), (24, 1, 1), (24, 1, 2), (48, 3, 1)])
@pytest.mark.parametrize("rank", [2, 4])
def test_a_run_of_few_steps_ends_with_its_budget(batch: int, epochs: int, accumulate: int, rank: int) -> None:
    data = toy()
    assert len(data.train) == 48
    settings = replace(FAST, epochs=epochs, batch_size=batch, accumulate=accumulate)
    tuned = train(tiny_base("bert"), data, create("adalora", rank=rank, initial_rank=4), settings).adapter.tuned
    assert isinstance(tuned, AdaLoRATuned)
    assert sum(ranks_of(tuned).values()) == rank * LAYERS


def test_without_anything_to_prune_the_first_epoch_may_be_the_best() -> None:
    data = toy()
    turned = tuple("c0" if label == "c1" else "c1" for label in data.validation.labels)
    data = replace(data, validation=replace(data.validation, labels=turned))  # so that what is learned makes it worse
    for rank, first in ((3, True), (2, False)):
        tuner = create("adalora", rank=rank, initial_rank=3)
        result = train(tiny_base("bert"), data, tuner, replace(FAST, epochs=5, lr=0.03))
        losses = [entry["validation"]["loss"] for entry in result.history]
        assert losses[0] == min(losses) and (result.best_epoch == 1) == first


def test_a_step_that_moved_nothing_does_not_leave_the_budget_open() -> None:
    tuned = create("adalora", rank=2, initial_rank=4).prepare(tiny_base("bert").view(2))
    assert isinstance(tuned, AdaLoRATuned)
    random = torch.Generator().manual_seed(0)
    for step in (1, 2, 4, 5):  # of five; the third, which is to end the pruning, is left out
        for parameter in tuned.trainable().values():
            parameter.grad = torch.randn(parameter.shape, generator=random)
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
        tuned.after_step(step, 5)
        assert tuned.settled == (step > 3)
    assert sum(ranks_of(tuned).values()) == 2 * LAYERS


def test_the_penalty_is_zero_for_orthogonal_factors_and_only_there() -> None:
    tuned = create("adalora", rank=2, initial_rank=4, orthogonality=0.3).prepare(tiny_base("bert").view(2))
    random = tuned.penalty()
    assert random is not None and float(random.detach()) > 0.1
    with torch.no_grad():
        for name, factor in tuned.trainable().items():
            if name.endswith((".lora_A", ".lora_B")):
                factor.copy_(torch.eye(*factor.shape))
    assert float(tuned.penalty().detach()) < 1e-6  # type: ignore[union-attr]
    assert create("adalora", orthogonality=0.0).prepare(tiny_base("bert").view(2)).penalty() is None
