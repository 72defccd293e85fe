"""Scores of an adapter that was just made, beside those that it was made of: on the same texts, in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lora_clf.cli.evaluate import parts_of, score, unlike
from lora_clf.cli.evaluate_task import known_labels
from lora_clf.cli.flags import DataFlags
from lora_clf.cli.output import line, measured, table
from lora_clf.errors import DataError, UsageError

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter

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
    columns.say_unused(made.header.task)
    if all_rows and seed is not None:
        raise UsageError(f"--seed {seed} is about a split, and --all-rows makes none.")
    parts, split = parts_of(source, columns, made.header, seed, all_rows)
    same = split is not None and split.digest == made.header.data_digest
    if split is not None and not same and seed is None:
        raise DataError(unlike(source, made.header))
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
