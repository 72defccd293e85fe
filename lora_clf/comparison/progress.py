"""Where a comparison stands, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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
