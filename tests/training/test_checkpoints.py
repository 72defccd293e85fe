"""Checkpoints on disk: whole or not there, two of them, one writer, and never taken for what they are not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora_clf.errors import CheckpointError, UsageError
from lora_clf.training import checkpoints as room
from lora_clf.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lora_clf.training.checkpoints import (
    CheckpointFolder,
    Checkpoints,
    Interval,
    check_unfinished,
    checkpoints_beside,
    generations,
    parse_interval,
)
from tests.faults import Killed, failing

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the disk is made to fail by ways of Linux")


def made(step: int) -> Checkpoint:
    """A checkpoint of every file and several types, each step another."""
    generator = torch.Generator().manual_seed(step)
    tensors: dict[str, dict[str, Tensor]] = {
        "weights": {"a": torch.randn(3, 5, generator=generator), "b": torch.randn(0, 2, generator=generator)},
        "optimizer": {"step/a": torch.tensor(float(step)), "exp_avg/a": torch.randn(3, 5, generator=generator)},
        "best": {},
        "strategy": {"mask": torch.tensor([True, False, True]), "half": torch.ones(3).bfloat16() * step},
    }
    facts = {"position": {"step": step, "steps": 9}, "third": 1 / 3 + step, "text": "ä\n"}
    return Checkpoint(facts, tensors)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    mine, theirs = ({k: v for k, v in each.tensors.items() if v} for each in (one, other))
    assert sum(map(len, mine.values())) == 6
    pairs = [(mine[stem][name], theirs[stem][name]) for stem in mine for name in mine[stem] if stem in theirs]
    names = [{stem: sorted(tensors) for stem, tensors in each.items()} for each in (mine, theirs)]
    equal = all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    return one.facts == other.facts and names[0] == names[1] and equal


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path / "kept"
    with CheckpointFolder(Checkpoints(folder)) as store:
        store.write(made(1))
        store.write(made(2))
    return folder


def newest(folder: Path, told: list[str] | None = None) -> Checkpoint | None:
    say = (told if told is not None else []).append
    with CheckpointFolder(Checkpoints(folder, resume=True, tell=say)) as store:
        return store.newest()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", made(3))
    assert same(read_checkpoint(tmp_path / "one"), made(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]
    weights = load_file(tmp_path / "one" / "weights.safetensors")  # other tools can read it
    assert torch.equal(weights["a"], made(3).tensors["weights"]["a"])
    with pytest.raises(CheckpointError, match="No checkpoint could be written"):
        write_checkpoint(tmp_path / "one", made(4))
    assert same(read_checkpoint(tmp_path / "one"), made(3))


def test_two_generations_are_kept(kept: Path) -> None:
    with CheckpointFolder(Checkpoints(kept, resume=True)) as store:
        assert same(store.newest() or made(0), made(2))
        for step in range(3, 7):
            store.write(made(step))
            found = [read_checkpoint(path).facts["position"]["step"] for path in generations(kept)]
            assert found == [step - 1, step]
    assert [path.name for path in generations(kept)] == ["checkpoint-000005", "checkpoint-000006"]
    assert sorted(os.listdir(kept)) == ["checkpoint-000005", "checkpoint-000006"]


def damages(folder: Path) -> Iterator[tuple[str, Any]]:
    """Ways in which the newest checkpoint may be damaged: a name, and what does it."""
    last = generations(folder)[-1]
    for file in sorted(last.iterdir()):
        content = file.read_bytes()
        for place in {0, len(content) // 2, len(content) - 2}:
            flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
            yield f"a bit of {file.name} at {place}", lambda file=file, flipped=flipped: file.write_bytes(flipped)
        yield f"{file.name} cut off", lambda file=file, content=content: file.write_bytes(content[:-1])
        yield f"{file.name} longer", lambda file=file, content=content: file.write_bytes(content + b" ")
        yield f"{file.name} empty", lambda file=file: file.write_bytes(b"")
        yield f"{file.name} missing", lambda file=file: file.unlink()
        yield f"{file.name} a folder", lambda file=file: (file.unlink(), file.mkdir())
        yield f"{file.name} a link", lambda file=file: (file.rename(f"{folder}.x"), file.symlink_to(f"{folder}.x"))
    manifest = json.loads((last / "manifest.json").read_bytes())
    for change in (
        {"format": 2},
        {"files": {}},
        {"files": []},
        {"files": {"../run.json": manifest["files"]["run.json"]}},
    ):
        text = json.dumps(manifest | change)
        yield f"manifest with {change}", lambda text=text: (last / "manifest.json").write_text(text)


def test_a_damaged_one_is_never_used_and_the_one_before_is(kept: Path, tmp_path: Path) -> None:
    count = 0
    whole = tmp_path / "whole"
    shutil.copytree(kept, whole)
    for name, damage in [*damages(kept)]:
        shutil.rmtree(kept)
        shutil.copytree(whole, kept)
        damage()
        told: list[str] = []
        found = newest(kept, told)
        if name == "manifest.json longer" and not told:
            assert found is not None and same(found, made(2)), name  # by a space, which says nothing
            continue
        assert found is not None and same(found, made(1)), name
        assert len(told) == 1 and told[0].startswith("Went back to checkpoint-000001, an older checkpoint, since"), name
        count += 1
    assert count >= 30


def test_where_none_is_whole_it_says_which_and_why(kept: Path) -> None:
    for path in generations(kept):
        (path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError) as refused:
        newest(kept)
    for part in ("checkpoint-000001: weights.safetensors has 1 bytes", "checkpoint-000002: ", "--force"):
        assert part in str(refused.value)
    assert len(generations(kept)) == 2  # nothing is removed


def test_after_going_back_the_damaged_one_goes_and_the_good_one_stays(kept: Path) -> None:
    (generations(kept)[-1] / "run.json").write_bytes(b"{}")
    with CheckpointFolder(Checkpoints(kept, resume=True)) as store:
        assert same(store.newest() or made(0), made(1))
        store.write(made(3))
        assert [path.name for path in generations(kept)] == ["checkpoint-000001", "checkpoint-000003"]


def test_the_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with CheckpointFolder(Checkpoints(folder)) as store:
        store.write(made(1))
        with pytest.raises(CheckpointError) as refused, CheckpointFolder(Checkpoints(folder, resume=True)):
            pass
        assert f"Another run (process {os.getpid()}) is writing its checkpoints to {folder}." in str(refused.value)
        assert "\n" not in str(refused.value)
        store.write(made(2))
    assert not (folder / "lock").exists()
    assert same(newest(folder) or made(0), made(2))


HOLDS = """
import sys, time
from lora_clf.training.checkpoints import CheckpointFolder, Checkpoints
with CheckpointFolder(Checkpoints(sys.argv[1], resume=True)):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise there")
def test_a_dead_owner_loses_the_lock_and_a_living_one_does_not(kept: Path) -> None:
    words = [sys.executable, "-c", HOLDS, str(kept)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=rf"Another run \(process {child.pid}\)"):
            newest(kept)
        child.send_signal(signal.SIGKILL)
    assert (kept / "lock").read_text() == f"{child.pid}\n"
    assert same(newest(kept) or made(0), made(2))
    (kept / "lock").write_text("1\n")  # a process that lives and does not hold it
    assert same(newest(kept) or made(0), made(2))


