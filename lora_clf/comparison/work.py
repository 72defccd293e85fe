"""Does the units of work of a plan, some at a time, and tells where the whole plan stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

from lora_clf.comparison.child import Task, run_batches
from lora_clf.comparison.comparison import Failure
from lora_clf.comparison.estimate import Clock
from lora_clf.comparison.progress import PlanProgress, Tell
from lora_clf.errors import UsageError

BATCH = 20  # runs of a learning curve that share a process, which loads base and data once
U = TypeVar("U")


@dataclass
class Work:
    """The runs of a plan on their way.

    Attributes:
        tell: told about everything.
        clock: what is left of the time.
        total: how many runs the plan has.
        done: how many of them have ended, or were there before.
        jobs, threads: processes at a time, and threads of each (None: what the environment says).
        failures: what gave nothing, and why.
    """

    tell: Tell
    clock: Clock
    total: int
    done: int = 0
    jobs: int = 1
    threads: int | None = None
    failures: list[Failure] = field(default_factory=list)

    def keep(self, names: Iterable[str], price: Mapping[str, str] | None = None) -> None:
        """Runs that were there already; with their prices, where the clock had counted them."""
        for name in names:
            self.done += 1
            if price is not None:
                self.clock.drop(price[name])
            self.tell(PlanProgress(name, self.done, self.total, event="kept"))

    def estimate(self) -> None:
        """Say what is ahead."""
        left, message = self.clock.left(), self.clock.sentence()
        self.tell(PlanProgress("", self.done, self.total, seconds_left=left, event="estimate", message=message))

    def fail(self, failure: Failure) -> None:
        """Report what gave nothing."""
        self.failures.append(failure)
        message = failure.message
        self.tell(PlanProgress(failure.cell, self.done, self.total, event="failed", message=message))

    def do(self, batches: Sequence[Sequence[Task]], price: Mapping[str, str], came: Callable[[str], bool]) -> None:
        """Run all tasks.

        Args:
            batches: the tasks of one process each.
            price: of each task, by name.
            came: whether the result of a task that says it is done can be read, by name.
        """
        with closing(run_batches(batches, self.jobs, self.threads)) as news:
            for item in news:
                name = item.task.name
                if item.event == "start":
                    self.clock.start(name, price[name])
                    left = self.clock.left()
                    self.tell(PlanProgress(name, self.done, self.total, seconds_left=left, event="start"))
                elif item.event == "step":
                    self.clock.step(name, item.step / max(1, item.steps))
                    left = self.clock.left()
                    self.tell(PlanProgress(name, self.done, self.total, item.step, item.steps, left))
                else:
                    self._end(item.task, item.failure, came)

    def _end(self, task: Task, failure: Failure | None, came: Callable[[str], bool]) -> None:
        self.clock.stop(task.name)
        self.done += 1
        if failure is None and not came(task.name):
            failure = Failure(task.name, task.label, "LoraClfError", "no result came back")
        if failure is not None:
            self.fail(failure)
            return
        left = self.clock.left()
        self.tell(PlanProgress(task.name, self.done, self.total, seconds_left=left, event="done"))


def batched(units: Sequence[U], kind: Callable[[U], object]) -> list[list[U]]:
    """The units in their order, those of one kind together, at most `BATCH` in one."""
    by_kind: dict[object, list[U]] = {}
    for unit in units:
        by_kind.setdefault(kind(unit), []).append(unit)
    return [group[start : start + BATCH] for group in by_kind.values() for start in range(0, len(group), BATCH)]


def threads_each(jobs: int, threads: int | None) -> int | None:
    """The threads of each run: those asked for, else the cores divided by the jobs; None leaves the usual.

    Raises:
        UsageError: fewer than one job or thread.
    """
    if jobs < 1 or (threads is not None and threads < 1):
        wrong = f"--jobs {jobs}" if jobs < 1 else f"--threads {threads}"
        raise UsageError(f"{wrong}: expected at least 1.")
    if threads is not None or jobs == 1:
        return threads
    import torch

    return max(1, torch.get_num_threads() // jobs)
