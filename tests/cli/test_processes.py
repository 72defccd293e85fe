"""The command as people start it: a process of its own, pipes, signals."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lora_clf.cli.app import main
from tests.cli.conftest import Ran

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


def test_a_terminal_that_cannot_show_a_character(
    adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text\nnaïve ☕\n", encoding="utf-8")
    surroundings = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = start("data", "clean", table, env=surroundings)
    assert ran.returncode == 0 and "na\\xefve \\u2615" in ran.stdout
    # A command that takes long to load, in this process.
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["lora-clf", "predict", str(adapter), "--base", str(base), "naïve ☕"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = terminal.buffer
    assert isinstance(shown, io.BytesIO)
    assert ended.value.code == 0 and b"na\\xefve \\u2615" in shown.getvalue()


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


@contextmanager
def piped(text: str) -> Iterator[None]:
    """As ``| command`` in this process: what it reads at /dev/stdin is a pipe with ``text``, once."""
    reading, writing = os.pipe()

    def fill() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "w", encoding="utf-8") as stream:
            stream.write(text)

    before = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 0)  # who still writes finds nobody who reads
        os.close(before)
        thread.join()


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="there is no such place")
def test_a_pipe_is_a_table(cli: Callable[..., Ran], adapter: Path, base: Path, table: Path, tmp_path: Path) -> None:
    text = table.read_text(encoding="utf-8")
    said = {}
    for place in (table, "/dev/stdin"):
        with piped(text):
            leaks = cli("data", "leaks", place, "--json").ok().json()
        with piped(text):
            scores = cli("evaluate", adapter, place, "--base", base, "--seed", 0, "--json").ok().json()
        said[place] = leaks["random"]["leaks"], scores["test"]
    assert said[table] == said["/dev/stdin"]
    with piped(text):
        refused = cli("compare", "/dev/stdin", "--base", base, "--out", tmp_path / "no")
    assert refused.code == 2 and refused.err.startswith("Error: /dev/stdin is no file that every run")
    assert not list(tmp_path.iterdir())
    cleaned = start("data", "clean", "/dev/stdin", input="text\nA: well uh yes\n")
    assert cleaned.returncode == 0 and "1 text; changed or taken out: 1 speakers" in cleaned.stderr
