"""Head-only training of tasks other than one label of several: the convex problem that each of them is.

With the backbone frozen and a linear head every task of ours whose loss is smooth is convex in the head's weights:
ridge regression, Huber's, one logistic regression a label, the continuation ratio. So it is solved as
`lora_clf.training.solver` solves the softmax: features of unit variance, L-BFGS in float64 (Liu and Nocedal 1989), the
L2 strength by folds inside the training part. Shapes: N texts, D width, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lora_clf.training.solver import STRENGTHS, WORSE, Solution, mean_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Losses = Callable[[Tensor, Tensor], Tensor]

STEPS = 500  # of L-BFGS at most; it stops where slopes vanish
CONVERGED, PATH = 1e-8, 1e-5  # the largest slope; that of fits which only tell strengths apart


def solve_task_head(
    features: NDArray[np.float32],
    targets: NDArray[Any],
    outputs: int,
    losses: Losses,
    folds: NDArray[np.int64],
    *,
    bias: bool,
    weights: NDArray[np.float64] | None = None,
) -> Solution:
    """The head that a task's loss and an L2 penalty of the best strength lead to.

    Args:
        features: (N, D).
        targets: (N, ...), as the task makes them.
        outputs: C.
        losses: of each row, logits (B, C) and targets (B, ...) -> (B,); convex and smooth in the logits.
        folds: (N,) the inner fold of each text; all the same where there are too few texts to choose by.
        bias: whether the head has one.
        weights: how much each text counts (N,): two is the same as having it twice. None: all alike.
    """
    x = features.astype(np.float64)
    counts = np.ones(len(x)) if weights is None else weights
    centre = mean_of(x, counts) if bias else np.zeros(x.shape[1])
    scale = np.sqrt(mean_of((x - centre) ** 2, counts))
    scale = np.maximum(scale, 1e-3 * np.median(scale) + 1e-12)  # what hardly moves is noise
    problem = _Problem(
        torch.from_numpy((x - centre) / scale),
        torch.from_numpy(targets),
        torch.from_numpy(counts),
        outputs,
        losses,
        bias,
    )
    folded = _fold_losses(problem, torch.from_numpy(folds))
    strength = STRENGTHS[int(np.argmin(folded)) if folded else len(STRENGTHS) // 2]
    solved = problem.solve(strength, CONVERGED)
    loss = float(problem.mean(solved))
    found = solved.numpy()
    weight = found[:, :-1] / scale
    offset = found[:, -1] - weight @ centre if bias else np.zeros(len(found))
    return Solution(weight, offset, strength, loss)


@dataclass(frozen=True)
class _Problem:
    """A weighted mean of losses in the weights of a linear head.

    Attributes:
        inputs: (N, D).
        wanted: targets (N, ...).
        counts: how much each row counts (N,).
        outputs: C.
        losses: of each row.
        bias: whether the head has one.
    """

    inputs: Tensor
    wanted: Tensor
    counts: Tensor
    outputs: int
    losses: Losses
    bias: bool

    def of(self, rows: Tensor) -> _Problem:
        """The same of some rows."""
        return replace(self, inputs=self.inputs[rows], wanted=self.wanted[rows], counts=self.counts[rows])

    def mean(self, weights: Tensor) -> Tensor:
        """The weighted mean loss at ``weights`` (C, D + 1)."""
        logits = self.inputs @ weights[:, :-1].T + (weights[:, -1] if self.bias else 0.0)  # (N, C)
        losses = self.losses(logits, self.wanted)
        return losses.mean() if bool((self.counts == 1).all()) else (self.counts * losses).sum() / self.counts.sum()

    def solve(self, strength: float, slope: float, start: Tensor | None = None) -> Tensor:
        """The weights (C, D + 1) at which mean loss + strength / 2 |weights without bias|^2 is smallest."""
        shape = (self.outputs, self.inputs.shape[1] + 1)
        first = torch.zeros(shape, dtype=torch.float64) if start is None else start.clone()
        weights = first.requires_grad_()
        solver = torch.optim.LBFGS(
            [weights],
            max_iter=STEPS,
            max_eval=2 * STEPS,
            tolerance_grad=slope,
            tolerance_change=1e-14,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            solver.zero_grad()
            value = self.mean(weights) + strength / 2 * weights[:, :-1].square().sum()
            value.backward()
            return value

        solver.step(objective)
        return weights.detach()


def _fold_losses(problem: _Problem, folds: Tensor) -> tuple[float, ...]:
    """The mean held-out loss at each strength, from the strongest on, until two are clearly worse than the best."""
    numbers = folds.unique().tolist()
    means: list[float] = []
    starts: dict[int, Tensor] = {}  # each strength starts where the stronger one ended
    total = float(problem.counts.sum())
    for strength in STRENGTHS if len(numbers) > 1 else ():
        lost = 0.0
        for number in numbers:
            starts[number] = problem.of(folds != number).solve(strength, PATH, starts.get(number))
            held_out = problem.of(folds == number)
            lost += float(held_out.mean(starts[number]) * held_out.counts.sum())
        means.append(lost / total)
        if sum(mean > WORSE * min(means) for mean in means[-2:]) == 2:
            break
    return tuple(means)
