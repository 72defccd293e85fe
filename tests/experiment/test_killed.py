"""A comparison that is killed at random moments and started again ends with the results of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.test_curve import strip

KILLS = 3
PATIENCE = 900  # seconds for one start, on a busy machine


def command(base: Path, table: Path, out: Path) -> list[str]:
    """The command line of a comparison with everything in it that is kept: cells, a curve's runs, adapters."""
    flags = (
        f"--base {base} --device cpu --strategies head-only,lora-scratch --seeds 2 --epochs 2 --batch-size 8 "
        f"--precision fp32 --curve 4,8 --draws 3 --save-adapters --jobs 2 --out {out}"
    )
    return [sys.executable, "-m", "lora_clf", "compare", str(table), *flags.split()]


def start(words: list[str], errors: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LORA_CLF_CACHE_SIZE": "1GB"}
    with errors.open("wb") as sink:
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=sink, env=environment, start_new_session=True)


def children_of(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def results(out: Path) -> Any:
    return strip(json.loads((out / "results.json").read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_three_times_and_started_again(
    base_folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(5)
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache-whole"))
    whole = start(command(base_folder, table, tmp_path / "whole"), tmp_path / "whole.log")
    begin = time.monotonic()
    assert whole.wait(PATIENCE) == 0, (tmp_path / "whole.log").read_text()
    lasted = time.monotonic() - begin

    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache-killed"))
    out, log = tmp_path / "killed", tmp_path / "killed.log"
    had: list[int] = []
    for number in range(KILLS):
        run = start(command(base_folder, table, out), log)
        until = time.monotonic() + draw.uniform(0.2, 0.8) * lasted
        while time.monotonic() < until and run.poll() is None:
            time.sleep(0.02)
        if run.poll() is not None:  # it came to its end: what was kept made it that fast
            assert run.returncode == 0, log.read_text()
            continue
        below = children_of(run.pid)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        until = time.monotonic() + 60
        while any(alive(pid) for pid in below) and time.monotonic() < until:
            time.sleep(0.05)
        assert not [pid for pid in below if alive(pid)], f"kill {number}: children went on without their parent"
        had.append(len(list((out / "cells").glob("*/result.json"))))
    assert had and had == sorted(had)

    last = start(command(base_folder, table, out), log)
    assert last.wait(PATIENCE) == 0, log.read_text()
    assert log.read_text().count("kept from before") >= had[-1]
    mine, other = results(out), results(tmp_path / "whole")
    assert len(mine["cells"]) == 4 and len(mine["curve"]["runs"]) == 12 and not mine["failures"]
    assert mine == other
    names = sorted(path.name for path in (tmp_path / "whole" / "adapters").iterdir() if path.is_dir())
    assert len(names) == 4 and not list((out / "cells").glob(".*-????????????"))
    for name in names:
        files = [folder / "adapters" / name / "adapter_model.safetensors" for folder in (out, tmp_path / "whole")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
