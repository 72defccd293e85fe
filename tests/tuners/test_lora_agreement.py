"""The hand-written LoRA and peft's are the same function with the same gradients and trajectories."""

from __future__ import annotations

import pytest
import torch

from lora_clf.base.base import Base
from lora_clf.tuners import create
from lora_clf.tuners.base import Tuned
from tests.bases import batch, randomise, tiny_base

NAMES = ("gpt2", "bert")


def pair(base: Base, **settings: object) -> tuple[Tuned, Tuned]:
    """The same adapter through both engines."""
    options = {"rank": 4, "alpha": 6.0, **settings}
    return tuple(create(name, **options).prepare(base.view(2, seed=5)) for name in ("lora", "lora-scratch"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", NAMES)
def test_same_initial_weights_logits_and_gradients(name: str) -> None:
    theirs, ours = pair(tiny_base(name))
    initial = theirs.state_dict()
    assert initial.keys() == ours.state_dict().keys() and len(initial) > 10
    assert all(torch.equal(initial[key], tensor) for key, tensor in ours.state_dict().items())
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    for tuned in (theirs, ours):
        tuned.view.train()
        tuned.view(*batch()).square().sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(ours.view(*batch()), theirs.view(*batch()), rtol=1e-5, atol=1e-6)
    for key, parameter in theirs.trainable().items():
        torch.testing.assert_close(ours.trainable()[key].grad, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_same_losses_over_ten_steps(name: str, dtype: torch.dtype, tolerance: float) -> None:
    labels = torch.tensor([0, 1, 0, 1])
    runs = []
    for tuned in pair(tiny_base(name)):
        tuned.view.to(dtype).train()
        optimizer = torch.optim.AdamW(list(tuned.trainable().values()), lr=1e-3)
        losses = []
        for step in range(10):
            ids, mask = batch(step)
            with torch.autocast("cpu", enabled=False):
                hidden = tuned.view.hidden(ids, mask)
                logits = tuned.view.head(tuned.view.pooled(hidden, mask))
            loss = torch.nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        runs.append(torch.tensor(losses, dtype=torch.float64))
    assert runs[0].std() > 1e-4
    torch.testing.assert_close(runs[0], runs[1], rtol=tolerance, atol=tolerance)


def test_each_loads_the_others_state() -> None:
    base = tiny_base("gpt2")
    theirs, ours = pair(base)
    randomise(theirs, seed=1)
    randomise(ours, seed=2)
    swapped_theirs, swapped_ours = pair(base)
    swapped_theirs.load_state_dict(ours.state_dict())
    swapped_ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(swapped_theirs.view(*batch()), ours.view(*batch()), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(swapped_ours.view(*batch()), theirs.view(*batch()), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(theirs.view(*batch()), ours.view(*batch()))


def test_the_scratch_layer_takes_the_base_weight_and_draws_no_random_number() -> None:
    base = tiny_base("gpt2")
    before = torch.get_rng_state()
    tuned = create("lora-scratch").prepare(base.view(2))
    assert torch.equal(before, torch.get_rng_state())
    name = "h.1.attn.c_attn"
    mine, theirs = tuned.view.backbone.get_submodule(name), base.backbone.get_submodule(name)
    assert mine.weight.data_ptr() == theirs.weight.data_ptr()
    assert mine.bias.data_ptr() == theirs.bias.data_ptr()
