"""The data sets of a plan, and what the units of work of one process share of base and data, each made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.comparison.arguments import BaseArguments, DataArguments
    from lora_clf.comparison.plan import Cell, Datasets, Plan
    from lora_clf.data.dataset import Dataset
    from lora_clf.data.subsets import Draws


class Materials:
    """Loads what cells and trials ask for, and keeps it for the next that asks for the same."""

    def __init__(self) -> None:
        self._bases: dict[BaseArguments, Base] = {}
        self._splits: dict[tuple[str, int], list[Dataset]] = {}
        self._draws: dict[tuple[str, int], Draws] = {}
        self._inner: dict[tuple[str, int, int | None, int], list[Dataset]] = {}

    def base(self, arguments: BaseArguments) -> Base:
        """The base."""
        if arguments not in self._bases:
            self._bases[arguments] = arguments.load()
        return self._bases[arguments]

    def data(self, cell: Cell) -> Dataset:
        """The data set of a cell: of its split and fold or, on a learning curve, of its draw of k examples a class."""
        if cell.k is not None:
            return self.draws(cell.data, cell.split_seed).subset(cell.k, cell.seed)
        return self.split(cell.data, cell.split_seed, cell.fold)

    def split(self, arguments: DataArguments, seed: int, fold: int | None = None) -> Dataset:
        """The data set of one split seed and fold."""
        key = repr(arguments), seed
        if key not in self._splits:
            self._splits[key] = arguments.load_all(seed)
        return self._splits[key][fold or 0]

    def draws(self, arguments: DataArguments, seed: int) -> Draws:
        """What draws subsets of the data set of one split seed."""
        from lora_clf.data.subsets import Draws

        key = repr(arguments), seed
        if key not in self._draws:
            self._draws[key] = Draws(self.split(arguments, seed), seed)
        return self._draws[key]

    def inner(self, arguments: DataArguments, seed: int, fold: int | None, folds: int) -> list[Dataset]:
        """Folds inside the training part of one data set."""
        from lora_clf.data.subsets import folds_within

        key = repr(arguments), seed, fold, folds
        if key not in self._inner:
            self._inner[key] = folds_within(self.split(arguments, seed, fold), folds, seed)
        return self._inner[key]


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
