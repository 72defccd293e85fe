"""What a number may depend on beside base, data and settings: versions, machine, threads, code."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.plan import digest_of

if TYPE_CHECKING:
    import torch

    from lora_clf.base.base import Base


def environment(base: Base) -> dict[str, Any]:
    """Versions, instruction set, threads. Nothing that names a host."""
    return machine_facts(base.device)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """The `environment` of any base on ``device``."""
    import platform
    from importlib.metadata import version

    import torch

    names = ("torch", "transformers", "peft", "tokenizers", "numpy", "scikit-learn")
    machine = {
        "system": platform.system(),
        "processor": platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "machine": machine,
    }


def environment_digest(base: Base, precision: str) -> str:
    """SHA-256 of all that makes a result of before another one than a result of now.

    Args:
        base: its device counts.
        precision: as in `TrainSettings`; what it means on that device counts.
    """
    from lora_clf.inference.precision import resolve_precision

    return digest_of(
        {**environment(base), "precision": resolve_precision(precision, base.device), "code": code_digest()}
    )


PACKAGE = Path(__file__).resolve().parents[1]


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over all Python files of this package, by name and content: changed code reuses no old result."""
    root = PACKAGE
    found = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes()
        found.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()
