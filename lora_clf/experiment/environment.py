"""What a number may depend on beside base, data and settings: versions, machine, threads, code."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lora_clf.base.source import PACKAGE, source_of
from lora_clf.comparison.plan import digest_of

if TYPE_CHECKING:
    import torch

    from lora_clf.base.base import Base


def environment(base: Base, threads: int | None = None) -> dict[str, Any]:
    """Versions, instruction set, threads. Nothing that names a host.

    Args:
        base: its device counts.
        threads: of the processes that do the work, where they are others than this one's.
    """
    return machine_facts(base.device, threads)


def machine_facts(device: torch.device, threads: int | None = None) -> dict[str, Any]:
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
        "threads": threads or torch.get_num_threads(),
        "device": device.type,
    }
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "machine": machine,
    }


def environment_digest(base: Base, precision: str, threads: int | None = None) -> str:
    """SHA-256 of all that makes a result of before another one than a result of now.

    Args:
        base: its device counts.
        precision: as in `TrainSettings`; what it means on that device counts.
        threads: of the processes that do the work, where they are others than this one's.
    """
    from lora_clf.inference.precision import resolve_precision

    return digest_of(
        {**environment(base, threads), "precision": resolve_precision(precision, base.device), "code": code_digest()}
    )


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over all Python files of this package, by name and content: changed code reuses no old result."""
    return hashlib.sha256(source_of(sorted(PACKAGE.rglob("*.py")), PACKAGE)).hexdigest()


def provenance(base: Base, precision: str, jobs: int = 1) -> dict[str, Any]:
    """Which code ran and how: version, digest of the code, git commit where there is one, precision, processes."""
    from lora_clf import __version__
    from lora_clf.inference.precision import resolve_precision

    commit = _git("rev-parse", "HEAD")
    return {
        "lora_clf": __version__,
        "code_digest": code_digest(),
        "git_commit": commit,
        "changed_since_commit": None if commit is None else bool(_git("status", "--porcelain", "--", PACKAGE.name)),
        "precision": resolve_precision(precision, base.device),
        "jobs": jobs,
    }


def _git(*words: str) -> str | None:
    """What git says in the checkout that this package is part of; None where it is none, or there is no git."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        ran = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None
