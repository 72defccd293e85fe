"""Head-only training of tasks other than one label of several: the convex problem that each of them is.

With the backbone frozen and a linear head every task of ours whose loss is smooth is convex in the head's weights:
ridge regression, Huber's, one logistic regression a label, the continuation ratio. So it is solved as
`lora_clf.training.solver` solves the softmax: features of unit variance, L-BFGS in float64 (Liu and Nocedal 1989), the
L2 strength by folds inside the training part. Shapes: N texts, D width, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lora_clf.training.solver import STRENGTHS, WORSE, Solution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.tasks.base import Task

STEPS = 500  # of L-BFGS at most; it stops where slopes vanish
CONVERGED, PATH = 1e-8, 1e-5  # the largest slope; that of fits which only tell strengths apart


def solve_task_head(
    features: NDArray[np.float32], targets: NDArray[Any], task: Task, folds: NDArray[np.int64], *, bias: bool
) -> Solution:
    """The head that a task's loss and an L2 penalty of the best strength lead to.

    Args:
        features: (N, D).
        targets: (N, ...), as the task makes them.
        task: whose loss is convex and smooth in the logits.
        folds: (N,) the inner fold of each text; all the same where there are too few texts to choose by.
        bias: whether the head has one.
    """
    x = features.astype(np.float64)
    centre = x.mean(axis=0) if bias else np.zeros(x.shape[1])
    scale = np.sqrt(((x - centre) ** 2).mean(axis=0))
    scale = np.maximum(scale, 1e-3 * np.median(scale) + 1e-12)  # what hardly moves is noise
    inputs, wanted = torch.from_numpy((x - centre) / scale), torch.from_numpy(targets)
    losses = _fold_losses(inputs, wanted, task, torch.from_numpy(folds), bias)
    strength = STRENGTHS[int(np.argmin(losses)) if losses else len(STRENGTHS) // 2]
    weights = _solve(inputs, wanted, task, strength, bias, CONVERGED)
    loss = float(task.row_losses(_logits(inputs, weights, bias), wanted).mean())
    found = weights.numpy()
    weight = found[:, :-1] / scale
    offset = found[:, -1] - weight @ centre if bias else np.zeros(len(found))
    return Solution(weight, offset, strength, loss, losses)


def _fold_losses(inputs: Tensor, wanted: Tensor, task: Task, folds: Tensor, bias: bool) -> tuple[float, ...]:
    """The mean held-out loss at each strength, from the strongest on, until two are clearly worse than the best."""
    numbers = folds.unique().tolist()
    means: list[float] = []
    starts: dict[int, Tensor] = {}  # each strength starts where the stronger one ended
    for strength in STRENGTHS if len(numbers) > 1 else ():
        lost = 0.0
        for number in numbers:
            kept = folds != number
            starts[number] = _solve(inputs[kept], wanted[kept], task, strength, bias, PATH, starts.get(number))
            lost += float(task.row_losses(_logits(inputs[~kept], starts[number], bias), wanted[~kept]).sum())
        means.append(lost / len(inputs))
        if sum(mean > WORSE * min(means) for mean in means[-2:]) == 2:
            break
    return tuple(means)


def _logits(inputs: Tensor, weights: Tensor, bias: bool) -> Tensor:
    """(N, D) and (C, D + 1) -> (N, C)."""
    return inputs @ weights[:, :-1].T + (weights[:, -1] if bias else 0.0)


def _solve(
    inputs: Tensor, wanted: Tensor, task: Task, strength: float, bias: bool, slope: float, start: Tensor | None = None
) -> Tensor:
    """The weights (C, D + 1) at which mean loss + strength / 2 |weights without bias|^2 is smallest."""
    first = torch.zeros(task.outputs, inputs.shape[1] + 1, dtype=torch.float64) if start is None else start.clone()
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
        mean = task.row_losses(_logits(inputs, weights, bias), wanted).mean()
        value = mean + strength / 2 * weights[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(objective)
    return weights.detach()
