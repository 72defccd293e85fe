"""Head-only training as what it is: a convex problem with one solution.

With the backbone frozen and a linear head, training is multinomial logistic regression on the kept features: a loss
with one minimum for every strength of L2 regularisation. It is solved to convergence by L-BFGS (Liu and Nocedal 1989)
instead of being approached for some epochs; the strength is chosen by folds inside the training part, near copies
kept on one side. Shapes: N texts, D width, C classes, F folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lora_clf.base.head import FreeHead, Head, PoolerHead, ScoreHead
from lora_clf.data.split import fold_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

# L2 strengths in units of the mean loss, on features of unit variance, strongest first.
STRENGTHS = tuple(float(f"{10.0**-k:.3g}") for k in np.arange(0.0, 5.01, 0.5))
FOLDS = 5
WORSE = 1.02  # times the lowest held-out loss: from two of these on weaker strengths are not tried


class Tolerance(NamedTuple):
    """When to stop: a step gains less than ``loss`` of the loss, or no slope is above ``slope``."""

    loss: float
    slope: float


CONVERGED = Tolerance(1e-12, 1e-6)
PATH = Tolerance(1e-6, 1e-4)  # on the way there, and to tell strengths apart


@dataclass(frozen=True)
class Solution:
    """A solved head.

    Attributes:
        weight: (C, D).
        bias: (C,), zeros where the head has none.
        strength: the L2 strength that was chosen.
        loss: the mean training loss without the L2 term.
    """

    weight: Matrix
    bias: NDArray[np.float64]
    strength: float
    loss: float


def linear_of(head: Head) -> nn.Linear | None:
    """The head's one linear layer, or None where the head is more than that."""
    if type(head) is FreeHead:
        return head.linear
    if isinstance(head, ScoreHead):
        return head.score
    return head.classifier if isinstance(head, PoolerHead) else None