def test_what_a_killed_process_left_half_written_is_swept(kept: Path) -> None:
    for name in (".checkpoint-000003-0123456789ab", ".checkpoint-000001-old"):
        (kept / name).mkdir()
        (kept / name / "run.json").write_text("{")
    (kept / "notes.txt").write_text("mine")
    newest(kept)
    assert sorted(os.listdir(kept)) == ["checkpoint-000001", "checkpoint-000002", "notes.txt"]


def test_the_checkpoints_of_another_run_are_not_overwritten_by_mistake(kept: Path) -> None:
    expected = r"interrupted at step 2 of 9 left checkpoints in .*--resume, or start anew by --force, which drops them"
    with pytest.raises(CheckpointError, match=expected), CheckpointFolder(Checkpoints(kept)):
        pass
    with pytest.raises(CheckpointError, match=expected):
        check_unfinished(kept)
    assert len(generations(kept)) == 2 and not (kept / "lock").exists()
    with CheckpointFolder(Checkpoints(kept, replace=True)) as store:
        assert not generations(kept)
        store.drop()  # it is at work, by its own lock
        assert kept.is_dir()
    assert not kept.exists()
    check_unfinished(kept)


def test_dropped_with_the_folders_that_were_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "kept"
    with CheckpointFolder(Checkpoints(folder)) as store:
        store.write(made(1))
    store.drop()
    assert not list(tmp_path.iterdir())
    with CheckpointFolder(Checkpoints(folder)):
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())
    assert checkpoints_beside(tmp_path / "spam") == tmp_path / "spam.checkpoints"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", Interval(steps=100)),
        (100, Interval(steps=100)),
        ("60s", Interval(seconds=60)),
        (" 5 m ", Interval(seconds=300)),
        ("2min", Interval(seconds=120)),
        ("1h", Interval(seconds=3600)),
        ("0", Interval()),
        ("0s", Interval()),
    ],
)
def test_how_often(text: str | int, expected: Interval) -> None:
    assert parse_interval(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-3", "1.5s", "60 seconds", "1e3", True, "٣", "9999999999"])
def test_how_often_refused(text: Any) -> None:
    with pytest.raises(UsageError, match=r"--checkpoint-every .*expected steps, as 100, or a time"):
        Checkpoints("here", every=text)


def test_by_time_writing_takes_at_most_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])

    def slow(path: Path, checkpoint: Checkpoint) -> None:
        now[0] += 10

    monkeypatch.setattr(room, "write_checkpoint", slow)
    with CheckpointFolder(Checkpoints(tmp_path / "kept", every="60s")) as store:
        written = []
        for step in range(1, 60):
            now[0] += 10
            if store.due(step):
                store.write(made(step))
                written.append(step)
    assert written == [6, 26, 46]  # after 60 s, then every 200 s, since one takes 10
    with CheckpointFolder(Checkpoints(tmp_path / "kept", every=3)) as store:
        assert [step for step in range(1, 10) if store.due(step)] == [3, 6, 9]
    with CheckpointFolder(Checkpoints(tmp_path / "kept", every=0)) as store:
        now[0] += 1e6
        assert not any(store.due(step) for step in range(1, 10))


