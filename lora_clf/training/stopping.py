"""Which epoch is the best: the one that a chosen score of the validation part says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from lora_clf.errors import UsageError, unknown

_LOWER: Final = (
    *("loss", "brier", "calibration_error", "calibration_error_equal_mass", "mae", "rmse", "hamming_loss"),
    "false_positive_rate",
)
_HIGHER: Final = (
    *("accuracy", "balanced_accuracy", "macro_f1", "mcc", "macro_pr_auc", "precision", "recall", "f1", "pr_auc"),
    *("subset_accuracy", "micro_f1", "micro_precision", "micro_recall"),
    *("quadratic_kappa", "within_one", "spearman", "r2", "pearson"),
)


def key_of(name: str) -> str:
    """A score as metrics call it: ``macro-f1`` is ``macro_f1``."""
    return name.strip().lower().replace("-", "_")


def lower_is_better(key: str) -> bool:
    """Whether less of a score is better."""
    return key in _LOWER


def worth(metrics: Mapping[str, Any], stop_on: str) -> tuple[float, ...]:
    """How bad an epoch is, to be compared: lower is better; among equal scores the validation loss decides."""
    key = key_of(stop_on)
    value = float(metrics[key])
    if math.isnan(value):
        value = math.inf
    elif not lower_is_better(key):
        value = -value
    return (value,) if key == "loss" else (value, float(metrics.get("loss", 0.0)))


def check_score(stop_on: str, metrics: Mapping[str, Any]) -> None:
    """Refuse a score that the metrics of this run do not have.

    Raises:
        UsageError: with those that there are.
    """
    there = [key for key, value in metrics.items() if isinstance(value, float) and key in _LOWER + _HIGHER]
    if key_of(stop_on) not in there:
        names = [key.replace("_", "-") for key in there]
        without = "" if "recall" in there else " Those of one class need two labels and --positive-label."
        raise UsageError(f"{unknown('score for --stop-on', stop_on, names)}{without}")
