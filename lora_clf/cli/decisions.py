"""How logits become answers: the flags of `train`, and what is said of temperature and threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from lora_clf.cli.flags import Flags
from lora_clf.cli.output import percent

if TYPE_CHECKING:
    from lora_clf.metrics.temperature import Temperature
    from lora_clf.metrics.thresholds import Threshold
    from lora_clf.training.decision import Decided, Decision


@dataclass(frozen=True)
class DecisionFlags(Flags):
    """Which temperature and threshold an adapter gets."""

    panel: ClassVar[str] = "Answers"

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="The positive label is answered from this probability on: a number, or f1, mcc or balanced-accuracy: "
            "what it makes largest on validation. By default the more probable label is answered.",
        ),
    ] = None
    target_precision: Annotated[
        float | None,
        typer.Option(help="The lowest threshold whose precision on validation is at least this, as 0.95."),
    ] = None
    no_temperature: Annotated[
        bool,
        typer.Option(
            "--no-temperature",
            help="Leave probabilities as trained; by default a temperature, fitted on validation where it has 50 rows "
            "and a mistake, makes them as sure as they are right.",
        ),
    ] = False

    def decision(self) -> Decision:
        """What they ask for.

        Raises:
            UsageError: no number and no rule, or two ways to a threshold.
        """
        from lora_clf.training.decision import Decision

        rule: str | float | None = self.threshold
        if self.threshold is not None:
            try:
                rule = float(self.threshold)
            except ValueError:
                rule = self.threshold
        return Decision(not self.no_temperature, rule, self.target_precision)


def decision_lines(decided: Decided, positive: str | None) -> list[str]:
    """What was found on validation, for people."""
    said = [] if decided.temperature is None else [temperature_line(decided.temperature)]
    if decided.threshold is not None and positive is not None:
        said.append(threshold_line(decided.threshold, positive))
    return said


def temperature_line(found: Temperature) -> str:
    """A temperature, or why there is none."""
    if found.value is None:
        return f"Temperature: none, probabilities are as trained ({found.reason})."
    doubt = f"; {found.reason}" if found.reason else ""
    return (
        f"Temperature: {found.value:g}, fitted on {found.rows:,} validation rows, {found.mistakes:,} of them answered "
        f"wrongly: calibration error there {found.error[0]:.4f} before, {found.error[1]:.4f} after{doubt}. "
        "No label changes by it."
    )


def threshold_line(found: Threshold, positive: str) -> str:
    """A threshold, and what it does on validation."""
    how = {"given": "as given", "precision": f"the lowest with a precision of {found.target}"}
    rule = how.get(found.rule, f"the best {found.rule}")
    return (
        f"Threshold: {positive} from a probability of {found.value:g} on ({rule}). Of {found.rows:,} validation rows, "
        f"{found.positives:,} of them {positive}, it flags {found.flagged:,}, {found.hits:,} rightly: precision "
        f"{percent(found.precision)} (95 % lower bound {percent(found.bound)}), recall {percent(found.recall)}."
    )
