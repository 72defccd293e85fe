"""A side in a process of its own: it answers with seconds, is told apart from noise, and ends with the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_process import OwnProcess
from paired import REPOSITORY, Timing

BENCHMARKS = REPOSITORY / "benchmarks"

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from own_process import answer
from paired import Timing
class Side:
    timing, runs = None, 0
    def __call__(self):
        print("what a library prints")
        self.runs += 1
        if self.runs == 3:
            sys.exit("There is no more paper.")
        self.timing = Timing(self.runs / 4, self.runs / 8, 2, 4)
        return self.timing.seconds
if sys.argv[2] == "broken":
    sys.exit("There is no ink.")
answer(Side())
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "side.py").write_text(SCRIPT)
    return tmp_path / "side.py"


def arguments(*more: str) -> list[str]:
    return [str(BENCHMARKS), *more]


def test_it_runs_at_every_call_and_ends(script: Path) -> None:
    with OwnProcess(script, arguments("works")) as side:
        assert side() == 0.25 and side.timing == Timing(0.25, 0.125, 2, 4)
        assert side() == 0.5 and side.timing == Timing(0.5, 0.25, 2, 4)  # the same process
        with pytest.raises(RuntimeError, match=r"ended with 1: (?s:.*)There is no more paper"):
            side()
    with pytest.raises(RuntimeError, match=r"side.py .* broken ended with 1: There is no ink"):
        OwnProcess(script, arguments("broken")).__enter__()
    with OwnProcess(script, arguments("works")) as side:
        assert side._child.poll() is None
    assert side._child.returncode is not None


def test_a_job_runs_in_one(tmp_path: Path) -> None:
    """What the benchmark starts for every side, on tiny bases."""
    flags = ["--side=lora-fp32/ours", "--quick", f"--gpt2={tmp_path}"]
    with OwnProcess(BENCHMARKS / "speed_training.py", flags) as side:
        assert side() > 0 and side.timing is not None and side.timing.complete
