"""What a comparison is told of its base and its data: the arguments of `load_base` and `load_data`, as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.base.verbalizer import Verbalizer
    from lora_clf.data.dataset import Dataset

LABELS = ("task", "label_separator", "label_order", "bins")
"""The settings that say what is learned."""
FOLD_SETTINGS = ("group_column", "validation", "balance", "positive_label", *LABELS)


@dataclass(frozen=True)
class BaseArguments:
    """The arguments of `load_base`, and what is asked of a decoder that answers in words.

    Attributes:
        template: of a verbalizer; None: heads are linear.
        words: the word of each label, as JSON; None: their own names.
    """

    name: str = "minilm"
    revision: str | None = None
    device: str = "auto"
    pooling: str | None = None
    max_length: int | None = None
    template: str | None = None
    words: str | None = None

    def asking(self, verbalizer: Verbalizer | None) -> BaseArguments:
        """The same with the heads that ``verbalizer`` says."""
        if verbalizer is None:
            return self
        words = None if verbalizer.words is None else json.dumps(dict(verbalizer.words), sort_keys=True)
        return replace(self, template=verbalizer.template, words=words)

    def answering(self, base: Base, labels: Sequence[str]) -> Base:
        """``base`` as its classifiers of ``labels`` see it: through the template, where there is one.

        Raises:
            UsageError, UnsupportedBaseError: as `lora_clf.base.verbalizer.Verbalizer.on`.
        """
        if self.template is None:
            return base
        from lora_clf.base.verbalizer import Verbalizer

        return Verbalizer(self.template, None if self.words is None else json.loads(self.words)).on(base, labels)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; of a verbalizer only where there is one."""
        return {k: v for k, v in asdict(self).items() if v is not None or k not in ("template", "words")}

    def locate(self) -> None:
        """Find the base by its name, and fetch it where it is not here.

        Raises:
            BaseError, UsageError: as `lora_clf.base.sources.locate`.
        """
        from lora_clf.base.base import pick_device
        from lora_clf.base.sources import locate

        pick_device(self.device)
        locate(str(self.name), self.revision)

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
        settings: keyword arguments of `load_data`, a task by its name; with folds those of `load_table` and `folds`,
            and ``protocol``.
        folds: None for one split; k for k folds over all rows, each of them the test part once.
    """

    source: str = "sms-spam"
    settings: dict[str, Any] = field(default_factory=dict)
    folds: int | None = None

    def __post_init__(self) -> None:
        """Check what has to go through JSON, and be read by every run."""
        from lora_clf.data.reader import is_pipe

        if not isinstance(task := self.settings.get("task", "auto"), str):
            raise UsageError(f"A comparison takes its task by name, as {task.name!r}; a Task came.")
        for place in (self.source, self.settings.get("validation"), self.settings.get("test")):
            if place is not None and is_pipe(place):
                raise UsageError(f"{place} is no file that every run of a comparison can read. Write it to one first.")

    def load(self, seed: int, fold: int | None = None) -> Dataset:
        """The data set of one split seed and, in a plan with folds, of one fold (0-based)."""
        return self.load_all(seed)[fold or 0]

    def load_all(self, seed: int) -> list[Dataset]:
        """Every data set of one split seed: one, or one a fold."""
        from lora_clf.data.dataset import folds, load_data

        if self.folds is None:
            return [load_data(self.source, **self.settings, seed=seed)]
        from lora_clf.data.corpus import load_corpus
        from lora_clf.data.question import Question

        cut = {key: value for key, value in self.settings.items() if key in FOLD_SETTINGS}
        read = {key: value for key, value in self.settings.items() if key not in {*FOLD_SETTINGS, "protocol"}}
        if (group_column := cut.get("group_column")) is not None:
            read["columns"] = [*read.get("columns", ()), group_column]
            read["required"] = [group_column]
        asked = Question(**{key: value for key, value in cut.items() if key in LABELS})
        corpus = load_corpus(self.source, **read, empty_labels=asked.may_be_empty)
        asked.check_guess(corpus, read.get("label_column"))
        return folds(
            corpus.part,
            self.folds,
            seed,
            self.settings.get("protocol", "near-copy-free"),
            **cut,
            label_column=corpus.label_column,
            name=corpus.name,
            licence=corpus.licence,
            source=corpus.source,
            warnings=corpus.warnings,
        )
