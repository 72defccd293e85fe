"""`lora-clf evaluate`: score a saved adapter on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.cli.companions import companions, counted
from lora_clf.cli.flags import AdapterFlags, DataFlags, Force, Json, Precision, takes
from lora_clf.cli.opening import open_adapter
from lora_clf.cli.output import document, line, note
from lora_clf.cli.places import check_free_file
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.cli.scorecard import show_breakdown
from lora_clf.cli.scores import show_scores
from lora_clf.cli.sources import one_source, read_once, show_source
from lora_clf.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lora_clf.adapters.adapter import Adapter
    from lora_clf.adapters.header import Header
    from lora_clf.data.corpus import Part
    from lora_clf.data.dataset import Dataset
    from lora_clf.evaluation.breakdown import Answered

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
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="COLUMN", help="Scores apart for each value of this column.")
    ] = None,
    drop_rows: Annotated[
        list[str] | None,
        typer.Option("--drop-rows", metavar="COLUMN=VALUE", help="Leave these rows out of what is scored."),
    ] = None,
    errors: Annotated[int, typer.Option(help="How many errors are shown, the worst first; --json has all.")] = 10,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a regression: predicted against true, and residuals (png, svg, pdf)."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
    columns: DataFlags,
) -> None:
    """Score a saved adapter on labelled data: on the validation and test parts, or on every row.

    Scores by class, by length and by column come with intervals; then calibration, other thresholds and the errors.
    """
    quiet_third_parties()
    if all_rows and seed is not None:
        raise UsageError(f"--seed {seed} is about a split, and --all-rows makes none.")
    if force and plot is None:
        raise UsageError("--force is about --plot, which was not given.")
    if errors < 0:
        raise UsageError(f"--errors {errors}: expected 0 or more.")
    rules = [drop_rule(text) for text in drop_rows or ()]
    extra = tuple(dict.fromkeys([*(by or ()), *(column for column, _ in rules)]))
    from lora_clf.adapters.file import read_header
    from lora_clf.adapters.origin import adapter_folder
    from lora_clf.cli.evaluate_task import evaluate_task, known_labels, scored_of
    from lora_clf.evaluation.breakdown import breakdown
    from lora_clf.evaluation.fit_plot import check_plot
    from lora_clf.inference.precision import resolve_precision

    origin = one_source(source, data)
    header = read_header(adapter_folder(adapter, file_cap=how.cap))
    columns.say_unused(header.task)
    if plot is not None:
        check_plot(plot)
        check_free_file(plot, force, "--plot", makes_folder=True)
        if header.task != "regression":
            raise UsageError(f"--plot draws numbers, and the adapter's task is {header.task}.")
    if columns.positive_label is not None and columns.positive_label not in header.labels:
        raise unknown("label", columns.positive_label, header.labels)
    parts, dataset = parts_of(origin, columns, header, seed, all_rows, extra)
    same = dataset is not None and dataset.digest == header.data_digest
    protocol = "all rows" if dataset is None else dataset.protocol
    positive = columns.positive_label or header.positive_label or (None if dataset is None else dataset.positive_label)
    dropped: dict[str, int] = {}
    if rules:
        parts, dropped = without(parts, rules)
    parts = {name: known_labels(part, name, header) for name, part in parts.items()}
    if dataset is not None:
        if not same and seed is None:
            raise DataError(unlike(origin, header))
        if not as_json:
            show_source(dataset, columns.positive_label)
    if not same:
        note(
            "These are not the parts that the adapter was trained with (another table, split or seed): "
            "texts of its training may be among them."
        )
    loaded = open_adapter(adapter, how, "evaluate")
    number = resolve_precision(precision, loaded.base.device)
    grouped = columns.group_column if not all_rows else None
    if not header.answering.softmax:
        facts = {"adapter": str(adapter), "protocol": protocol, "same_split_as_training": same, "dropped": dropped}
        shown = [
            f"Left out of {name}: {count:,} rows ({', '.join(drop_rows or ())})." for name, count in dropped.items()
        ]
        scored = {name: scored_of(loaded, part, number, column=grouped) for name, part in parts.items()}
        by_columns = {name: {column: parts[name].columns[column] for column in by or ()} for name in parts}
        evaluate_task(loaded, scored, by_columns, facts, shown, errors, plot, as_json=as_json)
        return
    answers = {
        name: answered(loaded, part, positive, number, groups=True, column=grouped) for name, part in parts.items()
    }
    scores = {name: scores_of(each) for name, each in answers.items()}
    reports = {
        name: breakdown(each, {column: parts[name].columns[column] for column in by or ()})
        for name, each in answers.items()
    }
    would = would_be(answers) if header.temperature is None else None
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
                "threshold": header.threshold,
                "temperature": header.temperature,
                "temperature_would_be": would,
                "dropped": dropped,
                "reports": reports,
            }
        )
        return
    line(f"Adapter: {adapter}, {header.strategy} on {header.base_name}, labels {', '.join(header.labels)}.")
    for name, count in dropped.items():
        line(f"Left out of {name}: {count:,} rows ({', '.join(drop_rows or ())}).")
    line()
    show_scores(header.answering, scores, positive)
    detailed = list(scores)[-1]
    rests = counted(len(answers[detailed].rows))
    show_breakdown(detailed, scores[detailed], reports[detailed], positive, errors, rests, would)


def drop_rule(text: str) -> tuple[str, str]:
    """Column and value of ``COLUMN=VALUE``.

    Raises:
        UsageError: there is no ``=`` in it, or no column.
    """
    column, equals, value = text.partition("=")
    if not equals or not column.strip():
        raise UsageError(f'--drop-rows {text!r}: expected column=value, as --drop-rows "speaker=host".')
    return column.strip(), value.strip()


def without(parts: Mapping[str, Part], rules: Sequence[tuple[str, str]]) -> tuple[dict[str, Part], dict[str, int]]:
    """The parts without the rows that any rule names, and how many each lost.

    Raises:
        UsageError: a rule names no row; the message lists what the column holds.
        DataError: no row of a part is left.
    """
    from collections import Counter

    for column, value in rules:
        there = Counter(_value(each) for part in parts.values() for each in part.columns[column])
        if value not in there:
            shown = ", ".join(f"{name!r} ({count:,})" for name, count in there.most_common(10))
            more = f" and {len(there) - 10} more" if len(there) > 10 else ""
            raise UsageError(f"--drop-rows {column}={value}: no row has it. Column {column!r} holds {shown}{more}.")
    kept: dict[str, Part] = {}
    for name, part in parts.items():
        places = [
            place
            for place in range(len(part))
            if not any(_value(part.columns[column][place]) == value for column, value in rules)
        ]
        if not places:
            raise DataError(f"No row of {name} is left: --drop-rows leaves out all {len(part):,}.")
        kept[name] = part.take(places)
    return kept, {name: len(part) - len(kept[name]) for name, part in parts.items()}


def _value(cell: str | None) -> str:
    return (cell or "").strip()


def parts_of(
    origin: str, columns: DataFlags, header: Header, seed: int | None, all_rows: bool, extra: tuple[str, ...] = ()
) -> tuple[dict[str, Part], Dataset | None]:
    """What of ``origin`` is scored, with the columns ``extra``, and the split; None with ``all_rows``.

    Without a ``seed`` the first of `_seeds` that gives the data of the training, or the very first where none does.
    """
    from lora_clf.cli.evaluate_task import asked
    from lora_clf.data.dataset import load_data, load_table

    if all_rows:
        empty = header.task == "multilabel"
        return {"all": load_table(origin, **columns.table_settings(), columns=extra, empty_labels=empty)}, None
    settings = {**asked(columns.settings(), header), "columns": extra}
    table = read_once(origin, settings.get("encoding"))
    first, *others = _seeds(header) if seed is None else (seed,)
    dataset = load_data(table, **settings, seed=first)
    for each in others:
        if dataset.digest != header.data_digest:
            other = load_data(table, **settings, seed=each)
            dataset = other if other.digest == header.data_digest else dataset
    return {"validation": dataset.validation, "test": dataset.test}, dataset


def _seeds(header: Header) -> tuple[int, ...]:
    """An adapter's own seed, with which `train` splits its data too, and that with which `compare` does by default."""
    return tuple(dict.fromkeys((header.seed, 0)))


