"""The command as people start it: a process of its own, pipes, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "lora_clf"]


def start(*args: object, **named: Any) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, *(str(arg) for arg in args)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **named)


def test_train_writes_its_progress_to_stderr_alone(base: Path, table: Path, tmp_path: Path) -> None:
    ran = start(
        "train", table, "--base", base, "--strategy", "lora", "--epochs", 1, "--out", tmp_path / "a",
        "--precision", "fp32", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["strategy"] == "lora"
    assert len(ran.stderr.splitlines()) == 1 and ran.stderr.startswith("epoch 1/1: "), ran.stderr


def test_a_terminal_that_cannot_show_a_character(adapter: Path, base: Path) -> None:
    surroundings = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = start("predict", adapter, "--base", base, "naïve ☕", env=surroundings)
    assert ran.returncode == 0 and "na\\xefve" in ran.stdout


def test_a_pipe_that_closes(adapter: Path, base: Path) -> None:
    words = [*COMMAND, "predict", str(adapter), "--base", str(base)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        child.stdout.close()
        child.stdin.write(b"tea\n" * 20_000)
        child.stdin.close()
        assert child.stderr.read() == b""
        assert child.wait(60) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise there")
def test_ctrl_c(base: Path, table: Path, tmp_path: Path) -> None:
    words = [
        *COMMAND, "train", str(table), "--base", str(base), "--epochs", "100000", "--out", str(tmp_path / "a"),
        "--precision", "fp32",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    # Who runs the tests in the background of a shell hands on that Ctrl-C is ignored.
    usual = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=usual) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith("epoch 1/")
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        said = child.stderr.read().splitlines()
        assert child.wait(60) == 130
    found = re.fullmatch(r"Interrupted at step (\d+) of \d+\. Go on with: lora-clf (.*) --resume", said[-1])
    assert found is not None and int(found[1]) >= 8 and shlex.split(found[2]) == words[3:]
    assert all(line.startswith("epoch ") for line in said[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.checkpoints"]
    assert [path.name for path in (tmp_path / "a.checkpoints").iterdir()] == ["checkpoint-000001"]


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise there")
def test_sigterm_leaves_nothing_half_written(adapter: Path, base: Path, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out"
    rows.write_text("text\n" + "win cash now and tea at home\n" * 300_000, encoding="utf-8")
    out.mkdir()
    words = [
        *COMMAND, "predict", str(adapter), "--base", str(base), "--input", str(rows), "--output", str(out / "o.csv"),
    ]  # fmt: skip
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        end = time.monotonic() + 100
        while not list(out.iterdir()) and time.monotonic() < end and child.poll() is None:
            time.sleep(0.02)
        assert [path.name[:7] for path in out.iterdir()] == [".o.csv."]
        child.send_signal(signal.SIGTERM)
        assert child.stderr.read() == "Interrupted; nothing half-written is left behind.\n"
        assert child.wait(60) == 143
    assert not list(out.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="there is another shell")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_a_closed_stdout_ends_nothing(tmp_path: Path, closed: str) -> None:
    words = shlex.join([*COMMAND, "data", "prepare", "demo", "--out", str(tmp_path / "parts")])
    ran = subprocess.run(f"{words} {closed}", shell=True, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and "Error" not in ran.stderr, ran.stderr
    header = (tmp_path / "parts" / "train.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith('"row","label","text"')


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="there is no such place")
def test_a_pipe_is_a_table(adapter: Path, base: Path, table: Path, tmp_path: Path) -> None:
    text = table.read_text(encoding="utf-8")
    said = {}
    for place in (table, "/dev/stdin"):
        leaks = start("data", "leaks", place, "--json", input=text)
        scores = start("evaluate", adapter, place, "--base", base, "--seed", 0, "--json", input=text)
        assert leaks.returncode == scores.returncode == 0, leaks.stderr + scores.stderr
        said[place] = json.loads(leaks.stdout)["random"]["leaks"], json.loads(scores.stdout)["test"]
    assert said[table] == said["/dev/stdin"]
    cleaned = start("data", "clean", "/dev/stdin", input="text\nA: well uh yes\n")
    assert cleaned.returncode == 0 and "1 text; changed or taken out: 1 speakers" in cleaned.stderr
    refused = start("compare", "/dev/stdin", "--base", base, "--out", tmp_path / "no", input=text)
    assert refused.returncode == 2 and refused.stderr.startswith("Error: /dev/stdin is no file that every run")
    assert not list(tmp_path.iterdir())
