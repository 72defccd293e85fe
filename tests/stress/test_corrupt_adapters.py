"""A spoilt adapter is refused in one line, or is the adapter that it was: never a crash, never a silent accept."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.file import list_adapters, read_header
from lora_clf.adapters.peft_folder import is_foreign
from lora_clf.adapters.pool import AdapterPool
from lora_clf.adapters.verification import verify_folder
from lora_clf.base.base import Base
from lora_clf.errors import AdapterError, LoraClfError
from tests.adapters.making import TEXTS, make, shared_base
from tests.stress.conftest import Counted
from tests.stress.mutations import NEUTRAL, SIGNED, SIGNED_WEIGHTS, SPOILT, Files, Mutant, mutant, write

# Of the processor, for each thing that is done with a folder. `make stress` measures; the usual tests only have to see
# what takes for ever, on whatever machine and beside whatever else runs there.
SECONDS: Final = 1.0 if "STRESS_RESULTS" in os.environ else 20.0
PATIENCE: Final = 900  # seconds of the clock, after which something waits for ever
MEMORY: Final = 64 << 20  # bytes

ADAPTERS: Final[tuple[tuple[str, str, str, str], ...]] = (  # base, strategy, pooling, dtype
    ("bert", "lora", "family", "fp32"),
    ("bert", "lora-scratch", "mean", "fp32"),
    ("bert", "lora-scratch", "first", "bf16"),
    ("bert", "head-only", "mean", "fp32"),
    ("bert", "last-block", "family", "fp32"),
    ("bert", "full", "mean", "fp32"),
    ("gpt2", "lora", "family", "fp32"),
    ("gpt2", "last-block", "last", "bf16"),
)


class Original:
    """A whole adapter: its files, and what it answers."""

    def __init__(self, folder: Path, base: Base) -> None:
        self.base = base
        self.files: Files = {path.name: path.read_bytes() for path in folder.iterdir()}
        adapter = load_adapter(folder, base, verify=True)
        self.header, self.logits = adapter.header, adapter.logits(TEXTS)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Original]:
    made = []
    for number, (name, strategy, pooling, dtype) in enumerate(ADAPTERS):
        header: dict[str, Any] = {"threshold": 0.4, "temperature": 1.5} if number % 2 else {}
        folder = tmp_path_factory.mktemp("originals") / str(number)
        make(name, strategy, pooling, **header).save(folder, dtype=dtype)
        made.append(Original(folder, shared_base(name)))
    assert len({original.header.digest for original in made}) == len(ADAPTERS) == 8
    return made


@cache
def _peak_can_be_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _peak() -> int:
    if _peak_can_be_reset():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def bounded(what: str, times: int = 1) -> Iterator[None]:
    """Holds a block to ``times`` the seconds and to the memory; what waits for ever is stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"{what}: still at it after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    if _peak_can_be_reset():
        Path("/proc/self/clear_refs").write_text("5")
    memory, start = _peak(), time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    took, more = time.process_time() - start, _peak() - memory
    assert took < times * SECONDS, f"{what} took {took:.2f} s of the processor"
    assert more < MEMORY, f"{what} took {more >> 20} MB of memory"


def tried(folder: Path, original: Original) -> Adapter | LoraClfError:
    """What the command line does with a folder: it is listed, looked into, loaded with digest and canaries."""
    with bounded("listing"):
        listed = list_adapters(folder.parent)
    assert len(listed) <= 1
    try:
        with bounded("reading the header"):
            assert read_header(folder).labels
    except AdapterError as error:
        assert not listed or isinstance(listed[0][1], AdapterError), error
    with bounded("asking whose it is"):
        is_foreign(folder)
    try:
        with bounded("loading"):
            return load_adapter(folder, original.base, verify=True)
    except LoraClfError as error:
        said = str(error)
        assert said.strip() and len(said) < 6_000 and said.count("\n") < 40, said[:300]
        assert said.replace("\n", "").isprintable(), said
        return error


