"""What was tried to choose hyperparameters, and what was chosen: the findings of the trials of a comparison."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrialOutcome:
    """What one trial found.

    Attributes:
        settings: the strategy's.
        rate: the learning rate that was asked for; None takes the strategy's default.
        cost, loss: of a held-out row of all inner folds, on average: the share of errors, or what the task's own score
            counts. None where training failed.
        seconds: of training, all folds together, at the cold price.
        error: why training failed.
    """

    digest: str
    number: int
    settings: dict[str, Any]
    rate: float | None
    cost: float | None
    loss: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Tuning:
    """What was tried for one strategy on one training part, and what was chosen.

    Attributes:
        budget: how many trials there might have been; a strategy with less to search has fewer.
        chosen: the trial with the lowest cost; of equals the lowest loss, then the first. None where all failed.
    """

    label: str
    split_seed: int
    fold: int | None
    budget: int
    trials: tuple[TrialOutcome, ...]

    @property
    def chosen(self) -> TrialOutcome | None:
        """The trial that won."""
        whole = [trial for trial in self.trials if trial.cost is not None and trial.loss is not None]
        return min(whole, key=lambda t: (_close(t.cost), _close(t.loss), t.number), default=None)

    @property
    def seconds(self) -> float:
        """Of all trials."""
        return sum(trial.seconds for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: of each trial only what differs between them."""
        usual = self.trials[0].settings if self.trials else {}
        trials = []
        for trial in self.trials:
            value = {key: part for key, part in asdict(trial).items() if key not in ("digest", "settings")}
            changed = {key: part for key, part in trial.settings.items() if part != usual.get(key)}
            trials.append({**value, "changed": changed})
        return {
            "label": self.label,
            "split_seed": self.split_seed,
            "fold": self.fold,
            "budget": self.budget,
            "chosen": self.chosen.number if self.chosen else None,
            "seconds": self.seconds,
            "trials": trials,
        }


def _close(number: float | None) -> float:
    """To twelve digits, so that the last bits of a sum decide nothing, in whatever unit."""
    return float(f"{number or 0.0:.12g}")
