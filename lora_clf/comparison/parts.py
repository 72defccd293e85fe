"""The data sets of a plan: one for each split and fold, and one for each draw of a learning curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_clf.comparison.plan import Plan
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset

Datasets = dict[tuple[int, int | None], "Dataset"]


def load_parts(plan: Plan) -> Datasets:
    """Every data set of the plan by split seed and fold.

    Raises:
        UsageError: the split is to vary with the seed, and the data have one only.
    """
    loaded: Datasets = {}
    for seed in plan.split_seeds():
        for number, data in enumerate(plan.data.load_all(seed)):
            loaded[seed, None if plan.data.folds is None else number] = data
    if plan.resplit:
        _check_splits(loaded)
    return loaded


def _check_splits(loaded: Datasets) -> None:
    """Refuse what is one split under several seeds: a report would count its rows and its leaks once a seed."""
    from lora_clf.data.dataset import GIVEN

    protocol = next(iter(loaded.values())).protocol
    splits: dict[int, list[str]] = {}
    for (seed, _), data in loaded.items():
        splits.setdefault(seed, []).append(data.digest)
    same = len(splits) > 1 and len({tuple(digests) for digests in splits.values()}) == 1
    whys = {GIVEN: "the data come with a split of their own", "book": "--protocol book is one fixed split"}
    if same or protocol == "book":
        why = whys.get(protocol, "the splits of all seeds are the same")
        raise UsageError(
            f"--resplit and --repeats make a split with every seed, and {why}. Leave them out, and train with --seeds."
        )


def draw_parts(plan: Plan, loaded: Datasets) -> Datasets:
    """The data sets of the learning curve, by draw and k.

    Raises:
        UsageError: a size that no class has.
        DataError: all examples of a draw are copies of each other.
    """
    if plan.curve is None:
        return {}
    from lora_clf.data.subsets import Draws

    draws = Draws(loaded[plan.split_seed, None], plan.split_seed)
    if (most := plan.curve.sizes[-1]) > draws.largest:
        raise UsageError(
            f"--curve {most}: no class has so many rows for training and validation; the largest has {draws.largest}. "
            "Write all for the whole training part."
        )
    return {(draw, k): draws.subset(k, draw) for k in plan.curve.sizes for draw in range(plan.curve.draws_of(k))}