def also(folder: Path, original: Original, found: Adapter | LoraClfError) -> None:
    """The other ways in agree: with labels as for PEFT's folders, in a pool, and step by step."""
    pool = AdapterPool(original.base)
    for load in (
        lambda: load_adapter(folder, original.base, labels=original.header.labels, verify=True),
        lambda: pool.add("one", folder),
    ):
        try:
            with bounded("another way in"):
                load()
        except LoraClfError:
            continue
        assert isinstance(found, Adapter) or "canaries" in str(found) or "labels" in str(found), found
    try:
        with bounded("verifying"):
            steps = verify_folder(folder, lambda header: original.base)
    except AdapterError:
        assert isinstance(found, LoraClfError)
        return
    assert all(step.passed for step in steps) is isinstance(found, Adapter), (steps, found)


def judge(drawn: Mutant, found: Adapter | LoraClfError, original: Original, originals: list[Original]) -> str:
    """ "refused", "unchanged", or "another": a whole adapter that is not the one that was spoilt."""
    if isinstance(found, LoraClfError):
        assert drawn.fate != NEUTRAL, found
        return "refused"
    if drawn.fate == SIGNED:
        assert found.header.digest != original.header.digest
        assert {answer.label for answer in found.predict(TEXTS)} <= set(found.labels)
        return "another"
    logits = found.logits(TEXTS)
    if drawn.fate == SIGNED_WEIGHTS:  # the position of a padded token, say: nothing that any text gets to see
        np.testing.assert_allclose(logits, original.logits, rtol=1e-3, atol=1e-3)
        return "unchanged"
    if drawn.kind.startswith("mixed") and found.header.digest != original.header.digest:
        # Both files of another adapter of the same layout: that one, whole.
        original = next(each for each in originals if each.header.digest == found.header.digest)
    assert found.header == original.header
    np.testing.assert_array_equal(logits, original.logits)
    return "unchanged"


def spoil(seed: int, count: int, originals: list[Original], room: Path) -> dict[str, Counter[str]]:
    """What came of ``count`` mutations, by fate."""
    files = [original.files for original in originals]
    for original in originals:  # what is imported or kept from the first time on is not a mutation's
        write(room / "adapter", original.files)
        also(room / "adapter", original, tried(room / "adapter", original))
    fates: dict[str, Counter[str]] = {fate: Counter() for fate in (SPOILT, NEUTRAL, SIGNED, SIGNED_WEIGHTS)}
    failures = []
    for number in range(count):
        which, drawn = mutant(seed, number, files)
        original = originals[which]
        what = f"mutation {seed}/{number} ({drawn.kind}) of {ADAPTERS[which]}"
        write(room / "adapter", drawn.files)
        try:
            found = tried(room / "adapter", original)
            if number % 10 == 0:
                also(room / "adapter", original, found)
            came = judge(drawn, found, original, originals)
        except Exception as error:
            failures.append(f"{what}: {type(error).__name__}: {str(error)[:300]}")
            continue
        fates[drawn.fate][came] += 1
    assert not failures, "\n".join([f"{len(failures)} of {count}", *failures[:20]])
    return fates


def test_some_mutations(originals: list[Original], tmp_path: Path) -> None:
    fates = spoil(1, 300, originals, tmp_path)
    assert sum(map(sum, (fate.values() for fate in fates.values()))) == 300
    assert fates[SPOILT]["refused"] > 200 and fates[NEUTRAL]["unchanged"] > 5
    assert fates[SIGNED]["refused"] > 5 and fates[SIGNED]["another"] > 1


@pytest.mark.stress
def test_ten_thousand_mutations(originals: list[Original], tmp_path: Path, counted: Counted) -> None:
    fates = spoil(2, 10_000, originals, tmp_path)
    counted(
        "corrupt adapters",
        {
            "mutations": sum(map(sum, (fate.values() for fate in fates.values()))),
            "by what was done": {fate: dict(sorted(came.items())) for fate, came in fates.items()},
            "crashes, hangs over 1 s, memory over 64 MB, silent accepts": 0,
        },
    )
    assert sum(came.total() for came in fates.values()) == 10_000
    assert fates[SPOILT]["refused"] > 7_500 and fates[NEUTRAL]["unchanged"] > 500 and fates[SIGNED]["refused"] > 400
