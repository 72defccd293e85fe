"""Kept states on disk: the same bytes as computed ones, never a torn file's, readable by their owner alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.base.base import Base
from lora_clf.data.dataset import Dataset
from lora_clf.errors import UsageError
from lora_clf.inference import state_file, state_folder
from lora_clf.inference.cache import PrefixCache, States, facts_of, prefix_cache
from lora_clf.inference.file_lock import alone_in, hold
from lora_clf.inference.prefix import Cut, compute_states
from lora_clf.inference.state_file import read_index
from lora_clf.inference.state_folder import StateFolder, disk_budget, parse_size
from lora_clf.training.loop import train
from lora_clf.training.result import Result
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import FAST, toy

TEXTS = ["".join(chr(97 + (i * j) % 26) for j in range(1, 2 + (7 * i) % 60)) for i in range(40)]
CUTS = [Cut(2, False), Cut(3, True)]
POSIX = pytest.mark.skipif(os.name == "nt", reason="other systems have other permissions")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateFolder]:
    """A folder of states of its own, which training uses too."""
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path))
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "1GB")
    made = state_folder.state_folder()
    assert made is not None and made.path == tmp_path / "prefix" and made.budget == 10**9
    yield made


def states(
    disk: StateFolder | None,
    cut: Cut = CUTS[0],
    precision: str = "fp32",
    texts: list[str] = TEXTS,
    base: Base | None = None,
) -> States:
    """As a program that has just started would get them."""
    base = base or tiny_base("bert")
    return PrefixCache(disk=lambda: disk).states(base, "mean", cut, precision, base.encode(texts))


def files_of(disk: StateFolder) -> list[Path]:
    return sorted(path for path in disk.path.rglob("*") if path.is_file())


def equal(mine: States, others: States) -> bool:
    assert len(mine.rows) == len(others.rows) > 1
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(mine.rows, others.rows, strict=True))


def no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("computed what was kept")

    monkeypatch.setattr("lora_clf.inference.cache.compute_states", refuse)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_what_comes_from_the_disk_is_what_was_computed(
    folder: StateFolder, cut: Cut, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_kept = states(None, cut, precision)
    cold = states(folder, cut, precision)
    (file,) = files_of(folder)
    assert len(read_index(file).keys) == len(set(TEXTS)) and not list(folder.path.rglob(".part-*"))
    no_computing(monkeypatch)
    warm = states(folder, cut, precision, [*reversed(TEXTS)])
    assert equal(never_kept, cold) and equal(cold, States([*reversed(warm.rows)], 0.0))
    assert warm.seconds == pytest.approx(cold.seconds) and cold.seconds > 0
    warm.rows[0].add_(1)  # They are the reader's own: the file does not change.
    assert equal(states(folder, cut, precision), cold)


def test_only_what_is_missing_is_computed(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = states(None)
    states(folder, texts=TEXTS[:10])
    assert equal(states(folder), whole) and len(files_of(folder)) == 2
    no_computing(monkeypatch)
    assert equal(states(folder), whole) and len(files_of(folder)) == 2


def test_other_tools_can_read_the_file(folder: StateFolder) -> None:
    from safetensors import safe_open

    found = states(folder)
    (file,) = files_of(folder)
    with safe_open(file, "pt") as stream:
        assert set(stream.keys()) == {"states", "keys", "lengths", "seconds", "digests", "whole"}
        assert stream.get_tensor("lengths").sum() == len(stream.get_tensor("states"))
        assert stream.get_tensor("seconds").sum().item() == pytest.approx(found.seconds)
        together = {tuple(row.tolist()) for state in found.rows for row in state}
        assert {tuple(row.tolist()) for row in stream.get_tensor("states")} == together


@pytest.mark.parametrize("strategy", ["head-only", "last-block"])
def test_cold_warm_from_disk_mapped_and_filled_by_another_are_the_same_bytes(
    folder: StateFolder, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toy()

    def run(seed: int = FAST.seed, swap: bool = False, memory: int | None = None) -> Result:
        base = tiny_base("gpt2")  # whose own memory is empty
        if memory is not None:
            prefix_cache(base).budget = memory
        chosen = replace(data, train=data.test, test=data.train) if swap else data
        result = train(base, chosen, create(strategy), replace(FAST, seed=seed))
        assert not any("again in every epoch" in warning for warning in result.warnings)
        assert (len(prefix_cache(base)) == 0) == (memory is not None)
        return result

    cold = run()
    from_disk = run()
    mapped = run(memory=100)
    assert folder.clear()[0] == 1
    written_mapped = run(memory=100)
    folder.clear()
    run(seed=5, swap=True)
    filled = run()
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "0")
    without = run()
    expected = cold.adapter.tuned.state_dict()
    assert len(expected) >= 1
    for other in (from_disk, mapped, written_mapped, filled, without):
        assert other.history == cold.history
        state = other.adapter.tuned.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in expected.items())
    for other in (from_disk, mapped):  # The price is the cold one, though nothing was computed.
        assert other.prefix_seconds == pytest.approx(cold.prefix_seconds) and cold.prefix_seconds > 0
        assert other.training_seconds > other.prefix_seconds


def test_another_process_begins_warm(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "from tests.inference.test_state_folder import states\n"
        "from lora_clf.inference.state_folder import state_folder\n"
        "states(state_folder())"
    )
    umask = os.umask(0)
    try:
        subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2], timeout=120)
    finally:
        os.umask(umask)
    (file,) = files_of(folder)
    if os.name != "nt":
        assert file.stat().st_mode & 0o777 == 0o600
        assert {place.stat().st_mode & 0o777 for place in (folder.path, file.parent)} == {0o700}
    content = file.read_bytes()
    for text in (text for text in TEXTS if len(text) > 8):
        ids = tiny_base("bert").encode([text]).ids[0]
        assert text.encode() not in content
        assert all(ids.astype(kind).tobytes() not in content for kind in (np.int32, np.int64))
    no_computing(monkeypatch)
    warm = states(folder)
    monkeypatch.undo()
    assert equal(warm, states(None))


DAMAGE = {
    "header": lambda data: data[:20] + b"\xff" + data[21:],
    "length": lambda data: b"\xff" * 8 + data[8:],
    "states": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "index": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "seconds": lambda data: data[: -32 - 16 * 40 - 5] + b"\x41" + data[-32 - 16 * 40 - 4 :],
    "end": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "torn": lambda data: data[: len(data) // 2],
    "zeros": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "text": lambda data: b"not a file of states",
    "list": lambda data: (2).to_bytes(8, "little") + b"[]",
    "nested": lambda data: (100_000).to_bytes(8, "little") + b"[" * 100_000,
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_never_read_as_states(folder: StateFolder, damage: str, mapped: bool) -> None:
    expected = states(folder)
    (file,) = files_of(folder)
    keys = set(read_index(file).keys)
    whole = file.read_bytes()
    broken = DAMAGE[damage](whole)
    assert broken != whole and len(whole) > 20_000
    file.write_bytes(broken)
    facts = facts_of(tiny_base("bert"), "mean", CUTS[0], "fp32")
    assert folder.find(facts, keys, mapped=mapped) == {} and not file.exists()
    again = states(folder)
    assert equal(again, expected)
    (file,) = files_of(folder)
    assert len(read_index(file).keys) == len(set(TEXTS))  # whole again
    assert equal(states(folder), expected)


def test_every_single_byte_counts(folder: StateFolder) -> None:
    expected = states(folder, CUTS[1], texts=TEXTS[:3])
    (file,) = files_of(folder)
    whole = file.read_bytes()
    facts = facts_of(tiny_base("bert"), "mean", CUTS[1], "fp32")
    keys = set(read_index(file).keys)
    places = np.random.default_rng(0).permutation(len(whole))[:300]
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert folder.find(facts, keys, mapped=False) == {}, place
    file.write_bytes(whole)
    found = folder.find(facts, keys, mapped=False)
    assert len(found) == 3 and {state.sum().item() for state, _ in found.values()} == {
        state.sum().item() for state in expected.rows
    }


def test_a_file_of_another_kind_is_not_taken(folder: StateFolder) -> None:
    """Whatever decides the numbers decides the folder; a file that was moved is still known for what it is."""
    states(folder)
    (file,) = files_of(folder)
    states(folder, precision="bf16")
    (other,) = [path for path in files_of(folder) if path.parent != file.parent]
    shutil.move(file, other.with_name(file.name))
    assert equal(states(folder, precision="bf16"), states(None, precision="bf16"))
    base, facts = tiny_base("bert"), facts_of(tiny_base("bert"), "mean", CUTS[0], "fp32")
    kinds = [
        facts_of(base, "first", CUTS[1], "fp32"),
        facts_of(base, "mean", CUTS[1], "fp32"),
        facts_of(base, "mean", Cut(1, False), "fp32"),
        facts_of(base, "mean", CUTS[0], "bf16"),
        facts_of(tiny_base("bert", seed=1), "mean", CUTS[0], "fp32"),
        facts_of(tiny_base("gpt2"), "mean", CUTS[0], "fp32"),
        {**facts, "threads": 99},
        {**facts, "torch": "9"},
        {**facts, "code": "changed"},
    ]
    assert len({folder._of(kind) for kind in [facts, *kinds]}) == 10
    assert folder._of({**facts, "base": "the same under another name"}) == folder._of(facts)
    assert folder._of(facts_of(base, "first", CUTS[0], "fp32")) == folder._of(facts)  # pooling is above this cut


def test_the_least_recently_used_go_first(folder: StateFolder) -> None:
    for number, texts in enumerate((TEXTS[:10], TEXTS[10:20], TEXTS[20:30])):
        states(folder, texts=texts)
        for file in files_of(folder):
            if file.stat().st_mtime > 1e6:
                os.utime(file, (1000 + number, 1000 + number))
    first, second, _ = sorted(files_of(folder), key=lambda file: file.stat().st_mtime)
    states(folder, texts=TEXTS[:10])  # used again
    assert first.stat().st_mtime > time.time() - 60
    folder.budget = sum(file.stat().st_size for file in files_of(folder)) + 9000
    states(folder, texts=TEXTS[30:])
    assert not second.exists() and first.exists() and len(files_of(folder)) <= 3
    assert sum(file.stat().st_size for file in files_of(folder)) <= folder.budget
    folder.budget = 1000  # less than any file: nothing is written, and nothing goes for it
    before = files_of(folder)
    assert equal(states(folder, CUTS[1]), states(None, CUTS[1])) and files_of(folder) == before


def test_the_disk_keeps_a_gigabyte_and_half_of_what_is_free(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = {"free": 0}

    def usage(_: object) -> Any:
        return shutil._ntuple_diskusage(10**12, 10**12 - disk["free"], disk["free"])

    monkeypatch.setattr(state_folder.shutil, "disk_usage", usage)
    folder.budget = 10**12
    for free, room in ((0, 0), (10**9, 0), (10**9 + 500, 500), (10**9 * 3 // 2, 5 * 10**8), (8 * 10**9, 4 * 10**9)):
        disk["free"] = free
        assert folder.room() == room
    disk["free"] = 10**9 + 1000
    assert equal(states(folder), states(None)) and not files_of(folder)
    disk["free"] = 10**10
    states(folder)
    held = files_of(folder)[0].stat().st_size
    assert folder.room() == (10**10 + held) // 2


@pytest.mark.parametrize("memory", [None, 100])
@pytest.mark.parametrize("fails", ["write", "rename", "begin"])
def test_a_full_disk_changes_no_result(
    folder: StateFolder, fails: str, memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = states(folder)
    folder.clear()

    def full(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    class Stream:
        write = staticmethod(full)
        close = staticmethod(lambda: None)

    if fails == "write":

        def opened(descriptor: int, _: str) -> Any:
            os.close(descriptor)
            return Stream

        monkeypatch.setattr(state_file.os, "fdopen", opened)
    elif fails == "rename":
        monkeypatch.setattr(state_file.os, "replace", full)
    else:
        monkeypatch.setattr(state_file.tempfile, "mkstemp", full)
    assert equal(states(folder), expected) and not files_of(folder)
    base = tiny_base("bert")
    if memory is not None:
        prefix_cache(base).budget = memory
    result = train(base, toy(), create("last-block"), FAST)
    assert any("again in every epoch" in warning for warning in result.warnings) == (memory is not None)
    assert not files_of(folder)


def test_states_that_fit_nowhere_are_computed_again_and_that_is_said(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "20KB")
    base = tiny_base("bert")
    prefix_cache(base).budget = 1000
    result = train(base, toy(), create("last-block"), FAST)
    assert any("--cache-size" in warning and "every epoch" in warning for warning in result.warnings)
    assert result.prefix_seconds == 0 and not files_of(folder)


def test_what_is_on_a_disk_that_has_filled_up_is_still_read(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "300KB")

    def trained(data: Dataset) -> Result:
        base = tiny_base("bert")
        prefix_cache(base).budget = 1000
        return train(base, data, create("last-block"), FAST)

    data = toy()
    first = trained(data)
    (file,) = files_of(folder)
    assert not first.warnings and file.stat().st_size > 20_000
    monkeypatch.setattr(StateFolder, "_room", lambda self, held: 20_000)
    again = trained(data)
    assert not again.warnings and again.history == first.history
    monkeypatch.setattr("lora_clf.inference.cache.compute_states", None)  # nothing is begun that finds no room
    more = replace(data.train, texts=("one more", *data.train.texts[1:]))
    assert any("--cache-size" in warning for warning in trained(replace(data, train=more)).warnings)
    assert files_of(folder) == [file]


def test_a_run_that_is_interrupted_leaves_no_part(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lora_clf.inference.cache.compute_states", stop)
    with pytest.raises(KeyboardInterrupt):
        states(folder)
    assert not files_of(folder)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("added", [1, 17])
def test_an_interrupted_computation_is_gone_on_with(
    folder: StateFolder, added: int, cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, asked = states(None, cut), list[int]()

    def stopped(*args: Any) -> None:
        *rest, keep = args
        count = [0]

        def until(*kept: Any) -> None:
            if count[0] == added:
                raise KeyboardInterrupt
            keep(*kept)
            count[0] += 1

        compute_states(*rest, until)

    def counted(*args: Any) -> None:
        asked.append(len(args[5]))
        compute_states(*args)

    monkeypatch.setattr("lora_clf.inference.cache.compute_states", stopped)
    with pytest.raises(KeyboardInterrupt):
        states(folder, cut)
    (file,) = files_of(folder)
    assert len(read_index(file).keys) == added
    monkeypatch.setattr("lora_clf.inference.cache.compute_states", counted)
    assert equal(states(folder, cut), whole) and asked == [len(set(TEXTS)) - added]
    assert equal(states(folder, cut), whole) and len(asked) == 1 and len(files_of(folder)) == 2


def test_a_text_whose_state_was_not_written_whole_is_not_in_the_file(folder: StateFolder) -> None:
    facts = facts_of(tiny_base("bert"), "mean", CUTS[0], "fp32")
    writer = folder.writer(facts, 10**6, 10**6, 10**6)
    assert writer is not None
    first = torch.arange(64.0).view(2, 32)
    writer.add(b"a" * 16, first, 1.0)
    writer._write(b"a part of another state")
    writer.finish_early()
    found = folder.find(facts, {b"a" * 16, b"b" * 16}, mapped=False)
    assert found.keys() == {b"a" * 16} and torch.equal(found[b"a" * 16][0], first)


@POSIX
def test_parts_that_were_left_behind_go_and_those_in_writing_stay(folder: StateFolder) -> None:
    states(folder)
    old, killed, young = (files_of(folder)[0].with_name(f".part-{name}") for name in ("old", "killed", "young"))
    for part in (old, killed, young):
        part.write_bytes(b"half")
    with young.open("rb") as writing, old.open("rb") as forgotten:
        assert hold(writing.fileno()) and hold(forgotten.fileno())
        os.utime(old, (1000, 1000))  # a day and more
        states(folder, texts=["another"] * 2)
    assert not old.exists() and not killed.exists() and young.exists()
    assert folder.clear() == (3, pytest.approx(3e5, rel=1.0)) and not list(folder.path.iterdir())


@POSIX
def test_the_folder_is_its_owners_alone(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.path.mkdir(mode=0o755)
    folder.path.chmod(0o777)
    states(folder)
    assert folder.path.stat().st_mode & 0o777 == 0o700 and len(files_of(folder)) == 1
    monkeypatch.setattr(state_folder.os, "geteuid", lambda: os.getuid() + 1)
    no_computing_was = files_of(folder)
    assert equal(states(folder), states(None))  # computed, not taken from a folder of somebody else
    assert folder.entries() == [] and folder.clear() == (0, 0) and files_of(folder) == no_computing_was


@POSIX
def test_a_link_in_the_place_of_the_folder_is_not_followed(folder: StateFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.path.symlink_to(tmp_path / "elsewhere")
    assert equal(states(folder), states(None)) and not list((tmp_path / "elsewhere").iterdir())


def test_many_programs_at_once(folder: StateFolder) -> None:
    """Some write, some read, one drops everything again and again: each gets the right states."""
    base = tiny_base("bert")  # once: its weights are drawn from what all threads draw from
    expected = states(None, base=base)
    folder.budget = 250_000  # room for one and a half

    def work(number: int) -> bool:
        if number % 5 == 4:
            folder.clear()
            return True
        mine = TEXTS[number % 7 :]
        return equal(states(folder, texts=mine, base=base), States(expected.rows[number % 7 :], 0.0))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(40)))
    assert not list(folder.path.rglob(".part-*"))


def test_the_budget_holds_while_others_are_writing(folder: StateFolder) -> None:
    facts = facts_of(tiny_base("bert"), "mean", CUTS[1], "fp32")
    other = StateFolder(folder.path, folder.budget)
    folder.budget = other.budget = 25_000
    first = folder.writer(facts, 3, 3, 10_000)
    second = other.writer(facts, 1, 1, 10_000)
    assert first is not None and second is not None
    assert folder.writer(facts, 3, 3, 10_000) is None  # though hardly a byte is written
    second.discard()
    for place in range(3):
        first.add(bytes([place] * 16), torch.full((32,), float(place)), 1.0)
    first.finish()
    (file,) = files_of(folder)
    found = read_index(file)
    assert file.stat().st_size == found.size < 3000 and len(found.keys) == 3
    third = folder.writer(facts, 1, 1, 15_000)
    assert third is not None and other.room() == 10_000
    assert other.writer(facts, 3, 3, 20_000) is None and file.is_file()  # nothing goes for what cannot fit
    third.discard()
    assert other.writer(facts, 3, 3, 20_000) is not None


@POSIX
def test_two_do_not_make_room_at_once(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.path.mkdir(mode=0o700)
    inside, most = [0], [0]

    def slow(self: StateFolder, size: int) -> bool:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1
        return False

    monkeypatch.setattr(StateFolder, "_make_room", slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: folder.writer({}, 1, 1, 1), range(8))) == [None] * 8
    assert most == [1]
    with alone_in(folder.path / "nowhere"):  # what cannot be locked is not waited for
        pass


def test_mapped_states_outlive_their_file(folder: StateFolder) -> None:
    expected = states(folder)
    base = tiny_base("bert")
    cache = PrefixCache(budget=100, disk=lambda: folder)
    parts = cache.parts(base, "mean", CUTS[0], "fp32", {"all": base.encode(TEXTS)})
    assert parts is not None and len(cache) == 0
    folder.clear()
    assert equal(parts["all"], expected)


def test_what_is_there_can_be_listed(folder: StateFolder) -> None:
    states(folder)
    states(folder, texts=["one more", "and one"])
    states(folder, CUTS[1])
    pooled, blocks = folder.entries()
    assert (pooled.files, blocks.files) == (1, 2)
    assert (pooled.texts, blocks.texts) == (len(set(TEXTS)), len(set(TEXTS)) + 2)
    assert pooled.size + blocks.size == sum(file.stat().st_size for file in files_of(folder))
    assert (pooled.facts["base"], pooled.facts["pooled"], blocks.facts["blocks"]) == ("tiny-bert", "mean", 2)
    assert time.time() - 60 < blocks.used <= pooled.used <= time.time() + 1


def test_sizes() -> None:
    written = ("0", "4GB", "500 MB", "1.5gib", "20000", "3kb", "2 TB")
    assert [parse_size(text) for text in written] == [
        0, 4 * 10**9, 5 * 10**8, 3 * 2**29, 20000, 3000, 2 * 10**12,
    ]  # fmt: skip
    for text in ("", "GB", "-1GB", "4 XB", "4GBs", "1e9", "nan", "١GB"):
        with pytest.raises(UsageError, match="expected a size"):
            parse_size(text)


def test_the_variable_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "3MB")
    assert disk_budget() == 3_000_000
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "much")
    with pytest.raises(UsageError, match="LORA_CLF_CACHE_SIZE much"):
        disk_budget()
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "")
    assert disk_budget() == 4 * 10**9
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "0")
    assert state_folder.state_folder() is None
