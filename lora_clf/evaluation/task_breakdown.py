"""Where a model of numbers, ordered classes or several labels is right and where not.

The counterpart of `lora_clf.evaluation.breakdown`, which is about one label of several. Everything is about the task's
primary score, a mean of what each row costs. Shapes: N rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lora_clf.evaluation.breakdown import by_tokens, by_value
from lora_clf.evaluation.intervals import cost_interval
from lora_clf.metrics.thresholds import sweep
from lora_clf.tasks.base import Task
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression

BINS: Final = 10


@dataclass(frozen=True, eq=False)
class Scored:
    """Texts, their labels and what a model made of them.

    Attributes:
        task: as the adapter answers it.
        labels: the N labels as the task writes them.
        logits: (N, C).
        texts: the N texts; ``rows`` their numbers in the source, from 1; ``lengths`` (N,) tokens read of each.
        groups: (N,) the near-copy group of each text; None where all count as strangers.
    """

    task: Task
    labels: Sequence[str]
    logits: npt.NDArray[np.float32]
    texts: Sequence[str]
    rows: Sequence[int]
    lengths: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None = None

    @cached_property
    def targets(self) -> npt.NDArray[Any]:
        """As the task has them."""
        return self.task.targets(self.labels)

    @cached_property
    def costs(self) -> npt.NDArray[np.float64]:
        """What each row costs (N,)."""
        return self.task.costs(self.targets, self.logits)

    @cached_property
    def unit(self) -> float:
        """What costs are counted in, by all rows."""
        return self.task.unit(self.targets)

    @cached_property
    def answers(self) -> list[Any]:
        """What is answered."""
        return list(self.task.answers(self.logits, np.zeros(len(self.labels), dtype=bool)))

    def scores(self) -> dict[str, Any]:
        """Every score of the task."""
        return self.task.assess(self.targets, self.logits)

    def rate(self, places: npt.NDArray[np.intp]) -> dict[str, Any]:
        """The primary score of the rows at ``places``, with a 95 % interval over texts; near copies count as one."""
        measure, costs = self.task.primary, self.costs[places]
        if not len(costs):
            return {"n": 0, "score": None, "low": None, "high": None}
        values = 1.0 - costs if measure.higher else costs
        found: dict[str, Any] = {"n": len(costs), "score": float(values.mean()), "low": None, "high": None}
        groups = None if self.groups is None else self.groups[places]
        if len(np.unique(groups) if groups is not None else costs) > 1:
            cost = cost_interval(costs, groups, float(costs.mean()) or self.unit, share=measure.share)
            ends = (1 - cost.high, 1 - cost.low) if measure.higher else (cost.low, cost.high)
            found |= dict(zip(("low", "high"), ends, strict=True))
        return found


def breakdown(scored: Scored, columns: Mapping[str, Sequence[str | None]] | None = None) -> dict[str, Any]:
    """Overall, by class, by length, by column, calibration, thresholds and errors; ready for JSON."""
    return {
        "overall": scored.rate(np.arange(len(scored.labels))),
        "by_class": by_class(scored),
        "by_length": [{**facts, **scored.rate(places)} for facts, places in by_tokens(scored.lengths)],
        "by": {
            name: [{**facts, **scored.rate(places)} for facts, places in by_value(column)]
            for name, column in (columns or {}).items()
        },
        "reliability": reliability(scored),
        "thresholds": thresholds(scored),
        "errors": errors(scored),
    }


def by_class(scored: Scored) -> list[dict[str, Any]]:
    """The primary score of the rows of each class or label; of numbers, of ten parts by value."""
    task = scored.task
    if isinstance(task, Regression):
        values = scored.targets if len(scored.labels) else np.zeros(1)
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)))
        part = np.clip(np.searchsorted(edges, scored.targets, side="right") - 1, 0, max(0, len(edges) - 2))
        return [
            {"label": f"{edges[number]:g} to {edges[number + 1]:g}", **scored.rate(np.flatnonzero(part == number))}
            for number in range(max(0, len(edges) - 1))
        ]
    sets = [task.parts(label) for label in scored.labels]
    found = []
    for name in task.labels:
        places = np.flatnonzero([name in names for names in sets])
        found.append({"label": name, **scored.rate(places)})
    return found


def reliability(scored: Scored) -> list[dict[str, float]]:
    """Probabilities beside how often they hold, in ten bins of width 0.1; nothing for numbers, which have none.

    Of ordered classes: that of the class that is answered. Of several labels: that of every label of every row.
    """
    task = scored.task
    if isinstance(task, Ordinal):
        ranks = task.ranks(scored.logits)
        sure = task.shares(scored.logits)[np.arange(len(ranks)), ranks]
        holds = ranks == scored.targets
    elif isinstance(task, Multilabel):
        sure, holds = task.shares(scored.logits).reshape(-1), (scored.targets > 0.5).reshape(-1)
    else:
        return []
    part = np.minimum((sure * BINS).astype(np.intp), BINS - 1)
    inside = [(part == number) for number in range(BINS)]
    return [
        {"probability": float(sure[which].mean()), "holds": float(holds[which].mean()), "n": int(which.sum())}
        for which in inside
        if which.any()
    ]


def thresholds(scored: Scored) -> list[dict[str, Any]]:
    """Of several labels: what one threshold for all of them would do, over all answers at once."""
    task = scored.task
    if not isinstance(task, Multilabel) or not len(scored.labels):
        return []
    return [
        {
            "threshold": each.value,
            "flagged": each.flagged,
            "precision": each.precision,
            "recall": each.recall,
            "f1": 2 * each.hits / (each.flagged + each.positives) if each.flagged + each.positives else 0.0,
        }
        for each in sweep((scored.targets > 0.5).reshape(-1), task.shares(scored.logits).reshape(-1))
    ]


def errors(scored: Scored) -> list[dict[str, Any]]:
    """The rows that are answered wrongly, the worst first: the largest loss among those that cost something."""
    import torch

    if not len(scored.labels):
        return []
    logits = torch.from_numpy(scored.logits.astype(np.float64))
    losses = scored.task.row_losses(logits, torch.from_numpy(scored.targets)).numpy()
    wrong = np.flatnonzero(scored.costs > 0)
    ordered = wrong[np.lexsort((-losses[wrong], -scored.costs[wrong]))]
    return [
        {
            "row": int(scored.rows[place]),
            "label": scored.labels[place],
            "predicted": str(scored.answers[place].cells()[0]),
            "cost": float(scored.costs[place]),
            "loss": float(losses[place]),
            "text": scored.texts[place],
        }
        for place in ordered
    ]
