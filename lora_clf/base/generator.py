"""The program's one random generator, which threads share: who draws from it or seeds it holds the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

GENERATOR = Lock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of ``seed`` on the CPU and on ``device``, whatever was drawn before; the lock is held.

    What the two would have drawn without it they draw behind it; other devices are left alone.
    """
    with GENERATOR, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # torch.manual_seed would note down the stack every time, for devices that are not in use.
        torch.default_generator.manual_seed(seed)
        if device.type in ("cpu", "meta"):
            yield
        elif device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
            yield
        else:  # which fork_rng does not know
            module = torch.get_device_module(device)
            before = module.get_rng_state()
            module.manual_seed(seed)
            try:
                yield
            finally:
                module.set_rng_state(before)
