"""What the speed benchmarks share: sides timed in turn, their ratio with an interval, peak memory, result files.

A stopwatch on a busy machine says little about one side alone. So all sides of a comparison run once in every
*block*, in shuffled order, and what counts is the ratio inside a block: what slows the machine for some minutes slows
both. Memory is measured in a process that does nothing else.

    blocks = interleave({"ours": ours, "theirs": theirs}, 7, seed=0)     # each side returns seconds
    found = ratio([b["theirs"] for b in blocks], [b["ours"] for b in blocks])
    found.median, found.low, found.high                                  # 5.2, 5.0, 5.4: ours is 5.2 times as fast
    merge_result(RESULTS / "speed_x.json", "job", {"ratio": found.as_dict(), "provenance": provenance(base.device)})
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
BLOCKS = 7


@dataclass(frozen=True)
class Ratio:
    """How many times as large one side is as the other.

    Attributes:
        median: of the ratios of all blocks.
        low: the lower end of the 95 % interval of the mean log ratio (Student's t over blocks), as a ratio.
        high: its upper end. Both are None with a single block, which shows no spread.
        blocks: how many there were.
    """

    median: float
    low: float | None
    high: float | None
    blocks: int

    def as_dict(self) -> dict[str, Any]:
        """The ratio, ready for JSON, to four digits."""
        return {key: short(value) if isinstance(value, float) else value for key, value in asdict(self).items()}


def interleave(
    sides: Mapping[str, Callable[[], float]],
    blocks: int = BLOCKS,
    seed: int = 0,
    *,
    first: int = 0,
    told: Callable[[int, str, float], None] | None = None,
) -> list[dict[str, float]]:
    """Seconds of every side in every block; a side does its work and returns the seconds that it counts.

    Nothing is warmed up here: where the first run of a process is slower, call each side once before.

    Args:
        sides: the work of each side, by name. `timed` makes one of plain work.
        blocks: how many times every side runs.
        seed: of the order inside each block, which is shuffled anew in each.
        first: the number of the first block, for a measurement that goes on where another stopped.
        told: called with block, side and seconds after each.
    """
    found = []
    for block in range(first, first + blocks):
        order = sorted(sides)
        random.Random(f"{seed}/{block}").shuffle(order)
        seconds = {}
        for name in order:
            gc.collect()  # no side pays for what another left behind
            seconds[name] = sides[name]()
            if told is not None:
                told(block, name, seconds[name])
        found.append({name: seconds[name] for name in sides})
    return found


class Budget:
    """Seconds from now, after which no piece of work begins; one is taken to be as long as the longest before it."""

    def __init__(self, seconds: float | None) -> None:
        self.end = time.monotonic() + (seconds or math.inf)
        self.begun: float | None = None
        self.longest = 0.0

    def allows_more(self) -> bool:
        """Asked before each piece: whether it would end in time; the first may always begin."""
        before, self.begun = self.begun, time.monotonic()
        if before is None:
            return True
        self.longest = max(self.longest, self.begun - before)
        return self.begun + self.longest <= self.end


@dataclass(frozen=True)
class Timing:
    """What one run of a side took.

    Attributes:
        seconds: of the whole job, extrapolated where it was not complete.
        measured: seconds that really passed while it was counted.
        steps: steps that were run.
        total_steps: steps of the whole job.
    """

    seconds: float
    measured: float
    steps: int
    total_steps: int

    @property
    def complete(self) -> bool:
        """Whether nothing was extrapolated."""
        return self.steps == self.total_steps


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """``work`` as a side of `interleave`: it returns the seconds that it took."""

    def side() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return side


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """How many times as large ``a`` is as ``b``, block by block.

    Raises:
        ValueError: no blocks, not as many of one side as of the other, or a figure that is not above zero.
    """
    from lora_clf.evaluation.intervals import mean_spread

    if not a or len(a) != len(b) or min(*a, *b) <= 0:
        raise ValueError(f"{list(a)} and {list(b)} came; expected as many positive figures of each side.")
    logs = [math.log(x / y) for x, y in zip(a, b, strict=True)]
    interval = mean_spread(logs).interval
    low, high = (None, None) if interval is None else (math.exp(interval.low), math.exp(interval.high))
    return Ratio(math.exp(median(logs)), low, high, len(logs))


def peak_above(work: Callable[[], object]) -> dict[str, Any]:
    """Bytes that ``work`` needs at its peak beyond what the process holds before: call it in a process of its own.

    Load the base and import everything first, or it counts as well.

    Returns:
        ``held_bytes`` before, ``peak_bytes`` at the peak, ``above_bytes`` between them, and ``restarted``: whether the
        system could let the peak start anew; where it is false the peak may be that of loading, and above is an
        upper bound.
    """
    from lora_clf.experiment.memory import current_bytes, peak_bytes, restart_peak

    settle()
    held, restarted = current_bytes(), restart_peak()
    work()
    peak = peak_bytes()
    return {"held_bytes": held, "peak_bytes": peak, "above_bytes": max(0, peak - held), "restarted": restarted}


def synchronise(device: torch.device) -> None:
    """Wait for an accelerator, whose work goes on behind the program's back."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def settle() -> None:
    """Give freed memory back to the system, so that it does not count as held."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


def in_child(
    script: Path,
    arguments: Sequence[str],
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What ``script`` prints as JSON in its last line, run in a process of its own with ``arguments``.

    ``environment`` is added to that of this process.

    Raises:
        RuntimeError: it failed; the message ends with its last words.
        subprocess.TimeoutExpired: it took more than ``timeout`` seconds.
    """
    child = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        raise ended(script, arguments, child.returncode, child.stderr)
    return json.loads(lines[-1])


def ended(script: Path, arguments: Sequence[str], status: int, complaints: str) -> RuntimeError:
    """What is raised where a process of its own ended without an answer, with its last words."""
    words = "\n".join(complaints.strip().splitlines()[-5:])
    return RuntimeError(f"{script.name} {' '.join(arguments)} ended with {status}: {words}")


def provenance(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a time depends on: versions, machine, threads, instruction set, commit. Nothing that names a host."""
    import torch

    from lora_clf.experiment.environment import code_digest, machine_facts
    from lora_clf.inference.precision import has_native_bf16

    where = torch.device(device)
    facts = machine_facts(where)
    facts["machine"]["native_bf16"] = has_native_bf16(where)
    if where.type == "cuda":
        facts["machine"]["accelerator"] = torch.cuda.get_device_name(where)
    return {**facts, "commit": commit(), "code_digest": code_digest()}


def commit() -> str | None:
    """The commit of this checkout, with "+" where its code was changed since; None outside git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return head and head + ("+" if git("status", "--porcelain", "--", "lora_clf", "benchmarks/*.py") else "")


def key_of(code: Sequence[str], facts: Mapping[str, Any], *parts: Any) -> str:
    """A digest of all that a block depends on: scripts by name, a `provenance` but for its commit, and ``parts``."""
    scripts = b"".join((REPOSITORY / "benchmarks" / f"{name}.py").read_bytes() for name in code)
    told = [hashlib.sha256(scripts).hexdigest(), {name: facts[name] for name in facts if name != "commit"}, *parts]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def short(value: float, digits: int = 4) -> float:
    """``value`` to so many digits, as a result file holds it."""
    return float(f"{value:.{digits}g}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty where there is no such file."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to ``path`` in one go: a reader sees the old file or the new one."""
    from lora_clf.data.cache import write_whole

    write_whole(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def merge_result(path: Path, job: str, value: Mapping[str, Any]) -> None:
    """Put the result of one job into a file of several and leave the others as they are."""
    write_json(path, {**read_json(path), job: dict(value)})
