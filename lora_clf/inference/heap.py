"""The heap of this process: blocks of a batch are used again for the next, and what has become scraps goes back.

Every batch has another shape, and what one leaves behind rarely fits the next. By its own rule glibc takes ever larger
blocks from its heap instead of from the system once one such block was freed (``mallopt(3)``, M_MMAP_THRESHOLD), so a
training run would hold some times what it needs. If on the other hand each block comes from the system, as at the
threshold that glibc begins with, every page of it is mapped anew in every step, which takes a large part of a training
run's time: gradients of a large layer, too. So only the largest come from there, and where a few steps left the process
much larger, the free parts of the heap are given back. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
_TRIM_BYTES = 64 << 20  # free at the top of the heap before it shrinks
_MAP_BYTES = 16 << 20  # from which on a block comes from the system and goes back to it
RELEASED_STEPS = 25  # training steps after which freed memory is given back
SCRAP_BYTES = 64 << 20  # where the process has grown by fewer, the next step takes most of them again
_least = 0  # bytes that the process held when memory was given back the last time, or fewer where it held fewer since
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_blocks() -> None:
    """Let glibc use blocks again up to a size; who set thresholds in the environment keeps them."""
    if sys.platform == "linux" and not any(name in os.environ for name in _SET_BY_USER):
        with suppress(AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(_TRIM, _TRIM_BYTES)
            library.mallopt(_MAP, _MAP_BYTES)


def release(scraps: int = 0) -> None:
    """Give back now what is free anywhere in the heap, if the process grew by ``scraps`` bytes since the last time."""
    global _least
    if sys.platform != "linux":
        return
    now = resident_bytes()
    _least = min(_least, now)
    if now - _least < scraps:
        return
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    _least = resident_bytes()


def resident_bytes() -> int:
    """Bytes that this process holds in memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
