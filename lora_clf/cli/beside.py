"""Scores of an adapter that was just made, beside those that it was made of: on the same texts, in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lora_clf.cli.evaluate import score, split_of, unlike
from lora_clf.cli.evaluate_task import asked, known_labels
from lora_clf.cli.flags import DataFlags
from lora_clf.cli.output import line, measured, table
from lora_clf.errors import DataError, UsageError

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.data.corpus import Part

NEW = "new"
"""What the adapter that was just made is called among the scores."""


@dataclass(frozen=True)
class Beside:
    """Scores side by side.

    Attributes:
        adapter: the one that was made, with its metrics on record where the parts are those of the training.
        parts: part -> adapter -> scores; the new adapter is called `NEW`. Empty without data.
    """

    adapter: Adapter
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]]


def beside(
    made: Adapter,
    others: Mapping[str, Adapter],
    source: str | None,
    columns: DataFlags,
    seed: int | None,
    all_rows: bool,
) -> Beside:
    """Score ``made`` and ``others`` on ``source``, by default on the validation and test parts of their training.

    Raises:
        UsageError: flags about data without data.
        DataError: no split of it is that of the training, or labels that the adapters do not have.
    """
    if source is None:
        given = [name for name, came in (("--all-rows", all_rows), ("--seed", seed is not None)) if came]
        if given or columns != DataFlags():
            raise UsageError(f"{', '.join(given) or 'Flags about columns and splits'}: expected --data with them.")
        return Beside(made, {})
    parts, same = _parts(made, source, columns, seed, all_rows)
    positive = columns.positive_label or made.positive_label
    parts = {name: known_labels(part, name, made.header) for name, part in parts.items()}
    scores = {
        name: {who: score(each, part, positive, "fp32") for who, each in {**others, NEW: made}.items()}
        for name, part in parts.items()
    }
    if same:
        from lora_clf.adapters.provenance import recorded

        made.header = replace(made.header, metrics=recorded({name: scores[name][NEW] for name in scores}))
    return Beside(made, scores)


def _parts(
    made: Adapter, source: str, columns: DataFlags, seed: int | None, all_rows: bool
) -> tuple[dict[str, Part], bool]:
    """The parts to score on, and whether they are those of the training."""
    from lora_clf.data.dataset import load_table

    header = made.header
    columns.say_unused(header.task)
    if all_rows and seed is not None:
        raise UsageError(f"--seed {seed} is about a split, and --all-rows makes none.")
    if all_rows:
        empty = header.task == "multilabel"
        return {"all": load_table(source, **columns.table_settings(), empty_labels=empty)}, False
    seeds = tuple(dict.fromkeys((header.seed, 0))) if seed is None else (seed,)
    dataset = split_of(source, asked(columns.settings(), header), seeds, header.data_digest)
    same = dataset.digest == header.data_digest
    if not same and seed is None:
        raise DataError(unlike(source, seeds))
    return {"validation": dataset.validation, "test": dataset.test}, same


def show_beside(scores: Beside, new: str) -> None:
    """Print a line for each adapter, the two first scores of every part; ``new`` is what the new one is called."""
    if not scores.parts:
        return
    names = list(next(iter(scores.parts.values())))
    shown = scores.adapter.header.answering.shown[:2]
    columns = [f"{part} {each.heading()}" for part in scores.parts for each in shown]
    rows = [
        (
            new if name == NEW else name,
            *(measured(part[name][each.key], each.share) for part in scores.parts.values() for each in shown),
        )
        for name in names
    ]
    table(("adapter", *columns), rows)
    line()
