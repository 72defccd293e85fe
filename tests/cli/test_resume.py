"""`train` after an interruption: what it says, what it keeps, how it goes on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.training.checkpoints import generations
from lora_clf.training.interruption import Terminated
from lora_clf.training.run import Run

Cli = Callable[..., Any]


@pytest.fixture
def command(base: Path, table: Path, tmp_path: Path) -> list[str]:
    words = [
        "train", table, "--base", base, "--strategy", "lora", "--rank", 2, "--dropout", 0.2, "--epochs", 2,
        "--precision", "fp32", "--device", "cpu", "--out", tmp_path / "a b",
    ]  # fmt: skip
    return [str(word) for word in words]


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have the first run that comes there end after ``step``."""
    real = Run._step_on

    def struck(run: Run, group: Any) -> None:
        real(run, group)
        if run.step == step and run.resumed_step is None:
            run.interruption.torn = False
            monkeypatch.setattr(Run, "_step_on", real)
            raise error

    monkeypatch.setattr(Run, "_step_on", struck)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_the_line_after_ctrl_c_is_the_command_that_goes_on(
    error: BaseException, code: int, cli: Cli, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a b"
    cli(*command).ok()
    expected = {file.name: file.read_bytes() for file in place.iterdir()}
    place.rename(tmp_path / "first")
    stop_after(11, monkeypatch, error)
    ran = cli(*command)
    assert (ran.code, ran.err.splitlines()[-1]) == (
        code,
        f"Interrupted at step 11 of 16. Go on with: lora-clf {shlex.join(command)} --resume",
    )
    assert len(generations(tmp_path / "a b.checkpoints")) == 1 and not place.exists()
    again = shlex.split(ran.err.splitlines()[-1].split("lora-clf ")[1])
    resumed = cli(*again, "--json").ok()
    assert resumed.err.startswith("Resumed after step 11 of 16.\n") and resumed.json()["resumed_step"] == 11
    assert {file.name: file.read_bytes() for file in place.iterdir()} == expected
    assert not (tmp_path / "a b.checkpoints").exists()


def test_what_is_left_is_neither_overwritten_nor_mixed(
    cli: Cli, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "a b.checkpoints"
    stop_after(3, monkeypatch, KeyboardInterrupt())
    assert cli(*command).code == 130
    refused = cli(*command)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        f"Error: A run that was interrupted at step 3 of 16 left checkpoints in {kept}. Go on with it by --resume, or "
        "start anew by --force, which drops it.\n"
    )
    other = cli(*command, "--resume", "--rank", 4, "--lr", 0.5)
    assert other.code == 1 and other.err.count("\n") == 1
    assert "--lr is 0.5, the checkpoint has 0.001; --rank is 4, the checkpoint has 2" in other.err
    assert len(generations(kept)) == 1
    anew = cli(*command, "--force", "--json").ok()
    assert anew.json()["resumed_step"] is None and not kept.exists()


def test_an_unexpected_end_says_how_to_go_on(
    cli: Cli, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(5, monkeypatch, MemoryError())
    ran = cli(*command, "--checkpoint-every", 2)
    assert ran.code == 1 and "Traceback" not in ran.err
    hint, error = ran.err.splitlines()
    assert hint.startswith("What was trained until the checkpoint at step 4 of 16 is kept. Go on with: lora-clf train ")
    assert error.startswith("Error: Unexpected MemoryError")
    assert len(generations(tmp_path / "a b.checkpoints")) == 2
    assert cli(*command, "--resume", "--json").ok().json()["resumed_step"] == 4


@pytest.mark.parametrize("every", ["often", "-1", "5 parsecs", "1.5s", ""])
def test_how_often_is_checked_before_anything_else(every: str, cli: Cli, command: list[str], tmp_path: Path) -> None:
    ran = cli(*command, "--checkpoint-every", every)
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert f"--checkpoint-every {every}: expected steps, as 100, or a time, as 60s or 5m" in ran.err
    assert not list(tmp_path.iterdir())


def test_resuming_without_a_checkpoint_begins_and_says_so(cli: Cli, command: list[str], tmp_path: Path) -> None:
    ran = cli(*command, "--resume", "--json").ok()
    kept = tmp_path / "a b.checkpoints"
    assert ran.err.splitlines()[0] == f"There is no checkpoint in {kept}; training begins at the start."
    assert ran.json()["resumed_step"] is None and [path.name for path in tmp_path.iterdir()] == ["a b"]
