"""`kill -9` at random moments and at every system call of a save: the small version of `benchmarks/kills.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pickles import search_path
from tests.stress.conftest import Counted

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux", reason="system calls are counted by ways of Linux"),
]


def killed(out: Path, *flags: str) -> Any:
    """What the benchmark found; a process of its own, since what it forks from must not have trained."""
    words = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--out", str(out), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path(ROOT)}
    ran = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(out.read_text(encoding="utf-8"))


def test_at_every_call_of_a_save_the_old_or_the_new_one_is_left(tmp_path: Path, counted: Counted) -> None:
    found = killed(tmp_path / "kills.json", "--sides", "ours", "--ways", "calls")["calls/ours"]
    assert len(found) == 5
    for name, save in found.items():
        assert save["left"]["neither"] == 0, name
        assert save["calls"] == save["left"]["old"] + save["left"]["new"] >= 10 and save["left"]["new"] >= 1, name
        assert save.get("end_with_equal_bytes", True) and save.get("gone_on_from", ["new", "old"]) == ["new", "old"]
    counted("kills at every call of a save", {name: save["left"] for name, save in found.items()})


def test_at_random_moments_every_run_ends_with_the_same_bytes(tmp_path: Path, counted: Counted) -> None:
    found = killed(tmp_path / "kills.json", "--sides", "ours", "--ways", "random", "--kills", "60")["random/ours"]
    assert found["kills"] == 60 and found["runs"] >= len(found["strategies"]) >= 5
    assert found["equal_bytes"] == found["runs"]
    assert found["other_bytes"] == found["could_not_go_on"] == found["newest_not_whole"] == 0
    counted("kills at random moments", {name: found[name] for name in ("kills", "runs", "equal_bytes")})
