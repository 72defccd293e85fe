"""Random numbers of a seed: on the CPU and on the device, and the caller's own stay what they are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lora_clf.base.generator import GENERATOR, seeded


def test_numbers_follow_the_seed_and_the_callers_stay() -> None:
    found = []
    for seed in (3, 3, 4):
        torch.rand(len(found) + 1)
        before = torch.get_rng_state()
        with seeded(seed, torch.device("cpu")):
            assert GENERATOR.locked()
            found.append(torch.rand(4))
        assert torch.equal(torch.get_rng_state(), before) and not GENERATOR.locked()
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_devices_generator_is_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And given back: what its owner draws behind it is what would have come."""
    given: list[object] = []
    made = SimpleNamespace(manual_seed=given.append, get_rng_state=lambda: "before", set_rng_state=given.append)
    monkeypatch.setattr(torch, "get_device_module", lambda device: made)
    with seeded(7, torch.device("mps")):
        assert given == [7]
    assert given == [7, "before"]
    with pytest.raises(KeyError), seeded(8, torch.device("mps")):
        raise KeyError
    assert given == [7, "before", 8, "before"]
