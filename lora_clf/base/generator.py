"""The program's one random generator, which threads share: who draws from it or seeds it holds the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

GENERATOR = Lock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of ``seed`` on the CPU and on ``device``, whatever was drawn before; the lock is held."""
    with GENERATOR, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # torch.manual_seed would note down the stack every time, for devices that are not in use.
        torch.default_generator.manual_seed(seed)
        if device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            getattr(module, "manual_seed_all", module.manual_seed)(seed)
        yield
