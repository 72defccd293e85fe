"""Does the units of work of a plan, some at a time, and tells where the whole plan stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

from lora_clf.comparison.comparison import Failure
from lora_clf.comparison.plan import Cell
from lora_clf.errors import UsageError
from lora_clf.experiment.child import run_batches
from lora_clf.experiment.estimate import Clock
from lora_clf.experiment.folder import Folder
from lora_clf.experiment.tuning import Trial

BATCH = 20  # runs of a learning curve that share a process, which loads base and data once
U = TypeVar("U")


@dataclass(frozen=True)
class PlanProgress:
    """Where a comparison stands.

    Attributes:
        cell: the run at work, or what was just finished; with several at a time the one that there is news of.
        done, total: runs.
        step, steps: of the run at work.
        seconds_left: for the whole plan; None before the first estimate.
        event: "estimate", "start", "step", "done", "kept" (it was there already) or "failed".
        message: one line for people, where there is something to say.
    """

    cell: str
    done: int
    total: int
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    event: str = "step"
    message: str = ""


Tell = Callable[[PlanProgress], None]


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

    def keep(self, names: Iterable[str], prices: Iterable[str] = ()) -> None:
        """Runs that were there already, and the prices of those that the clock had counted."""
        for price in prices:
            self.clock.drop(price)
        for name in names:
            self.done += 1
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

    def do(self, batches: Sequence[Sequence[Cell | Trial]], folder: Folder) -> None:
        """Run all units, each batch in one process, and keep what they find in ``folder``."""
        units = {unit.name: unit for batch in batches for unit in batch}
        tasks = [[folder.task(unit) for unit in batch] for batch in batches]
        with closing(run_batches(tasks, self.jobs, self.threads)) as news:
            for item in news:
                unit = units[item.task.name]
                if item.event == "start":
                    self.clock.start(unit.name, unit.price)
                    self.tell(
                        PlanProgress(unit.name, self.done, self.total, seconds_left=self.clock.left(), event="start")
                    )
                elif item.event == "step":
                    self.clock.step(unit.name, item.step / max(1, item.steps))
                    left = self.clock.left()
                    self.tell(PlanProgress(unit.name, self.done, self.total, item.step, item.steps, left))
                else:
                    came = item.failure is None and folder.holds(unit)
                    lost = Failure(unit.name, item.task.label, "LoraClfError", "no result came back")
                    self._end(unit, None if came else item.failure or lost)

    def _end(self, unit: Cell | Trial, failure: Failure | None) -> None:
        self.clock.stop(unit.name)
        self.done += 1
        if failure is not None:
            self.fail(failure)
            return
        left = self.clock.left()
        self.tell(PlanProgress(unit.name, self.done, self.total, seconds_left=left, event="done"))


def batched(units: Sequence[U], cell_of: Callable[[U], Cell]) -> list[list[U]]:
    """The units in their order, those of one contender on one training part together, at most `BATCH` in one."""
    together: dict[object, list[U]] = {}
    for unit in units:
        cell = cell_of(unit)
        together.setdefault((cell.contender.label, cell.split_seed, cell.fold), []).append(unit)
    return [group[start : start + BATCH] for group in together.values() for start in range(0, len(group), BATCH)]


def in_order(failures: Iterable[Failure], units: Sequence[Cell | Trial]) -> tuple[Failure, ...]:
    """The failures in the order of the plan, whichever came first; those of baselines lead."""
    places = {unit.name: place for place, unit in enumerate(units)}
    return tuple(sorted(failures, key=lambda failure: places.get(failure.cell, -1)))


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
