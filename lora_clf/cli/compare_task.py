"""`lora-clf compare` where the task is not one label of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.cli.failure import Interrupted
from lora_clf.cli.output import document, line, note, table

if TYPE_CHECKING:
    from lora_clf.cli.flags import BaseFlags
    from lora_clf.comparison.contender import Contender
    from lora_clf.data.dataset import Dataset


def compare_other(
    data: Dataset,
    contenders: Sequence[Contender],
    seeds: int | Sequence[int],
    out: Path,
    shared: BaseFlags,
    settings: Mapping[str, Any],
    plot_format: str,
    group_column: str | None = None,
    *,
    as_json: bool,
) -> None:
    """Compare strategies by the task's own score, write the report and print the table.

    Args:
        data: training, validation and test parts.
        contenders: the strategies.
        seeds: how many, or which.
        out: the folder.
        shared: the flags of the base.
        settings: training, reading, margin and force, as `compare_task` takes them.
        plot_format: "png", "svg" or "pdf".
        group_column: rows that share its value count as one in the intervals.
        as_json: whether one document is printed in place of the table.
    """
    from lora_clf.base.base import load_base
    from lora_clf.comparison.plots import check_format
    from lora_clf.comparison.recommendation import check_margin
    from lora_clf.comparison.task_report import notes_of, table_of, write_task_report
    from lora_clf.comparison.task_runs import compare_task
    from lora_clf.comparison.task_standing import standing_of, verdict_of

    check_format(plot_format)
    check_margin(settings["margin"])
    base = load_base(
        shared.base,
        revision=shared.revision,
        device=shared.device,
        pooling=shared.pooling,
        max_length=shared.max_length,
    )
    counted = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    note(f"Task: {data.task.name} ({data.task_reason}); judged by {data.task.primary.title}.")
    try:
        found = compare_task(base, data, contenders, counted, out, **settings, say=note)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Interrupted. Finished runs are kept in {out}; the same command does only what is missing."
        ) from error
    standing = standing_of(found, group_column)
    write_task_report(found, standing, out, plot_format)
    if as_json:
        document({"facts": dict(found.facts), "standing": standing.to_json(), "verdict": verdict_of(found, standing)})
        return
    table(*table_of(found, standing))
    line()
    for remark in notes_of(found, standing):
        line(remark)
    line()
    line(" ".join(verdict_of(found, standing)))
    line(f"Report, table, plots and results: {out}")
