"""Checkpoints of a run: how often, where, which two are kept, and which one a resumed run takes.

A run keeps its two newest checkpoints in a folder of its own, ``checkpoint-000001`` and so on, and holds a lock on it
while it trains. Old ones get another name before they are removed, so what has the name of a checkpoint was once whole.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lora_clf.errors import CheckpointError, UsageError
from lora_clf.training.checkpoint import Checkpoint, read_checkpoint, read_facts, write_checkpoint
from lora_clf.training.lock import HeldError, Lock

USUAL: Final = "60s"
_SHARE: Final = 20  # writing takes at most one part in so many of the time, where seconds are asked for
_NAME: Final = re.compile(r"checkpoint-(\d{6,12})")
_LEFT: Final = re.compile(r"\.checkpoint-\d{6,12}-[0-9a-z-]+")  # half-written or half-removed
_LOCK: Final = "lock"
_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Checkpoints:
    """That a run keeps checkpoints, and whether it goes on from the newest.

    Attributes:
        folder: of this run alone; made when needed, removed when the adapter is saved.
        every: steps (``100``) or time (``"60s"``, ``"5m"``, ``"1h"``), of which writing then takes at most a
            twentieth; 0 writes none but on Ctrl-C and SIGTERM.
        resume: go on from the newest checkpoint that is whole, or begin where there is none.
        replace: drop checkpoints of an earlier run that are there.
        tell: told in one line what a person should know at once.
    """

    folder: Path | str
    every: int | str = USUAL
    resume: bool = False
    replace: bool = False
    tell: Callable[[str], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check how often.

        Raises:
            UsageError: neither a number of steps nor a time.
        """
        parse_interval(self.every)

    def say(self, text: str) -> None:
        """Tell a person, where someone listens."""
        if self.tell is not None:
            self.tell(text)


@dataclass(frozen=True)
class Interval:
    """Every so many steps, or every so many seconds, or neither."""

    steps: int | None = None
    seconds: float | None = None


def parse_interval(every: int | str) -> Interval:
    """What ``--checkpoint-every`` means: 100, 60s, 5m, 1h, 0.

    Raises:
        UsageError: it is none of that.
    """
    text = str(every).strip()
    found = re.fullmatch(r"(\d{1,9})\s*(s|m|min|h)?", text, re.ASCII)
    if isinstance(every, bool) or found is None:
        raise UsageError(f"--checkpoint-every {text}: expected steps, as 100, or a time, as 60s or 5m; 0 writes none.")
    number = int(found[1])
    if not number:
        return Interval()
    return Interval(seconds=number * _UNITS[found[2]]) if found[2] else Interval(steps=number)


