"""What a comparison is told of its base and its data: the arguments of `load_base` and `load_data`, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

FOLD_SETTINGS = ("group_column", "validation", "balance", "positive_label")


@dataclass(frozen=True)
class BaseArguments:
    """The arguments of `load_base`."""

    name: str = "minilm"
    revision: str | None = None
    device: str = "auto"
    pooling: str | None = None
    max_length: int | None = None

    def load(self) -> Base:
        """Load the base."""
        from lora_clf.base.base import load_base

        return load_base(
            self.name,
            revision=self.revision,
            device=self.device,
            pooling=self.pooling,
            max_length=self.max_length,
        )


@dataclass(frozen=True)
class DataArguments:
    """The arguments of `load_data`, or of `load_table` and `folds`.

    Attributes:
        source: a corpus' name or a file.
        settings: keyword arguments of `load_data`; with folds those of `load_table` and `folds`, and
            ``protocol``.
        folds: None for one split; k for k folds over all rows, each of them the test part once.
    """

    source: str = "sms-spam"
    settings: dict[str, Any] = field(default_factory=dict)
    folds: int | None = None

    def load(self, seed: int, fold: int | None = None) -> Dataset:
        """The data set of one split seed and, in a plan with folds, of one fold (0-based)."""
        return self.load_all(seed)[fold or 0]

    def load_all(self, seed: int) -> list[Dataset]:
        """Every data set of one split seed: one, or one a fold."""
        from lora_clf.data.dataset import folds, load_data

        if self.folds is None:
            return [load_data(self.source, **self.settings, seed=seed)]
        from lora_clf.data.corpus import load_corpus

        cut = {key: value for key, value in self.settings.items() if key in FOLD_SETTINGS}
        read = {key: value for key, value in self.settings.items() if key not in {*FOLD_SETTINGS, "protocol"}}
        if (group_column := cut.get("group_column")) is not None:
            read["columns"] = [*read.get("columns", ()), group_column]
        corpus = load_corpus(self.source, **read)
        return folds(
            corpus.part,
            self.folds,
            seed,
            self.settings.get("protocol", "near-copy-free"),
            **cut,
            name=corpus.name,
            licence=corpus.licence,
            source=corpus.source,
        )