def unlike(origin: str, header: Header) -> str:
    """Why the validation and test parts of ``origin`` are not scored, and what to do."""
    seeds = _seeds(header)
    tried = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {' and '.join(map(str, seeds))}"
    return (
        f"No split of {origin} that was tried ({tried}) is the one that the adapter was trained with, so its "
        "training texts may be among the validation and test parts. For a table that it has never seen give "
        "--all-rows; for the one it was trained on the flags of its split (--split, --protocol, --seed ...)."
    )


def score(adapter: Adapter, part: Part, positive: str | None, precision: str) -> dict[str, Any]:
    """The scores of ``adapter`` on ``part``."""
    task = adapter.header.answering
    if not task.softmax:
        return task.assess(task.targets(part.labels), adapter.logits(part.texts, precision=precision))
    return scores_of(answered(adapter, part, positive, precision))


def scores_of(found: Answered) -> dict[str, Any]:
    """The scores of answers, temperature and threshold applied."""
    from lora_clf.metrics.classification import assess

    return assess(
        found.truth,
        found.logits,
        found.names,
        found.positive,
        temperature=found.temperature,
        threshold=found.threshold,
        threshold_label=found.threshold_label,
    )


def would_be(answers: Mapping[str, Answered]) -> dict[str, Any] | None:
    """What a temperature fitted on validation would do to the test part, for an adapter that has none."""
    from lora_clf.metrics.classification import probability_scores
    from lora_clf.metrics.probability import softmax
    from lora_clf.metrics.temperature import fit_temperature

    if "validation" not in answers or "test" not in answers:
        return None
    found = fit_temperature(answers["validation"].truth, answers["validation"].logits)
    test = answers["test"]
    if found.value is None:
        return found.as_dict()
    return {**found.as_dict(), "test": probability_scores(test.truth, softmax(test.logits / found.value))}


def answered(
    adapter: Adapter,
    part: Part,
    positive: str | None,
    precision: str,
    *,
    groups: bool = False,
    column: str | None = None,
) -> Answered:
    """What ``adapter`` makes of ``part``; with ``groups`` near copies are found, and rows of ``column`` go together."""
    import numpy as np

    from lora_clf.evaluation.breakdown import Answered

    numbers = {label: number for number, label in enumerate(adapter.labels)}
    header = adapter.header
    return Answered(
        names=adapter.labels,
        truth=np.array([numbers[label] for label in part.labels], dtype=np.int64),
        logits=adapter.logits(part.texts, precision=precision),
        texts=part.texts,
        rows=part.rows,
        lengths=adapter.encode(part.texts).text_lengths if groups else np.zeros(len(part), dtype=np.int64),
        positive=positive if positive in adapter.labels else None,
        temperature=header.temperature,
        threshold=header.threshold,
        threshold_label=header.positive_label,
        groups=companions(part, column) if groups else None,
    )