class CheckpointFolder:
    """The checkpoints of one run, open for writing: a context that holds the lock.

    Attributes:
        path: the folder.
        written: how many checkpoints this run has written.
        failures: why checkpoints could not be written.
    """

    def __init__(self, settings: Checkpoints) -> None:
        self.settings = settings
        self.path = Path(os.path.abspath(settings.folder))
        self.interval = parse_interval(settings.every)
        self.written = 0
        self.failures: list[str] = []
        self._good: Path | None = None  # the newest that is known to be whole
        self._made: list[Path] = []
        self._lock = Lock(self.path / _LOCK)
        self._last, self._cost = time.monotonic(), 0.0

    def __enter__(self) -> CheckpointFolder:
        """Take the lock and remove what a killed process left half-written.

        Raises:
            CheckpointError: another run writes there, the place cannot be written, or checkpoints of an earlier run
                are there and neither ``resume`` nor ``replace`` is set.
        """
        try:
            for folder in (*reversed(self.path.parents), self.path):
                if not folder.exists():
                    folder.mkdir(exist_ok=True)
                    self._made.append(folder)
            self._lock.take()
        except HeldError as error:
            who = f"process {error.owner}" if error.owner is not None else "another process"
            raise CheckpointError(
                f"Another run ({who}) is writing its checkpoints to {self.path}. Wait for its end, or choose another "
                "place with --out."
            ) from error
        except OSError as error:
            self._unmake()
            raise CheckpointError(
                f"Checkpoints cannot be written to {self.path}: {error.strerror or error}. Choose another place with "
                "--out."
            ) from error
        try:
            self._sweep()
            if self.settings.replace and not self.settings.resume:
                self.clear()
            elif not self.settings.resume:
                check_unfinished(self.path)
        except CheckpointError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back; a folder in which nothing is kept goes."""
        self._lock.release()
        if not generations(self.path):
            self._made.append(self.path)
            self._unmake()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None where there is none at all.

        Raises:
            CheckpointError: there are some and none is whole; every one is named with what is wrong.
        """
        wrong = []
        for path in reversed(generations(self.path)):
            try:
                found = read_checkpoint(path)
            except CheckpointError as error:
                wrong.append(f"{path.name}: {error}")
                continue
            self._good = path
            if wrong:
                self.settings.say(f"Went back to {path.name}, an older checkpoint, since {'; '.join(wrong)}.")
            return found
        if wrong:
            raise CheckpointError(
                f"No checkpoint in {self.path} is whole, so there is nothing to resume from: {'; '.join(wrong)}. Start "
                "anew with --force in place of --resume."
            )
        return None

    def due(self, step: int) -> bool:
        """Whether to write a checkpoint after ``step``."""
        if self.interval.steps is not None:
            return step % self.interval.steps == 0
        if self.interval.seconds is not None:
            return time.monotonic() - self._last >= max(self.interval.seconds, _SHARE * self._cost)
        return False

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint beside the one before it; older ones go.

        Raises:
            CheckpointError: it could not be written; those that were there still are.
        """
        started = time.monotonic()
        there = generations(self.path)
        number = 1 + (_number(there[-1]) if there else 0)
        path = self.path / f"checkpoint-{number:06d}"
        try:
            write_checkpoint(path, checkpoint)
        finally:  # after a failure too: a full disk is not tried again at every step
            self._last = time.monotonic()
            self._cost = self._last - started
        kept = {path, self._good or path}
        self._good = path
        self.written += 1
        for old in there:
            if old not in kept:
                self._remove(old)

    def clear(self) -> None:
        """Remove all checkpoints; to be called inside the context."""
        for path in generations(self.path):
            self._remove(path)

    def drop(self) -> None:
        """Remove all checkpoints, where no other run has begun there meanwhile."""
        with suppress(OSError, HeldError):
            if self.path.is_dir():
                self._lock.take()
                try:
                    self.clear()
                finally:
                    self._lock.release()
                    self._made.append(self.path)
                    self._unmake()

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint: first its name, then its files."""
        aside = path.with_name(f".{path.name}-old")
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            os.rename(path, aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what was left half-written or half-removed; the lock says that nobody is at it."""
        for name in os.listdir(self.path):
            if _LEFT.fullmatch(name):
                shutil.rmtree(self.path / name, ignore_errors=True)

    def _unmake(self) -> None:
        """Remove the folders that were made for this, as far as nothing is in them."""
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()
        self._made = []


def checkpoints_beside(adapter: Path) -> Path:
    """Where the checkpoints of a run lie whose adapter goes to ``adapter``."""
    return adapter.with_name(f"{adapter.name}.checkpoints")


def generations(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first; none where there is no such folder."""
    try:
        names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except OSError:
        return []
    return sorted((folder / name for name in names), key=_number)


def check_unfinished(folder: Path) -> None:
    """Refuse a place where an interrupted run left checkpoints.

    Raises:
        CheckpointError: it did; the message says how far it had come.
    """
    if there := generations(folder):
        raise CheckpointError(
            f"A run that was interrupted{standing(folder)} left checkpoints in {folder}. Go on with it by --resume, "
            f"or start anew by --force, which drops {'it' if len(there) == 1 else 'them'}."
        )


def standing(folder: Path) -> str:
    """How far the newest checkpoint in ``folder`` is, as " at step 40 of 312"; empty where it cannot be read."""
    for path in reversed(generations(folder)):
        with suppress(CheckpointError):
            at: Any = read_facts(path).get("position")
            if isinstance(at, dict):
                return f" at step {at.get('step')} of {at.get('steps')}"
    return ""


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])
