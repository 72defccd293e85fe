"""From logits to an answer: which temperature and threshold an adapter gets, found on validation rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.errors import UsageError, unknown
from lora_clf.figures import listed
from lora_clf.metrics.probability import softmax
from lora_clf.metrics.temperature import Temperature, fit_temperature
from lora_clf.metrics.thresholds import (
    RULES,
    Threshold,
    apply_threshold,
    best_threshold,
    precise_threshold,
    rows_for,
)
from lora_clf.tasks.base import Task
from lora_clf.tasks.classification import Classification

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 20
"""Fewer validation rows of the positive class than these choose a threshold that other rows need not share."""


@dataclass(frozen=True)
class Decision:
    """How an adapter's logits become answers; what is found is stored in the adapter.

    Attributes:
        temperature: whether logits are divided by a number that makes probabilities as sure as they are right; fitted
            where validation has 50 rows and a mistake among them. Labels do not change by it.
        threshold: the probability from which on the positive label is answered, or what it is to make largest on
            validation: "f1", "mcc" or "balanced-accuracy". None: the more probable label.
        target_precision: the lowest threshold whose precision on validation is at least this, in place of it.
    """

    temperature: bool = True
    threshold: float | str | None = None
    target_precision: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if isinstance(self.threshold, str):
            if self.threshold not in RULES:
                raise unknown("rule for --threshold", self.threshold, (*RULES, "a number between 0 and 1"))
        elif self.threshold is not None and not (_is_number(self.threshold) and 0 < self.threshold < 1):
            raise UsageError(
                f"--threshold {self.threshold}: expected a number between 0 and 1, or {listed(RULES, 'or')}."
            )
        target = self.target_precision
        if target is not None and not (_is_number(target) and 0 < target <= 1):
            raise UsageError(f"--target-precision {target}: expected a share above 0 and up to 1, such as 0.95.")
        if target is not None and self.threshold is not None:
            raise UsageError("--threshold and --target-precision both choose the threshold. Give one of them.")

    @property
    def cuts(self) -> bool:
        """Whether a threshold was asked for."""
        return self.threshold is not None or self.target_precision is not None

    def check(self, task: Task) -> None:
        """Refuse a threshold for labels that have none.

        Raises:
            UsageError: a threshold was asked for, and there is no positive label.
        """
        if self.cuts and (task.positive_label is None or len(task.labels) != 2):
            shown = ", ".join(task.labels[:10])
            found = f"there are {len(task.labels)}: {shown}" if task.softmax else f"the task is {task.name}"
            raise UsageError(
                f"A threshold is for two labels, one of them to be found; {found}. Leave out --threshold and "
                "--target-precision."
            )


@dataclass(frozen=True)
class Decided:
    """What was found on the validation part.

    Attributes:
        temperature: what temperature scaling found; None where it was not asked for.
        threshold: the threshold; None where none was asked for or none does what was asked.
        warnings: what a person should know about it.
    """

    temperature: Temperature | None
    threshold: Threshold | None
    warnings: tuple[str, ...] = ()

    @property
    def scale(self) -> float | None:
        """What logits are divided by; None: nothing."""
        return None if self.temperature is None else self.temperature.value

    @property
    def cut(self) -> float | None:
        """From which probability on the positive label is answered; None: the more probable one."""
        return None if self.threshold is None else self.threshold.value

    def record(self) -> dict[str, Any]:
        """How temperature and threshold came about, for the adapter; nothing where there is neither."""
        found: dict[str, Any] = {}
        if self.temperature is not None and self.temperature.value is not None:
            found["temperature"] = self.temperature.as_dict()
        if self.threshold is not None:
            found["threshold"] = self.threshold.as_dict()
        return found


def settle(decision: Decision, task: Task, targets: NDArray[Any], logits: NDArray[np.float32]) -> tuple[Task, Decided]:
    """The task with all that is chosen on validation rows, and how that came about.

    Args:
        decision: what is asked for.
        task: as it was trained.
        targets: of the validation part.
        logits: (N, C) its logits.

    Raises:
        UsageError: a threshold was asked for where there is no positive label.
    """
    decision.check(task)
    if isinstance(task, Classification):
        decided = decide(decision, targets, logits, task.labels, task.positive)
        return replace(task, temperature=decided.scale, threshold=decided.cut), decided
    return task.settled(targets, logits) if np.isfinite(logits).all() else task, Decided(None, None)


def decide(
    decision: Decision,
    labels: NDArray[np.int64],
    logits: NDArray[np.float32],
    names: tuple[str, ...],
    positive: str | None,
) -> Decided:
    """Find temperature and threshold on validation rows; the threshold is one of the scaled probabilities.

    Args:
        decision: what is asked for.
        labels: (N,) class numbers of the validation part.
        logits: (N, C) its logits.
        names: the labels, in the order of the logits.
        positive: the label that the threshold is about.

    Raises:
        UsageError: a threshold was asked for where there is no positive label.
    """
    decision.check(Classification(names, positive))
    if not np.isfinite(logits).all():
        return Decided(None, None)  # scoring them says what to do
    temperature = fit_temperature(labels, logits) if decision.temperature else None
    if not decision.cuts or positive is None:
        return Decided(temperature, None)
    column = names.index(positive)
    scale = (temperature.value if temperature is not None else None) or 1.0
    scores = softmax(np.asarray(logits, dtype=np.float64) / scale)[:, column]
    hits = np.asarray(labels) == column
    found: Threshold | None
    if decision.target_precision is not None:
        found = precise_threshold(hits, scores, decision.target_precision)
    elif isinstance(decision.threshold, str):
        found = best_threshold(hits, scores, decision.threshold)
    else:
        found = apply_threshold(hits, scores, float(decision.threshold or 0.5))
    return Decided(temperature, found, tuple(_doubts(decision, found, int(hits.sum()), len(hits), positive)))


def _doubts(decision: Decision, found: Threshold | None, positives: int, rows: int, name: str) -> list[str]:
    """What is not certain about a threshold."""
    target = decision.target_precision
    if found is None and target is not None:
        return [
            f"No threshold has a precision of {target:g} for {name} on the {rows:,} validation rows ({positives:,} "
            f"{name}): none is stored, and the more probable label is answered"
        ]
    if found is None:
        return [
            f"No threshold can be chosen on {rows:,} validation rows of which {positives:,} are {name}: none is stored"
        ]
    said = []
    if positives < FEW and found.rule != "given":
        said.append(
            f"The threshold {found.value:g} was chosen on {positives:,} validation rows of {name}; on so few it may "
            "do otherwise on other texts. Give more validation rows (--split, --validation-file)"
        )
    if target is not None and found.bound < target:
        needed = rows_for(target)
        takes = f"at least {needed:,} rows, all of them right," if needed else "no number of rows"
        said.append(
            f"A precision of {target:g} for {name} is not shown: {found.hits:,} of the {found.flagged:,} validation "
            f"rows from {found.value:g} on are {name}, which leaves the lower 95 % bound at {found.bound:.3f}; "
            f"{takes} would lift it to {target:g}"
        )
    return said


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
