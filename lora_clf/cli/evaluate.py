"""`lora-clf evaluate`: score a saved adapter on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.cli.flags import AdapterFlags, DataFlags, Json, Precision, takes
from lora_clf.cli.opening import open_adapter
from lora_clf.cli.output import document, line, note
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.cli.scores import show_scores
from lora_clf.cli.sources import one_source, show_source
from lora_clf.errors import DataError, unknown

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.data.corpus import Part
    from lora_clf.data.dataset import Dataset

app = typer.Typer(add_completion=False)


@app.command()
@takes
def evaluate(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    source: Annotated[str | None, typer.Argument(metavar="DATA", help="A table, or a corpus: sms-spam, demo.")] = None,
    data: Annotated[str | None, typer.Option(help="The same as DATA.", rich_help_panel="Data")] = None,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Score every row of the table; do not split it.")
    ] = False,
    precision: Precision = "fp32",
    seed: Annotated[int | None, typer.Option(help="Of the split; by default found: the adapter's own, or 0.")] = None,
    as_json: Json = False,
    *,
    how: AdapterFlags,
    columns: DataFlags,
) -> None:
    """Score a saved adapter on labelled data: on the validation and test parts, or on every row."""
    quiet_third_parties()
    from lora_clf.adapters.file import read_header
    from lora_clf.adapters.origin import adapter_folder
    from lora_clf.data.dataset import load_table
    from lora_clf.inference.precision import resolve_precision

    origin = one_source(source, data)
    header = read_header(adapter_folder(adapter, file_cap=how.cap))
    if columns.positive_label is not None and columns.positive_label not in header.labels:
        raise unknown("label", columns.positive_label, header.labels)
    if all_rows:
        parts = {"all": load_table(origin, **columns.table_settings())}
        protocol, same = "all rows", False
        positive = columns.positive_label or header.positive_label
    else:
        seeds = dict.fromkeys((header.seed, 0)) if seed is None else (seed,)
        dataset = split_of(origin, columns.settings(), tuple(seeds), header.data_digest)
        parts = {"validation": dataset.validation, "test": dataset.test}
        protocol, same = dataset.protocol, dataset.digest == header.data_digest
        positive = columns.positive_label or header.positive_label or dataset.positive_label
    for name, part in parts.items():
        check_labels(part, name, header.labels)
    if not all_rows:
        if not same and seed is None:
            raise DataError(unlike(origin, tuple(seeds)))
        if not as_json:
            show_source(dataset, columns.positive_label)
    if not same:
        note(
            "These are not the parts that the adapter was trained with (another table, split or seed): "
            "texts of its training may be among them."
        )
    loaded = open_adapter(adapter, how, "evaluate")
    number = resolve_precision(precision, loaded.base.device)
    scores = {name: score(loaded, part, positive, number) for name, part in parts.items()}
    if as_json:
        document(
            {
                "validation": None,
                "test": None,
                **scores,
                "adapter": str(adapter),
                "labels": list(loaded.labels),
                "positive_label": positive,
                "protocol": protocol,
                "same_split_as_training": same,
            }
        )
        return
    line(f"Adapter: {adapter}, {header.strategy} on {header.base_name}, labels {', '.join(header.labels)}.")
    line()
    show_scores(scores, positive)


def split_of(origin: str, settings: dict[str, Any], seeds: tuple[int, ...], digest: str | None) -> Dataset:
    """The split of ``origin`` with the first of ``seeds`` that gives ``digest``; with the first where none does.

    An adapter's own seed is that of its training. `train` splits with it too, `compare` with another: 0, unless
    it was given.
    """
    from lora_clf.data.dataset import load_data

    first = load_data(origin, **settings, seed=seeds[0])
    if first.digest == digest:
        return first
    for seed in seeds[1:]:
        other = load_data(origin, **settings, seed=seed)
        if other.digest == digest:
            return other
    return first


def unlike(origin: str, seeds: tuple[int, ...]) -> str:
    """Why the validation and test parts of ``origin`` are not scored, and what to do."""
    tried = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {' and '.join(map(str, seeds))}"
    return (
        f"No split of {origin} that was tried ({tried}) is the one that the adapter was trained with, so its "
        "training texts may be among the validation and test parts. Give the flags of its split (--split, "
        "--protocol, --seed ...), or --all-rows to score the whole table, such as one that it has never seen."
    )


def score(adapter: Adapter, part: Part, positive: str | None, precision: str) -> dict[str, Any]:
    """The scores of ``adapter`` on ``part``."""
    import numpy as np

    from lora_clf.metrics.classification import summarise

    numbers = {label: number for number, label in enumerate(adapter.labels)}
    truth = np.array([numbers[label] for label in part.labels], dtype=np.int64)
    answers = adapter.predict(part.texts, precision=precision)
    probabilities = np.array([[answer.probabilities[label] for label in adapter.labels] for answer in answers])
    if positive not in adapter.labels:
        positive = None
    return summarise(truth, probabilities, adapter.labels, positive)


def check_labels(part: Part, name: str, labels: tuple[str, ...]) -> None:
    """Refuse rows whose label the adapter does not know.

    Raises:
        DataError: there are such rows; each label is listed with how many rows have it.
    """
    from collections import Counter

    strange = Counter(label for label in part.labels if label not in labels)
    if strange:
        raise DataError(
            f"Rows ({name}) have labels that the adapter does not know; it knows: {', '.join(labels)}.",
            [f"{label!r}: {count:,} rows" for label, count in strange.most_common()],
        )
