"""Runs a whole comparison: every strategy with every seed on the same rows, each in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.cell import predictions_of
from lora_clf.comparison.child import start_cell
from lora_clf.comparison.comparison import (
    BaselineOutcome,
    Comparison,
    Failure,
    facts_of_base,
    facts_of_data,
    portable,
    without_folders,
)
from lora_clf.comparison.environment import environment, environment_digest
from lora_clf.comparison.outcome import Outcome, is_adapter_of, read_outcome
from lora_clf.comparison.plan import (
    BaseArguments,
    Cell,
    DataArguments,
    Plan,
    canonical,
    contenders_of,
    with_digests,
)
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset
    from lora_clf.tuners.base import Tuner

Datasets = dict[tuple[int, int | None], "Dataset"]


@dataclass(frozen=True)
class PlanProgress:
    """Where a comparison stands.

    Attributes:
        cell: the cell at work, or what was just finished.
        done, total: cells.
        step, steps: of the cell at work.
        seconds_left: for the whole plan; None before the first estimate.
        event: "estimate", "start", "step", "done", "kept" (it was there already) or "failed".
        message: one line for people, where there is something to say.
    """

    cell: str
    done: int
    total: int
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    event: str = "step"
    message: str = ""


Tell = Callable[[PlanProgress], None]


def compare(
    base: str | BaseArguments = "minilm",
    data: str | Path | DataArguments = "sms-spam",
    strategies: Sequence[str | Tuner] | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    out: str | Path,
    strategy_settings: Mapping[str, Mapping[str, Any]] | None = None,
    training: Mapping[str, Any] | None = None,
    data_settings: Mapping[str, Any] | None = None,
    folds: int | None = None,
    resplit: bool = False,
    split_seed: int = 0,
    save_adapters: bool = False,
    adapter_dtype: str = "fp32",
    force: bool = False,
    plot_format: str = "png",
    command: str | None = None,
    progress: Tell | None = None,
) -> Comparison:
    """Compare strategies on the same splits and seeds, with plain baselines, and write the report.

    Each finished run is kept in ``out`` at once: an interrupted comparison that is started again does only
    what is missing. A run that fails is reported; the others go on.

    Args:
        base: the base's name, or all arguments of `load_base`.
        data: a corpus' name or a file, or all arguments.
        strategies: names or tuners; the five of the first table by default.
        seeds: how many training seeds (0, 1, ...), or which.
        out: the folder for results, plots and report.
        strategy_settings: for each strategy name the hyperparameters that are not the default.
        training: keyword arguments of `TrainSettings`.
        data_settings: keyword arguments of `load_data`.
        folds: cut all rows into so many folds, each the test part once, in place of one split.
        resplit: let the split vary with the seed; by default all seeds share one.
        split_seed: the seed of the split.
        save_adapters: keep the trained adapters, in ``out/adapters``.
        adapter_dtype: what they are kept in: "fp32", or "bf16", half as large.
        force: overwrite the comparison of another plan in ``out``; runs of it that fit are kept.
        plot_format: of the plot files: "png", "svg" or "pdf".
        command: the command line, for the report.
        progress: told where the comparison stands.

    Raises:
        UsageError: the plan cannot be run, or ``out`` holds the comparison of another one.
        DataError, BaseError: nothing to compare on.
    """
    plan = Plan(
        contenders=contenders_of(strategies, strategy_settings),
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        base=BaseArguments(base) if isinstance(base, str) else base,
        data=data if isinstance(data, DataArguments) else DataArguments(str(data), dict(data_settings or {}), folds),
        training=dict(training or {}),
        resplit=resplit,
        split_seed=split_seed,
    )
    return run_plan(
        plan,
        Path(out),
        save_adapters=save_adapters,
        adapter_dtype=adapter_dtype,
        force=force,
        plot_format=plot_format,
        command=command,
        progress=progress,
    )


def run_plan(
    plan: Plan,
    out: Path,
    *,
    save_adapters: bool = False,
    adapter_dtype: str = "fp32",
    force: bool = False,
    plot_format: str = "png",
    command: str | None = None,
    progress: Tell | None = None,
) -> Comparison:
    """Run ``plan``; `compare` says what the arguments are."""
    from lora_clf.comparison.estimate import Clock, estimate
    from lora_clf.comparison.plots import check_format
    from lora_clf.comparison.report import write_report
    from lora_clf.training.settings import TrainSettings

    check_format(plot_format)
    settings = TrainSettings(**plan.training)  # a wrong setting ends here, before anything is loaded
    tell = progress or (lambda _: None)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out.name} is a file; expected a folder, or a name where there is nothing yet.")
    begin = time.perf_counter()
    loaded = load_parts(plan)
    base = plan.base.load()
    facts = {
        "base": facts_of_base(base),
        "data": facts_of_data(plan, loaded),
        "environment": environment(base),
    }
    if not force:
        _refuse_another(plan, facts, out)
    around = environment_digest(base, settings.precision)
    cells = [with_digests(cell, base, loaded[cell.split_seed, cell.fold], around) for cell in plan.cells()]
    known = {cell.name: read_outcome(out / "cells" / cell.name, cell.digest) for cell in cells}
    adapters = _adapter_names(plan) if save_adapters else {}
    todo = [
        cell
        for cell in cells
        if known[cell.name] is None
        or (save_adapters and not is_adapter_of(cell.digest, out / "adapters" / adapters[cell.name], adapter_dtype))
    ]
    start_up = time.perf_counter() - begin
    clock = Clock(estimate(plan, base, loaded, start_up) if todo else {}, todo)
    del base  # the children load their own; two copies would be one too many
    total = len(cells)
    for cell in cells:
        if cell not in todo:
            tell(PlanProgress(cell.name, total - len(todo), total, event="kept"))
    tell(
        PlanProgress(
            "",
            total - len(todo),
            total,
            seconds_left=clock.left(),
            event="estimate",
            message=clock.sentence(),
        )
    )
    failures: list[Failure] = []
    baselines = measure_baselines(loaded, failures)  # first, so that what fails is known before hours have passed
    for lost in failures:
        tell(PlanProgress(lost.cell, total - len(todo), total, event="failed", message=lost.message))
    outcomes: list[Outcome] = [found for cell in cells if (found := known[cell.name]) and cell not in todo]
    done = total - len(todo)
    for cell in todo:
        tell(PlanProgress(cell.name, done, total, seconds_left=clock.left(), event="start"))

        def step(event: dict[str, Any], cell: Cell = cell, done: int = done) -> None:
            left = clock.left(event["step"] / max(1, event["steps"]))
            tell(PlanProgress(cell.name, done, total, event["step"], event["steps"], left))

        place = out / "cells" / cell.name
        target = out / "adapters" / adapters[cell.name] if save_adapters else None
        clock.start(cell)
        failure = start_cell(cell, place, target, step, adapter_dtype)
        clock.stop(cell)
        found = None if failure else read_outcome(place, cell.digest)
        done += 1
        if found is None:
            failures.append(failure or Failure(cell.name, cell.contender.label, "LoraClfError", "no result came back"))
            tell(PlanProgress(cell.name, done, total, event="failed", message=failures[-1].message))
        else:
            outcomes.append(found)
            tell(PlanProgress(cell.name, done, total, seconds_left=clock.left(), event="done"))
    comparison = Comparison(
        plan=plan,
        outcomes=tuple(outcomes),
        baselines=tuple(baselines),
        failures=tuple(failures),
        facts=facts | {"command": without_folders(command)},
        datasets=loaded,
    )
    write_report(comparison, out, plot_format)
    return comparison


def load_parts(plan: Plan) -> Datasets:
    """Every data set of the plan by split seed and fold."""
    loaded: Datasets = {}
    for seed in plan.split_seeds():
        for number, data in enumerate(plan.data.load_all(seed)):
            loaded[seed, None if plan.data.folds is None else number] = data
    return loaded


def measure_baselines(datasets: Datasets, failures: list[Failure]) -> list[BaselineOutcome]:
    """The plain classifiers on every data set; one that fails joins ``failures``."""
    from lora_clf.comparison.baselines import majority, tfidf

    found = []
    for label, measure in (("majority", majority), ("TF-IDF + LR", tfidf)):
        for (seed, fold), data in datasets.items():
            try:
                baseline = measure(data, seed)
            except Exception as error:  # of a library: no reason to lose what the strategies find
                failures.append(Failure(label, label, type(error).__name__, str(error)))
                break
            test = predictions_of(data, data.test, baseline.test_probabilities)
            validation = predictions_of(data, data.validation, baseline.validation_probabilities)
            accuracy = float(validation.correct.mean()) if len(validation) else 0.0
            found.append(BaselineOutcome(label, seed, fold, baseline, test, accuracy))
    return found


def _refuse_another(plan: Plan, facts: Mapping[str, Any], out: Path) -> None:
    """Refuse a folder with the results of another plan or of other data.

    Raises:
        UsageError: the folder holds such results, or what cannot be read as results.
    """
    try:
        there = json.loads((out / "results.json").read_text(encoding="utf-8"))
        found = dict(there["plan"]), [split["digest"] for split in there["facts"]["data"]["splits"]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    mine = json.loads(canonical(portable(plan, facts["base"]["name"], facts["data"]["name"])))
    if found is not None and found[0] != mine:
        keys = sorted(key for key in mine if found[0].get(key) != mine[key])
        what = f"another comparison (other {', '.join(keys).replace('_', ' ')})"
    elif found is None or found[1] != [split["digest"] for split in facts["data"]["splits"]]:
        what = "a file results.json that cannot be read" if found is None else "a comparison on other data"
    else:
        return
    raise UsageError(f"{out.name} holds {what}. Choose another --out, or --force to overwrite its results.")


def _adapter_names(plan: Plan) -> dict[str, str]:
    """The adapter's folder for each cell: the strategy's name alone where there is one cell a strategy."""
    cells = plan.cells()
    alone = len(cells) == len(plan.contenders)
    return {cell.name: cell.name.rsplit(f"-seed-{cell.seed}", 1)[0] if alone else cell.name for cell in cells}
