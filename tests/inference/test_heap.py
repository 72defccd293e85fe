"""What a run frees goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# A block is freed that makes glibc take later ones of up to its size from its heap; the last of these holds it up.
HELD = """
import torch
from lora_clf.comparison.memory import current_bytes
from lora_clf.inference import heap
{call}
torch.empty(16 << 20, dtype=torch.uint8).fill_(1)
before = current_bytes()
blocks = [torch.empty(4 << 20, dtype=torch.uint8).fill_(1) for _ in range(50)]
last = blocks.pop()
del blocks
print(current_bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
@pytest.mark.parametrize(("call", "environment", "held"), [
    ("", {}, True), ("heap.keep_small()", {}, False), ("heap.release()", {}, True),
    ("heap.keep_small()", {"MALLOC_MMAP_THRESHOLD_": str(32 << 20)}, True),
])  # fmt: skip
def test_freed_memory_goes_back(call: str, environment: dict[str, str], held: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    left = int(done.stdout)
    assert (left > 150 << 20) if held else (left < 16 << 20)
