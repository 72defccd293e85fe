"""What the units of work of one process share: the base, the data sets, their draws and inner folds, each made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.comparison.arguments import BaseArguments, DataArguments
    from lora_clf.comparison.plan import Cell
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
