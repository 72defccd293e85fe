"""How much memory this process used at its peak.

``ru_maxrss`` alone would mislead: on Linux a process inherits the high-water mark of the one that started it,
so each child of a large parent would show the parent's. The kernel's own mark of this address space
(``VmHWM``) does not, and it can be set back. Elsewhere ``ru_maxrss`` is what there is, and the parent is kept
small.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lora_clf.inference.heap import resident_bytes

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def current_bytes() -> int:
    """What this process holds in memory now (resident set)."""
    if found := resident_bytes():
        return found
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most that this process held in memory since its start or the last `restart_peak`."""
    if (found := _high_water()) is not None:
        return found
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used) * (1 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB elsewhere


def restart_peak() -> bool:
    """Let the peak start again from what is held now; False where the system cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def give_back() -> None:
    """Let go of what the allocator of a GPU keeps for this process, which others may need."""
    import gc

    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
