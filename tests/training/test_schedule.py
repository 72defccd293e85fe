"""The rate over a run: up during the warm-up, down in the chosen shape."""

from __future__ import annotations

import itertools

import pytest
import torch

from lora_clf.training.schedule import SCHEDULES, rate_share


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 20, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_it_rises_to_the_peak_and_never_beyond(schedule: str, total: int, warmup: float) -> None:
    shares = [rate_share(schedule, step, total, warmup) for step in range(total)]
    rising = round(warmup * total)
    assert all(0 < share <= 1 for share in shares) and max(shares) == 1.0
    assert all(a < b for a, b in itertools.pairwise(shares[:rising]))
    assert all(a >= b for a, b in itertools.pairwise(shares[max(0, rising - 1) :]))


def test_the_shapes() -> None:
    assert len(SCHEDULES) == 4
    half = {name: rate_share(name, 60, 110, 10 / 110) for name in SCHEDULES}  # fifty of a hundred steps down
    assert half == pytest.approx({"linear": 0.5, "cosine": 0.5, "constant": 1.0, "inverse-sqrt": (10 / 60) ** 0.5})
    quarter = {name: rate_share(name, 35, 110, 10 / 110) for name in ("linear", "cosine")}
    assert quarter["linear"] == 0.75 and quarter["cosine"] == pytest.approx((1 + 0.5**0.5) / 2)


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(40):
        assert rate_share("cosine", step, 40, 0.0) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()
