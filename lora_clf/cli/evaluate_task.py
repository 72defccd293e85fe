"""What `evaluate` does for an adapter of another task than one label of several, and with which labels it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.cli.companions import companions, counted
from lora_clf.cli.output import document, line
from lora_clf.cli.scorecard import show_task_breakdown
from lora_clf.cli.scores import show_scores
from lora_clf.comparison.arguments import LABELS
from lora_clf.errors import DataError

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.adapters.header import Header
    from lora_clf.data.corpus import Part
    from lora_clf.evaluation.task_breakdown import Scored


def asked(settings: Mapping[str, Any], header: Header) -> dict[str, Any]:
    """The settings of `load_data` with the adapter's own task in place of what the flags or the labels say."""
    return {**{name: value for name, value in settings.items() if name not in LABELS}, "task": header.answering}


def known_labels(part: Part, name: str, header: Header) -> Part:
    """The rows with their labels as the adapter writes them.

    Raises:
        DataError: there are labels that it does not know; each is listed with how many rows have it.
    """
    task = header.answering
    if not task.softmax:
        from lora_clf.data.question import read_labels

        return read_labels(part, task, name)
    check_labels(part, name, header.labels)
    return part


def check_labels(part: Part, name: str, labels: tuple[str, ...]) -> None:
    """Refuse rows whose label the adapter does not know.

    Raises:
        DataError: there are such rows; each label is listed with how many rows have it.
    """
    strange = Counter(label for label in part.labels if label not in labels)
    if strange:
        raise DataError(
            f"Rows ({name}) have labels that the adapter does not know; it knows: {', '.join(labels)}.",
            [f"{label!r}: {count:,} rows" for label, count in strange.most_common()],
        )


def scored_of(adapter: Adapter, part: Part, precision: str, *, column: str | None = None) -> Scored:
    """What ``adapter`` makes of ``part``; near copies are found, and rows of ``column`` go together."""
    from lora_clf.evaluation.task_breakdown import Scored

    return Scored(
        task=adapter.header.answering,
        labels=part.labels,
        logits=adapter.logits(part.texts, precision=precision),
        texts=part.texts,
        rows=part.rows,
        lengths=adapter.encode(part.texts).text_lengths,
        groups=companions(part, column),
    )


def evaluate_task(
    adapter: Adapter,
    scored: Mapping[str, Scored],
    columns: Mapping[str, Mapping[str, Sequence[str | None]]],
    facts: Mapping[str, Any],
    shown: Sequence[str],
    errors: int,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print, or give as JSON, what is known of each part; and draw numbers where asked.

    Args:
        adapter: as it is opened.
        scored: its answers to each part.
        columns: for each part the columns that ``--by`` named.
        facts: about the evaluation, for JSON.
        shown: lines about it, for people.
        errors: how many are printed.
        plot: where the plot of the last part goes, or None.
        as_json: whether one document is printed instead.
    """
    from lora_clf.evaluation.task_breakdown import breakdown

    header = adapter.header
    task = header.answering
    scores = {name: each.scores() for name, each in scored.items()}
    reports = {name: breakdown(each, columns[name]) for name, each in scored.items()}
    detailed = list(scored)[-1]
    if as_json:
        document(
            {
                "validation": None,
                "test": None,
                **scores,
                **facts,
                "task": header.task,
                "primary": task.primary.key,
                "task_settings": dict(header.task_settings),
                "labels": list(header.labels),
                "positive_label": None,
                "reports": reports,
            }
        )
        _draw(scored[detailed], plot)
        return
    name = "the number" if header.task == "regression" else "labels"
    line(f"Adapter: {facts['adapter']}, {header.strategy} on {header.base_name}, {name} {', '.join(header.labels)}.")
    for each in shown:
        line(each)
    line()
    show_scores(task, scores, None)
    rests = counted(len(scored[detailed].rows))
    show_task_breakdown(detailed, reports[detailed], task.primary, errors, rests, numbers=task.name == "regression")
    _draw(scored[detailed], plot)
    if plot is not None:
        line(f"Wrote {plot}: predicted against true numbers of {detailed}, and residuals.")


def _draw(scored: Scored, plot: Path | None) -> None:
    """Draw the numbers of a part, where that is asked for; last, so that no disk takes the scores with it."""
    from lora_clf.evaluation.fit_plot import plot_fit
    from lora_clf.tasks.regression import Regression

    if plot is not None and isinstance(scored.task, Regression):
        plot_fit(scored.targets, scored.task.values(scored.logits), scored.task.labels[0], plot)
