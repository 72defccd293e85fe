"""How far a number is from the true one. ``truth`` and ``guess`` are (N,) in the units of the data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lora_clf.errors import UsageError

Floats = npt.NDArray[np.float64]


def _pair(truth: npt.ArrayLike, guess: npt.ArrayLike) -> tuple[Floats, Floats]:
    true, found = np.asarray(truth, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    if true.ndim != 1 or true.shape != found.shape:
        raise UsageError(f"Numbers of shape {true.shape} and {found.shape} came; expected two of shape (N,).")
    return true, found


def power_of(*numbers: Floats) -> int:
    """The power of two over which all ``numbers`` are at most 1: squares of 1e-200 and of 1e200 leave float64.

    `np.ldexp` takes them there and back without losing a digit.
    """
    return int(np.frexp(max(np.abs(each).max(initial=0) for each in numbers))[1])


def _near_one(truth: npt.ArrayLike, guess: npt.ArrayLike) -> tuple[Floats, Floats, int]:
    true, found = _pair(truth, guess)
    power = power_of(true, found)
    return np.ldexp(true, -power), np.ldexp(found, -power), power


def mean_absolute_error(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The mean of |guess - truth|; 0.0 where there are none."""
    true, found = _pair(truth, guess)
    return float(np.abs(found - true).mean()) if len(true) else 0.0


def root_mean_squared_error(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The root of the mean of (guess - truth)^2; 0.0 where there are none."""
    true, found, power = _near_one(truth, guess)
    return float(np.ldexp(np.sqrt(np.square(found - true).mean()), power)) if len(true) else 0.0


def explained(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """R2 = 1 - sum (truth - guess)^2 / sum (truth - mean)^2: 0 for who says the mean, below for who is worse.

    0.0 where all true numbers are the same, for then there is nothing to explain.
    """
    true, found, _ = _near_one(truth, guess)
    if not len(true) or np.ptp(true) == 0:  # rounding alone would make a spread
        return 0.0
    spread = float(np.square(true - true.mean()).sum())
    return 1.0 - float(np.square(true - found).sum()) / spread if spread else 0.0


def pearson(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The linear correlation, -1 to 1; 0.0 where either side is the same everywhere."""
    true, found, _ = _near_one(truth, guess)
    if len(true) < 2 or np.ptp(true) == 0 or np.ptp(found) == 0:
        return 0.0
    a, b = true - true.mean(), found - found.mean()
    below = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / below, -1.0, 1.0)) if below else 0.0


def spearman(truth: npt.ArrayLike, guess: npt.ArrayLike) -> float:
    """The correlation of the ranks, equal numbers sharing the mean of their ranks (Spearman 1904); 0.0 as `pearson`."""
    true, found = _pair(truth, guess)
    return pearson(ranks(true), ranks(found))


def ranks(values: npt.ArrayLike) -> Floats:
    """The rank of each number from 1 on (N,); equal numbers share the mean of theirs."""
    numbers = np.asarray(values, dtype=np.float64)
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: Floats = (last - (counts - 1) / 2.0)[place.reshape(-1)]
    return shared


def regression_scores(truth: npt.ArrayLike, guess: npt.ArrayLike) -> dict[str, float | int]:
    """All of them: ``n``, ``mae``, ``rmse``, ``r2``, ``pearson``, ``spearman``."""
    true, found = _pair(truth, guess)
    return {
        "n": len(true),
        "mae": mean_absolute_error(true, found),
        "rmse": root_mean_squared_error(true, found),
        "r2": explained(true, found),
        "pearson": pearson(true, found),
        "spearman": spearman(true, found),
    }
