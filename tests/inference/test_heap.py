"""Blocks of a batch are used again, the largest go back to the system, and so do scraps when they are released."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# A block is freed that makes glibc take later ones of up to its size from its heap; the last of these holds it up.
HELD = """
import torch
from lora_clf.experiment.memory import current_bytes
from lora_clf.inference import heap
{first}
torch.empty(24 << 20, dtype=torch.uint8).fill_(1)
before = current_bytes()
blocks = [torch.empty({size} << 20, dtype=torch.uint8).fill_(1) for _ in range(200 // {size})]
last = blocks.pop()
del blocks
{then}
print(current_bytes() - before)
"""
KEEP, RELEASE = "heap.keep_blocks()", "heap.release()"
LARGE, SMALL = "heap.release(64 << 20)", "heap.release(512 << 20)"
# What was given back is still free, but it is no scrap: what counts is how far the process has grown since.
AGAIN = """
heap.release()
before = current_bytes()
blocks = [torch.empty(2 << 20, dtype=torch.uint8).fill_(1) for _ in range({count})]
del blocks
heap.release(64 << 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
@pytest.mark.parametrize(("first", "size", "then", "environment", "held"), [
    ("", 4, "", {}, True), ("", 20, "", {}, True), (KEEP, 4, "", {}, True), (KEEP, 20, "", {}, False),
    (KEEP, 4, RELEASE, {}, False), (KEEP, 4, LARGE, {}, False), (KEEP, 4, SMALL, {}, True),
    (KEEP, 20, "", {"MALLOC_MMAP_THRESHOLD_": str(32 << 20)}, True),
])  # fmt: skip
def test_freed_memory(first: str, size: int, then: str, environment: dict[str, str], held: bool) -> None:
    left = left_by(first, size, then, environment)
    assert (left > 120 << 20) if held else (left < 32 << 20)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
@pytest.mark.parametrize(("count", "least", "most"), [(20, 36 << 20, 60 << 20), (50, -(32 << 20), 32 << 20)])
def test_few_scraps_are_left_for_the_next_step(count: int, least: int, most: int) -> None:
    assert least < left_by(KEEP, 4, AGAIN.format(count=count), {}) < most


def left_by(first: str, size: int, then: str, environment: dict[str, str]) -> int:
    """The bytes that a process holds at the end above those at ``before``."""
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(first=first, size=size, then=then)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return int(done.stdout)