def inner_folds(groups: NDArray[np.int64], labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The inner fold of each training text (N,), those of one group in one. All zeros where there are too few texts."""
    count = min(FOLDS, len(labels) // 2)
    folds = np.zeros(len(labels), dtype=np.int64)
    if count >= 2:
        for number, rows in enumerate(fold_parts(labels, count, seed, groups)):
            folds[rows] = number
    return folds


def solve_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    folds: NDArray[np.int64],
    *,
    bias: bool,
    weights: NDArray[np.float64] | None = None,
    smoothing: float = 0.0,
) -> Solution:
    """The head with the lowest regularised loss.

    Args:
        features: pooled vectors of the training texts (N, D).
        labels: class numbers (N,).
        classes: how many there are.
        folds: the inner fold of each text (N,); with fewer than two different ones the middle strength is taken.
        bias: whether the head has one.
        weights: how much each text counts (N,): two is the same as having it twice. None: all alike.
        smoothing: the share of each target that is spread over all classes.
    """
    x = features.astype(np.float64)
    weights = np.ones(len(x)) if weights is None else weights
    centre = mean_of(x, weights) if bias else np.zeros(x.shape[1])
    scale = np.sqrt(mean_of((x - centre) ** 2, weights))
    # A dimension that hardly moves is noise: brought to unit variance it would get a weight of millions.
    scale = np.maximum(scale, 1e-3 * np.median(scale) + 1e-12)
    # Of unit variance: one strength fits all directions, and few iterations do.
    targets = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    problem = _Problem((x - centre) / scale, targets, bias, weights)
    losses = _fold_losses(problem, folds) if len(np.unique(folds)) > 1 else ()
    best = int(np.argmin(losses)) if losses else len(STRENGTHS) // 2
    solved = np.zeros((1, classes, x.shape[1] + 1))
    everything = np.ones((1, len(x)), dtype=bool)
    for strength in STRENGTHS[:best]:  # from the strongest on: each starts near where the next one ends
        solved = problem.minimum(everything, strength, solved, PATH)
    solved = problem.minimum(everything, STRENGTHS[best], solved, CONVERGED)
    weight = solved[0, :, :-1] / scale
    return Solution(
        weight=weight,
        bias=solved[0, :, -1] - weight @ centre,
        strength=STRENGTHS[best],
        loss=float(mean_of(problem.losses(solved)[0], weights)),
    )


def _fold_losses(problem: _Problem, folds: NDArray[np.int64]) -> tuple[float, ...]:
    """The mean held-out loss at each strength, until weaker ones only get worse."""
    held_out = np.stack([folds == fold for fold in np.unique(folds)])  # (F, N)
    solved = np.zeros((len(held_out), *problem.shape))
    counts = np.broadcast_to(problem.weights, held_out.shape)[held_out]
    losses: list[float] = []
    for strength in STRENGTHS:
        solved = problem.minimum(~held_out, strength, solved, PATH)
        losses.append(float(mean_of(problem.losses(solved)[held_out], counts)))
        if len(losses) > 2 and min(losses[-2:]) > WORSE * min(losses):
            break
    return tuple(losses)


def mean_of(values: Matrix, weights: NDArray[np.float64]) -> Any:
    """The weighted mean over the first axis."""
    if np.all(weights == 1):  # to the last bit what it is without weights
        return values.mean(axis=0)
    return np.average(values, axis=0, weights=weights)


class _Problem:
    """Logistic regression of the same texts, several times at once: each time on some of them.

    The texts are read once for all of them, and reading is what takes the time. Everything is torch's, whose threads
    are there already: those of numpy's and scipy's own library would fight them for the cores.

    Attributes:
        shape: of one solution, weights and bias (C, D + 1).
        weights: how much each text counts (N,).
    """

    def __init__(self, x: Matrix, targets: Matrix, bias: bool, weights: NDArray[np.float64]) -> None:
        self.x, self.targets, self.bias = torch.from_numpy(x), torch.from_numpy(targets), bias
        self.weights = weights
        self.shape = (targets.shape[1], x.shape[1] + 1)

    def _log_shares(self, weights: Tensor) -> Tensor:
        """Log-softmax of the logits: (F, C, D + 1) -> (F, N, C)."""
        logits = self.x @ weights[..., :-1].flatten(0, 1).t()  # (N, F C)
        return (logits.view(len(self.x), *weights.shape[:2]).movedim(0, 1) + weights[:, None, :, -1]).log_softmax(-1)

    def losses(self, weights: NDArray[np.float64]) -> Matrix:
        """The loss of each text: (F, C, D + 1) -> (F, N)."""
        found: Matrix = -(self.targets * self._log_shares(torch.from_numpy(weights))).sum(-1).numpy()
        return found

    def minimum(
        self, chosen: NDArray[np.bool_], strength: float, start: NDArray[np.float64], tolerance: Tolerance
    ) -> NDArray[np.float64]:
        """The minima of weighted mean loss + strength / 2 · ||W||², the bias not regularised: (F, C, D + 1).

        Args:
            chosen: which texts each of them sees (F, N).
            strength: of the L2 term.
            start: where to begin (F, C, D + 1).
            tolerance: when to stop.
        """
        weighed = chosen * self.weights
        shares = torch.from_numpy(weighed / weighed.sum(axis=1, keepdims=True))[..., None]  # (F, N, 1)
        weights = nn.Parameter(torch.from_numpy(start).clone())
        search = torch.optim.LBFGS(
            [weights],
            max_iter=1000,
            max_eval=1250,
            tolerance_grad=tolerance.slope,
            tolerance_change=tolerance.loss,
            line_search_fn="strong_wolfe",
        )

        @torch.no_grad()
        def objective() -> float:
            logs = self._log_shares(weights)  # (F, N, C)
            loss = -(shares * self.targets * logs).sum() + strength / 2 * weights[..., :-1].square().sum()
            error = shares * (logs.exp() - self.targets)  # (F, N, C)
            slope = error.movedim(1, 2).flatten(0, 1) @ self.x  # (F C, D)
            gradient = torch.zeros_like(weights)
            gradient[..., :-1] = slope.view(*start.shape[:2], -1) + strength * weights[..., :-1]
            if self.bias:
                gradient[..., -1] = error.sum(1)
            weights.grad = gradient
            return float(loss)

        search.step(objective)
        solved: NDArray[np.float64] = weights.detach().numpy()
        return solved
