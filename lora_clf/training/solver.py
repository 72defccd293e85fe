"""Head-only training as what it is: a convex problem with one solution.

With the backbone frozen and a linear head, training is multinomial logistic regression on the kept features: a loss
with one minimum for every strength of L2 regularisation. It is solved to convergence by L-BFGS (Liu and Nocedal 1989)
instead of being approached for some epochs; the strength is chosen by folds inside the training part, near copies
kept on one side. Shapes: N texts, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from lora_clf.base.head import FreeHead, Head, PoolerHead, ScoreHead
from lora_clf.data.near_copies import components
from lora_clf.data.split import fold_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

# L2 strengths in units of the mean loss, on features of unit variance, strongest first.
STRENGTHS = tuple(float(f"{10.0**-k:.3g}") for k in np.arange(0.0, 5.01, 0.5))
FOLDS = 5


@dataclass(frozen=True)
class Solution:
    """A solved head.

    Attributes:
        weight: (C, D).
        bias: (C,), zeros where the head has none.
        strength: the L2 strength that was chosen.
        loss: the mean training loss without the L2 term.
        fold_losses: the mean held-out loss at each strength of `STRENGTHS`.
    """

    weight: Matrix
    bias: NDArray[np.float64]
    strength: float
    loss: float
    fold_losses: tuple[float, ...]


def linear_of(head: Head) -> nn.Linear | None:
    """The head's one linear layer, or None where the head is more than that."""
    if isinstance(head, FreeHead):
        return head.linear
    if isinstance(head, ScoreHead):
        return head.score
    return head.classifier if isinstance(head, PoolerHead) else None


def inner_folds(texts: Sequence[str], labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The inner fold of each training text, near copies in one: (N,). All zeros where there are too few texts."""
    count = min(FOLDS, len(texts) // 2)
    folds = np.zeros(len(texts), dtype=np.int64)
    if count >= 2:
        for number, rows in enumerate(fold_parts(labels, count, seed, components(texts))):
            folds[rows] = number
    return folds


def solve_head(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, folds: NDArray[np.int64], *, bias: bool
) -> Solution:
    """The head with the lowest regularised loss.

    Args:
        features: pooled vectors of the training texts (N, D).
        labels: class numbers (N,).
        classes: how many there are.
        folds: the inner fold of each text (N,); with fewer than two different ones the middle strength is taken.
        bias: whether the head has one.
    """
    x = features.astype(np.float64)
    centre = x.mean(axis=0) if bias else np.zeros(x.shape[1])
    scale = np.sqrt(((x - centre) ** 2).mean(axis=0))
    # A dimension that hardly moves is noise: brought to unit variance it would get a weight of millions.
    scale = np.maximum(scale, 1e-3 * np.median(scale) + 1e-12)
    x = (x - centre) / scale  # (N, D) of unit variance: one strength fits all directions, and few iterations do.
    targets = np.eye(classes)[labels]  # (N, C)
    losses = np.zeros(len(STRENGTHS))
    for fold in np.unique(folds) if folds.any() else ():
        held_out = folds == fold
        start = np.zeros((classes, x.shape[1] + 1))
        for index, strength in enumerate(STRENGTHS):
            start = _minimise(x[~held_out], targets[~held_out], strength, start, bias)
            losses[index] += _loss(x[held_out], targets[held_out], start) * held_out.sum() / len(x)
    best = int(np.argmin(losses)) if folds.any() else len(STRENGTHS) // 2
    solved = np.zeros((classes, x.shape[1] + 1))
    for strength in STRENGTHS[: best + 1]:
        solved = _minimise(x, targets, strength, solved, bias)
    weight = solved[:, :-1] / scale
    return Solution(
        weight=weight,
        bias=solved[:, -1] - weight @ centre,
        strength=STRENGTHS[best],
        loss=_loss(x, targets, solved),
        fold_losses=tuple(losses.tolist()),
    )


def _log_softmax(x: Matrix, weights: Matrix) -> Matrix:
    logits = x @ weights[:, :-1].T + weights[:, -1]  # (N, C)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def _loss(x: Matrix, targets: Matrix, weights: Matrix) -> float:
    return float(-(targets * _log_softmax(x, weights)).sum() / len(x))


def _minimise(x: Matrix, targets: Matrix, strength: float, start: Matrix, bias: bool) -> Matrix:
    """The minimum of mean loss + strength / 2 · ||W||², from ``start``; the bias is not regularised: (C, D + 1)."""
    from scipy.optimize import minimize

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(start.shape)
        log_shares = _log_softmax(x, weights)
        loss = -(targets * log_shares).sum() / len(x) + strength / 2 * (weights[:, :-1] ** 2).sum()
        error = (np.exp(log_shares) - targets) / len(x)  # (N, C)
        gradient = np.empty_like(weights)
        gradient[:, :-1] = error.T @ x + strength * weights[:, :-1]
        gradient[:, -1] = error.sum(axis=0) if bias else 0.0
        return loss, gradient.ravel()

    options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-6}
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    solved: Matrix = found.x.reshape(start.shape)
    return solved
