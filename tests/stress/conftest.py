"""What the stress tests share: where their counts go."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Counted = Callable[[str, Mapping[str, object]], None]


@pytest.fixture
def counted() -> Counted:
    """Keeps a test's counts under a name in the file that ``STRESS_RESULTS`` names, beside those of other tests.

    `make stress` names benchmarks/results/stress.json. Counts only: no times, nothing of the machine.
    """
    named = os.environ.get("STRESS_RESULTS")

    def keep(name: str, counts: Mapping[str, object]) -> None:
        if named:
            file = Path(named)
            known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            text = json.dumps({**known, name: dict(counts)}, indent=2, sort_keys=True)
            file.write_text(text + "\n", encoding="utf-8")

    return keep