@LINUX
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_killed_at_any_call_the_old_or_the_new_one_is_there(before: int, tmp_path: Path) -> None:
    """In the process itself: after the call at which it dies nothing touches the disk any more."""
    left: list[int] = []
    for call in range(1, 200):
        folder = tmp_path / str(call)
        store = CheckpointFolder(Checkpoints(folder, resume=True))
        store.__enter__()
        for step in range(1, before + 1):
            store.write(made(step))
        with failing(Killed, call, under=str(folder)) as faults, suppress(Killed):
            store.write(made(before + 1))
        store._lock.release()  # as its owner's death does
        found = newest(folder)
        left.append(0 if found is None else found.facts["position"]["step"])
        assert left[-1] in (before, before + 1) and (found is None or same(found, made(left[-1])))
        assert not [name for name in os.listdir(folder) if name.startswith(".")] if folder.exists() else found is None
        if not faults.names:
            break
    assert left == sorted(left) and left[-1] == before + 1 and left.count(before) >= 15
    assert len(left) < 199


@LINUX
@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "once"])
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES], ids=lambda n: errno.errorcode[n]
)
def test_a_failing_disk_is_an_error_and_changes_nothing(number: int, lasting: bool, tmp_path: Path) -> None:
    ends: list[int] = []
    for call in range(1, 200):
        folder = tmp_path / str(call)
        with CheckpointFolder(Checkpoints(folder)) as store:
            store.write(made(1))
            raised: CheckpointError | None = None
            with failing(
                lambda: OSError(number, os.strerror(number)), call, under=str(folder), lasting=lasting
            ) as faults:
                try:
                    store.write(made(2))
                except CheckpointError as error:
                    raised = error
            ends.append(len(generations(folder)))
            assert raised is not None or ends[-1] == 2, faults.names
            if raised is not None:
                assert os.strerror(number) in str(raised) and "\n" not in str(raised)
            assert all(same(read_checkpoint(path), made(step)) for step, path in enumerate(generations(folder), 1))
            store.write(made(3))  # the disk is well again
            assert [same(read_checkpoint(p), made(3)) for p in generations(folder)] == [False, True]
        if not faults.names:
            break
    assert ends.count(1) >= 15 and ends[-1] == 2 and len(ends) < 199


@LINUX
def test_a_disk_that_takes_less_than_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with CheckpointFolder(Checkpoints(folder)) as store:
        store.write(made(1))
        for call in range(1, 8):
            with (
                failing(OSError, call, ("write",), under=str(folder), lasting=False, short=True),
                pytest.raises(CheckpointError, match=r"bytes of .* that were written"),
            ):
                store.write(made(2))
        assert len(generations(folder)) == 1
    assert same(newest(folder) or made(0), made(1))


def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(CheckpointError, match=r"Checkpoints cannot be written to .*: Not a directory. Choose another"),
        CheckpointFolder(Checkpoints(tmp_path / "file" / "kept")),
    ):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file"]
