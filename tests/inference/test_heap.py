"""Blocks of a batch are used again, the largest go back to the system, and so do scraps when they are released."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# A process that has loaded torch and done nothing runs each program it reads in a copy of itself.
FRESH = """
import os, sys
import torch
from lora_clf.experiment.memory import current_bytes
from lora_clf.inference import heap
for line in sys.stdin:
    copy = os.fork()
    if not copy:
        exec(eval(line))
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(copy, 0)[1]:
        print("it failed", flush=True)
"""
# A block is freed that makes glibc take later ones of up to its size from its heap; the last of these holds it up.
HELD = """
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


@contextmanager
def fresh(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for programs."""
    words, pipe = [sys.executable, "-c", FRESH], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **environment}) as child:
        yield child
        assert child.stdin is not None
        child.stdin.close()


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    with fresh({}) as child:
        yield child


def left_by(process: subprocess.Popen[str], first: str, size: int, then: str) -> int:
    """The bytes that a copy of ``process`` holds at the end above those at ``before``."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(repr(HELD.format(first=first, size=size, then=then)) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
@pytest.mark.parametrize(("first", "size", "then", "environment", "held"), [
    ("", 4, "", {}, True), ("", 20, "", {}, True), (KEEP, 4, "", {}, True), (KEEP, 20, "", {}, False),
    (KEEP, 4, RELEASE, {}, False), (KEEP, 4, LARGE, {}, False), (KEEP, 4, SMALL, {}, True),
    (KEEP, 20, "", {"MALLOC_MMAP_THRESHOLD_": str(32 << 20)}, True),
])  # fmt: skip
def test_freed_memory(first: str, size: int, then: str, environment: dict[str, str], held: bool,
                      process: subprocess.Popen[str]) -> None:  # fmt: skip
    if environment:
        with fresh(environment) as child:
            left = left_by(child, first, size, then)
    else:
        left = left_by(process, first, size, then)
    assert (left > 120 << 20) if held else (left < 32 << 20)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
@pytest.mark.parametrize(("count", "least", "most"), [(20, 36 << 20, 60 << 20), (50, -(32 << 20), 32 << 20)])
def test_few_scraps_are_left_for_the_next_step(
    count: int, least: int, most: int, process: subprocess.Popen[str]
) -> None:
    assert least < left_by(process, KEEP, 4, AGAIN.format(count=count)) < most
